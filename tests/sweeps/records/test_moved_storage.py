"""A storage that was moved or copied: what the command line names is what is read and written."""

import contextlib
import shutil
from pathlib import Path

import fake_trials
import pytest
import spaces
from one_process import OneProcess

from dpcore.config import Places
from sweeps.cli import main
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import resume_sweep, run_sweep
from sweeps.ledger.ledger import Ledger
from sweeps.records.publication import load_spec
from sweeps.records.spec import SweepSpec


def spec_in(root: Path, *, state: Path | None = None, ledger_url: str | None = None) -> SweepSpec:
    alone = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
    return SweepSpec(
        name="s",
        space=spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 2}, references=alone),
        places=Places(data_dir=root / "data", cache_dir=root / "cache"),
        storage=root / "store",
        state=state,
        ledger_url=ledger_url,
        trial_function="fake_trials:run_trial",
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A small sweep that came to its end."""
    monkeypatch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
    monkeypatch.setattr(driver_module, "run_tune", OneProcess())
    spec = spec_in(tmp_path)
    run_sweep(spec, fake_trials.surroundings())
    monkeypatch.setattr(driver_module, "run_tune", lambda spec, **given: None)  # nothing is left to run
    return spec


@pytest.mark.parametrize(("state", "expected"), [(None, "there/s"), ("store/.state", "there/.state/s"), ("elsewhere", "elsewhere/s")])
def test_state_ledger_and_store_follow_the_folder_that_is_given(state: str | None, expected: str, tmp_path: Path) -> None:
    url = "sqlite:////cohort/ledger.sqlite" if state == "elsewhere" else None
    spec = spec_in(tmp_path, state=None if state is None else tmp_path / state, ledger_url=url)
    spec.save()
    spec.state_dir.mkdir(parents=True, exist_ok=True)
    (tmp_path / "store").rename(tmp_path / "there")
    moved = load_spec("s", tmp_path / "there")
    assert moved.storage_dir == tmp_path / "there"
    assert moved.state_dir == tmp_path / expected
    assert moved.default_store == tmp_path / "there" / "mlflow.db"
    assert moved.resolved_ledger_url == (url or f"sqlite:///{tmp_path}/there/ledger.sqlite")


def test_a_moved_sweep_is_resumed_where_it_lies(finished: SweepSpec, tmp_path: Path) -> None:
    finished.storage_dir.rename(tmp_path / "there")
    results = resume_sweep("s", tmp_path / "there", fake_trials.surroundings())
    assert [record.state for record in results.records] == ["done", "done"]
    assert not finished.storage_dir.exists()
    assert len(Ledger(load_spec("s", tmp_path / "there").resolved_ledger_url).lines()) == 4


def test_report_and_resume_of_a_copy_leave_the_original_alone(finished: SweepSpec, tmp_path: Path) -> None:
    shutil.copytree(finished.storage_dir, tmp_path / "copy")
    before = contents(finished.storage_dir)
    assert main(["report", "s", "--storage", str(tmp_path / "copy")]) == 0
    resume_sweep("s", tmp_path / "copy", fake_trials.surroundings())
    assert contents(finished.storage_dir) == before
    assert (tmp_path / "copy" / "s" / "report" / "report.md").is_file()


def test_a_storage_reached_by_a_link_is_the_one_where_the_sweep_began(finished: SweepSpec, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(finished.storage_dir)
    found = load_spec("s", tmp_path / "link")
    assert found == finished.model_copy(update={"versions": found.versions})  # which the driver wrote down
