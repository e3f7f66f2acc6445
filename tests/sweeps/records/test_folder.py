"""A sweep's folders beside those of others: whoever fails takes away what is its own, and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Refused
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import Interrupted, run_sweep
from sweeps.ledger.ledger import Ledger
from sweeps.records.folder import LOCK_FILE, locked, new_folder
from sweeps.records.messages import Assignment
from sweeps.records.spec import SweepSpec
from sweeps.remote import doctor

WAIT_S = 100.0


def spec_named(name: str, root: Path, *, state: Path | None = None) -> SweepSpec:
    places = Places(data_dir=root / "data", cache_dir=root / "cache")
    return SweepSpec(name=name, space=spaces.space(), places=places, storage=root / "deep" / "store", state=state)


def wait_for(path: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.01)


def fails_before_its_first_trial(spec: SweepSpec, root: Path) -> None:
    def tune(spec: SweepSpec, **given: object) -> None:
        (root / "begun").touch()
        wait_for(root / "joined")
        raise OSError("Tune does not start")

    with pytest.raises(OSError, match="Tune does not start"):
        run_here(spec, tune)


def reserves_and_is_interrupted(spec: SweepSpec, root: Path) -> None:
    def tune(spec: SweepSpec, *, searcher: object, **given: object) -> None:
        while not Assignment.decode(searcher.suggest("x"), searcher.envelope).trial_id.startswith("e"):
            searcher.max_concurrent += 1
        (root / "joined").touch()
        wait_for(root / "failed")
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        run_here(spec, tune)


def run_here(spec: SweepSpec, tune: Callable[..., None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
        patch.setattr(driver_module, "run_tune", tune)
        run_sweep(spec, fake_trials.surroundings())


def started(work: Callable[..., None], *given: object) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    return process


def ended_well(process: ForkProcess) -> bool:
    process.join(WAIT_S)
    return process.exitcode == 0


def test_a_failing_run_leaves_the_sweep_and_the_ledger_of_one_that_joined_it(tmp_path: Path) -> None:
    first, second = spec_named("first", tmp_path), spec_named("second", tmp_path)
    failing = started(fails_before_its_first_trial, first, tmp_path)
    wait_for(tmp_path / "begun")
    joining = started(reserves_and_is_interrupted, second, tmp_path)
    assert ended_well(failing)
    (tmp_path / "failed").touch()
    assert ended_well(joining)
    assert SweepSpec.load("second", second.storage_dir).model_copy(update={"versions": second.versions}) == second
    assert [line.sweep for line in Ledger(second.resolved_ledger_url).lines()] == ["second"]
    assert not first.sweep_dir.exists()


def holds_the_folder(spec: SweepSpec, root: Path) -> None:
    with new_folder(spec):
        (root / "begun").touch()
        time.sleep(WAIT_S)


def test_a_second_run_of_a_name_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    spec = spec_named("one", tmp_path)
    holder = started(holds_the_folder, spec, tmp_path)
    try:
        wait_for(tmp_path / "begun")
        with pytest.raises(Refused, match="another process is running"), new_folder(spec):
            pass
        with pytest.raises(Refused, match="another process is running"), new_folder(spec_named("one", tmp_path, state=tmp_path / "b")):
            pass
        assert [path.name for path in spec.sweep_dir.iterdir()] == [LOCK_FILE]
        assert not (tmp_path / "b").exists()
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    with new_folder(spec) as own:  # what a killed driver left is free again
        own.clear()
    assert spec.sweep_dir.is_dir()


@pytest.mark.parametrize("state", [None, "state/deep"])
def test_a_run_that_fails_alone_leaves_no_folder(state: str | None, tmp_path: Path) -> None:
    spec = spec_named("one", tmp_path, state=None if state is None else tmp_path / state)
    with new_folder(spec):  # the list of what is its own is not cleared: nothing has begun
        (spec.state_dir / "tune").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_lock_was_removed_meanwhile_is_left_to_the_one_who_made_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_named("one", tmp_path)
    spec.sweep_dir.mkdir(parents=True)
    monkeypatch.setattr("fcntl.flock", lambda *given: (spec.sweep_dir / LOCK_FILE).unlink())  # its holder ends at this moment
    with pytest.raises(Refused, match="just being removed"), locked(spec):
        pass


def test_doctor_leaves_a_storage_that_somebody_began_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = tmp_path / "deep" / "store"
    monkeypatch.setattr(doctor, "ask_nodes", lambda folder: [])
    assert doctor._ask(storage) == []
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(doctor, "ask_nodes", lambda folder: [(storage / "ledger.sqlite").touch()])
    doctor._ask(storage)
    assert [path.name for path in storage.iterdir()] == ["ledger.sqlite"]
