"""The journal: Optuna's own format, many entries in one write, no clocks on protected data."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dpcore.errors import Corrupt
from sweeps.search.journal import NO_TIME, TIMES, SweepJournal


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def counted_writes(journal: SweepJournal, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    writes: list[int] = []
    write = journal._write
    monkeypatch.setattr(journal, "_write", lambda lines: (writes.append(len(lines)), write(lines)))
    return writes


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("note", ["a", 1])
    return trial


def test_what_is_appended_together_is_one_write_that_plain_optuna_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    journal = SweepJournal(path)
    study = optuna.create_study(study_name="s", storage=JournalStorage(journal))
    writes = counted_writes(journal, monkeypatch)
    with journal.together():
        trial = ask(study)
        assert study.trials[0].params == trial.params  # seen at once by whoever wrote it
    assert writes == [len(entries(path)) - 1]
    study.tell(trial, 0.5)
    plain = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [(t.params, t.user_attrs, t.value) for t in plain.trials] == [(trial.params, {"note": ["a", 1]}, 0.5)]


def test_what_another_process_adds_in_between_is_neither_lost_nor_doubled(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    journal = SweepJournal(path)
    ours = optuna.create_study(study_name="s", storage=JournalStorage(journal))
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    for number in range(3):
        theirs.set_user_attr(f"dashboard:{number}", "a note")
        with journal.together():
            ask(ours)
        theirs.enqueue_trial({"x": 0.25})
        assert ask(ours).params == {"x": 0.25}
    assert len(ours.trials) == len(theirs.trials) == 6
    assert ours.user_attrs == theirs.user_attrs
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]


def test_an_error_inside_keeps_what_was_appended_before_it(tmp_path: Path) -> None:
    journal = SweepJournal(tmp_path / "study.journal")
    storage = JournalStorage(journal)
    study = optuna.create_study(study_name="s", storage=storage)

    def late() -> None:
        with journal.together():
            study.tell(ask(study), 0.5)
            storage.set_trial_user_attr(0, "late", True)

    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        late()
    again = optuna.load_study(study_name="s", storage=JournalStorage(SweepJournal(tmp_path / "study.journal")))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert not list(tmp_path.glob("*.lock*"))


def test_on_protected_data_every_entry_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    journal = SweepJournal(path, timed=False)
    study = optuna.create_study(study_name="s", storage=JournalStorage(journal))
    with journal.together():
        trial = ask(study)
    study.tell(trial, 0.5)
    times = [entry[name] for entry in entries(path) for name in TIMES if entry.get(name)]
    assert times == [NO_TIME] * 2


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    optuna.create_study(study_name="s", storage=JournalStorage(SweepJournal(path)))
    path.write_text(path.read_text() + '{"op_co\n')
    with pytest.raises(Corrupt, match="line 2 cannot be read"):
        JournalStorage(SweepJournal(path))


def test_half_a_line_of_another_writer_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="s", storage=JournalStorage(SweepJournal(path)))
    ask(study)
    whole = path.read_text()
    path.write_text(whole[:-20])
    reader = SweepJournal(path)
    before = len(list(reader.read_logs(0)))
    path.write_text(whole)
    assert len(list(reader.read_logs(before))) == 1
