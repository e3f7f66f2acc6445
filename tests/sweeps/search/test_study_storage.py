"""Studies in a database by URL: remembered like in a journal, apart from other sweeps', without credentials or clocks kept."""

from pathlib import Path

import fake_trials
import optuna
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.cli import main
from sweeps.engine.preflight import plan_of
from sweeps.records.results import CurvePoint
from sweeps.records.spec import SweepSpec
from sweeps.search.reading import read_studies
from sweeps.search.storage import check_new_studies, read_storage
from sweeps.search.studies import Studies


def spec_of(tmp_path: Path, *, name: str = "s", url: str | None = None) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    space = spaces.space(sweep={"sampler": "tpe"}, references={"ceiling": False})
    found = f"sqlite:///{tmp_path / 'studies.sqlite'}" if url is None else url
    return SweepSpec(name=name, space=space, places=places, storage=tmp_path / "store", study_url=found)


def search(studies: Studies, numbers: range) -> list[str]:
    ids = []
    for number in numbers:
        for epsilon in (0.5, 2.0):
            record = studies.ask(epsilon, number)
            point = CurvePoint(3, {"val/pckh_50": fake_trials.score_of(record.config)})
            record = record.with_point(point)
            studies.report(record)
            studies.tell(record.ended(seconds=1.0))
            ids.append(record.trial_id)
    return ids


def test_a_resume_finds_everything_in_the_database_and_plain_optuna_reads_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    ids = search(Studies(spec), range(2))
    running = Studies(spec).ask(0.5, 2)
    resumed = {record.trial_id: record.state for record, _ in Studies(spec).records()}
    assert resumed == {**dict.fromkeys(ids, "done"), running.trial_id: "running"}
    assert not spec.study_path.exists()
    plain = optuna.load_study(study_name="s/epsilon-0.5", storage=spec.study_url)
    assert [trial.state.name for trial in plain.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert {"s/epsilon-0.5", "s/epsilon-2", "s/references"} == set(optuna.get_all_study_names(spec.study_url))


def test_the_draws_are_the_journals(tmp_path: Path) -> None:
    drawn = []
    for folder in ("database", "journal"):
        spec = spec_of(tmp_path / folder)
        (tmp_path / folder).mkdir()
        spec = spec if folder == "database" else spec.model_copy(update={"study_url": None})
        studies = Studies(spec)
        search(studies, range(3))
        drawn.append({record.trial_id: record.config for record, _ in studies.records()})
    assert drawn[0] == drawn[1]


def test_status_reads_the_database_and_makes_none(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert read_storage(spec) is None
    assert read_studies(spec) == {}
    studies = Studies(spec)
    search(studies, range(1))
    assert [trial.state.name for trial in read_studies(spec)["epsilon-2"].trials] == ["COMPLETE", "WAITING"]


def test_two_sweeps_of_one_name_never_share_studies(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    check_new_studies(spec, protected=False)
    Studies(spec)
    with pytest.raises(Refused, match="already has studies of a sweep s"):
        check_new_studies(spec, protected=False)
    check_new_studies(spec_of(tmp_path, name="s2"), protected=False)
    with pytest.raises(Refused, match="already has studies of a sweep s"):
        plan_of(spec, fake_trials.surroundings())


def test_protected_data_keep_no_times_so_no_database_either(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(Refused, match="stores when each trial began"):
        plan_of(spec, fake_trials.surroundings(protected=True))
    with pytest.raises(Refused, match="stores when each trial began"):
        Studies(spec, timed=False)
    assert not (tmp_path / "studies.sqlite").exists()


def test_user_and_password_are_refused_and_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://jane:s3cret@host/studies"
    assert main(["run", "quick", "--study-storage", url, "--storage", str(tmp_path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "PGPASSWORD" in error
    assert "s3cret" not in error


@pytest.mark.parametrize(
    ("url", "kind"),
    [("nosuchdatabase://host/studies", BadInput), ("postgresql+psycopg://127.0.0.1:1/studies", Unavailable), ("studies", BadInput)],
)
def test_a_url_that_cannot_be_used_is_told_from_a_database_that_does_not_answer(tmp_path: Path, url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        check_new_studies(spec_of(tmp_path, url=url), protected=False)
