"""A journal is read without Optuna as Optuna reads it, whoever wrote it and wherever it was cut."""

import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from dpcore.errors import Corrupt
from sweeps.search.journal import SweepJournal
from sweeps.search.reading import SeenState, SeenStudy, SeenTrial, read_journal


def as_optuna_reads(path: Path) -> list[SeenStudy]:
    storage = JournalStorage(SweepJournal(path))
    return [
        SeenStudy(
            name=study.study_name,
            user_attrs=study.user_attrs,
            trials=[
                SeenTrial(number=one.number, state=SeenState[one.state.name], value=one.value, user_attrs=one.user_attrs)
                for one in storage.get_all_trials(study._study_id)
            ],
        )
        for study in storage.get_all_studies()
    ]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a driver, a dashboard and a second process write: ends of each kind, enqueued trials, reports, deleted studies,
    and entries that come too late."""
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    ours, theirs = JournalStorage(SweepJournal(path)), JournalStorage(JournalFileBackend(str(path)))
    generator = random.Random(4)
    first = optuna.create_study(study_name="s/epsilon-0.5", storage=ours, direction="maximize")
    optuna.create_study(study_name="gone", storage=theirs)
    second = optuna.create_study(study_name="s/references", storage=ours, direction="maximize")
    first.enqueue_trial({"x": 0.25}, user_attrs={"from": "s/epsilon-2"})
    first.add_trial(create_trial(value=0.75, user_attrs={"note": "added whole"}))
    optuna.delete_study(study_name="gone", storage=theirs)
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None) * 3:
        study = generator.choice((first, second))
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.set_user_attr("record", f"of trial {trial.number}")
        trial.report(generator.random(), step=3)
        trial.set_user_attr("record", f"again {trial.number}")
        if state is not None:
            study.tell(trial, generator.random() if state is TrialState.COMPLETE else None, state=state)
    first.set_user_attr("selected", True)
    first.set_user_attr("selected", [1, 2])
    with path.open("ab") as file:  # of a process that lost a race: for a trial that has ended, and for what is not there
        file.write(b'{"op_code":8,"worker_id":"w","trial_id":1,"user_attr":{"late":true}}\n')
        file.write(b'{"op_code":6,"worker_id":"w","trial_id":999,"state":1,"values":[1.0]}\n')
        file.write(b'{"op_code":2,"worker_id":"w","study_id":1,"user_attr":{"late":true}}\n')
        file.write(b'{"op_code":0,"worker_id":"w","study_name":"s/references","directions":[2]}\n')
    return path


def test_a_journal_is_read_as_optuna_reads_it(journal: Path) -> None:
    found = read_journal(journal)
    assert found == as_optuna_reads(journal)
    assert {trial.state for study in found for trial in study.trials} == set(SeenState) - {SeenState.WAITING}
    assert found[0].user_attrs == {"selected": [1, 2]}


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_is_read_so_far_as_it_was_written(journal: Path, tmp_path: Path, seed: int) -> None:
    content, path = journal.read_bytes(), tmp_path / "study.journal"
    path.write_bytes(content[: random.Random(seed).randrange(len(content))])
    assert read_journal(path) == as_optuna_reads(path)


@pytest.mark.parametrize(
    "entry", [b"no JSON", b"[1]", b"{}", b'{"op_code":77}', b'{"op_code":4}', b'{"op_code":8,"trial_id":"0","user_attr":{}}']
)
def test_an_entry_that_optuna_does_not_write_is_named(entry: bytes, journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(entry + b"\n" + journal.read_bytes())
    with pytest.raises(Corrupt, match=r"study\.journal line 1 cannot be read"):
        read_journal(path)


def test_no_journal_has_no_studies(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "study.journal") == []
