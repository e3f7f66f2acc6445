"""What dies or fills up in a sweep, and what the sweep makes of it: no trial lost, no budget spent on it twice."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import optuna
import pytest
import spaces
from fake_trials import ENVELOPE
from full_disk import fill, small_disk
from one_process import OneProcess
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dpcore.config import Places, RuntimeFlags
from dpcore.errors import DiskFull
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import resume_sweep, run_sweep
from sweeps.engine.schedule import Schedule
from sweeps.engine.searcher import ScheduleCallback, ScheduleSearcher, _last_line
from sweeps.engine.stop_signals import StopSignals
from sweeps.engine.watchdog import Watchdog
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of
from sweeps.tracking.allow_list import allowed_error

HERE = Path(__file__).parents[1]
ALONE = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep of fake trials at one ε, whose functions Ray's workers can import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    return SweepSpec(
        name="s",
        space=spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 6}, references=ALONE),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        trial_function="fake_trials:run_trial",
        runtime=RuntimeFlags(report_every_steps=1),
    )


def reserved(spec: SweepSpec) -> Counter[str]:
    """How often each trial was charged."""
    ledger = Ledger(spec.resolved_ledger_url)
    assert ledger.open_reservations("s") == ledger.verify(fake_trials.epsilon_of) == ()
    return Counter(line.trial_id for line in ledger.lines() if line.kind == "reserve")


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")
def test_each_fault_of_a_worker_has_its_own_outcome_and_none_ends_the_sweep(spec: SweepSpec) -> None:
    lines: list[str] = []
    trackers: list[fake_trials.Tracker] = []
    faulty = spec.model_copy(update={"trial_function": "fake_trials:undisturbed_disk", "max_concurrent": 2, "max_failures": 1})
    results = run_sweep(faulty, fake_trials.surroundings(lines, trackers))
    ends = {record.trial_id[-3:]: (record.state, record.attempt, record.physical_batch_size) for record in results.records}
    again = ("done", 1, None)
    assert ends == {
        "000": ("done", 1, 32),
        "001": ("done", 0, None),
        "002": ("failed", 0, None),
        "003": again,
        "004": ("failed", 0, None),
        "005": ("done", 0, None),
    }
    errors = {record.trial_id[-3:]: record.error for record in results.records if record.state == "failed"}
    assert errors == {
        "002": "Diverged: the weights diverged",
        "004": "RuntimeError: the data cannot be opened (after 2 tries)",
    }
    study = optuna.load_study(study_name="s/epsilon-0.5", storage=JournalStorage(JournalFileBackend(str(spec.study_path))))
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 4, "FAIL": 2}
    assert reserved(spec) == {f"e0.5-{number:03d}": 2 if number in (0, 3) else 1 for number in range(6)}
    events = [event for event in trackers[0].events if event[0] in ("started", "ended")]
    assert [name for kind, name in events if kind == "ended"].count("e0.5-004") == 1
    assert events.index(("started", "e0.5-004")) < events.index(("ended", "e0.5-004"))


def test_a_trial_that_no_worker_came_to_start_is_told_to_the_tracker_from_its_start(spec: SweepSpec) -> None:
    accountant = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
    ledger = Ledger(spec.resolved_ledger_url)
    schedule = Schedule(
        spec, accountant, Reservations(spec, ledger, accountant, validation=None, cohort="dd", key_id="k"), terms=terms_of(spec)
    )
    searcher, tracker = ScheduleSearcher(spec, schedule, max_concurrent=1), fake_trials.Tracker(spec)
    watchdog, stop = Watchdog(spec, timed=True), StopSignals("s", is_begun=lambda: True)
    callback = ScheduleCallback(schedule, searcher, tracker, watchdog=watchdog, stop=stop, ended=lambda record: None)
    for _ in range(spec.max_failures + 1):
        callback.on_trial_error(0, [], SimpleNamespace(config=searcher.suggest("x"), error_file=None))
    assert tracker.events == [("started", "e0.5-000"), ("ended", "e0.5-000")]
    assert schedule.records[0].error == "the worker died (after 3 tries)"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            "Task was killed due to the node running low on memory.\nMemory on the node was 3",
            "its node ran out of memory, and Ray ended it",
        ),
        ("The actor is dead because its worker process has died.\nWorker exit type: SYSTEM_ERROR", "its process was killed or crashed"),
    ],
)
def test_a_death_of_a_worker_is_told_in_a_line_of_our_own_that_protected_data_may_show(told: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at 2030-01-01)\n{told}\n")
    line = _last_line(SimpleNamespace(error_file=str(tmp_path / "error.txt")), ENVELOPE)
    assert line.startswith(f"the worker died: {expected}")
    assert allowed_error(line, protected=True) == "the worker died"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Trials one after the other without Ray; what is given is called as the third one ends."""

    def arrange(at_third: Callable[[], None]) -> None:
        ended = ScheduleCallback.on_trial_complete
        count: list[int] = []

        def counted(self: ScheduleCallback, *args: Any, **info: Any) -> None:
            count.append(1)
            if len(count) == 3:
                at_third()
            ended(self, *args, **info)

        monkeypatch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
        monkeypatch.setattr(driver_module, "run_tune", OneProcess())
        monkeypatch.setattr(ScheduleCallback, "on_trial_complete", counted)

    return arrange


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlite leaves the connection that could not write to the collector
@pytest.mark.parametrize("full", ["storage", "state"])
def test_a_driver_whose_disk_is_full_ends_with_one_message_and_goes_on_once_there_is_room(
    full: str, spec: SweepSpec, tmp_path: Path, in_this_process: Callable[[Callable[[], None]], None]
) -> None:
    with small_disk(tmp_path / "disk", size_kib=512) as disk:
        small = spec.model_copy(update={full: disk / full})
        in_this_process(lambda: fill(disk))
        with pytest.raises(DiskFull, match=r"disk full: .*Free some space.*dpsweep resume"):
            run_sweep(small, fake_trials.surroundings())
        (disk / "filler").unlink()
        results = resume_sweep("s", small.storage, fake_trials.surroundings())
        assert [record.state for record in results.records] == ["done"] * results.planned == ["done"] * 6
        assert set(reserved(small).values()) == {1}


def test_a_full_disk_at_a_worker_ends_the_sweep_before_it_costs_the_next_trials_their_budget(
    spec: SweepSpec, in_this_process: Callable[[Callable[[], None]], None]
) -> None:
    in_this_process(lambda: None)
    faulty = spec.model_copy(update={"trial_function": "fake_trials:faulty_trial"})
    with pytest.raises(DiskFull, match=r"e0\.5-001: disk full: .*checkpoint-000001.*resume"):
        run_sweep(faulty, fake_trials.surroundings())
    assert [line.trial_id for line in Ledger(spec.resolved_ledger_url).open_reservations("s")] == ["e0.5-001"]
    faulty.model_copy(update={"trial_function": "fake_trials:run_trial"}).save()
    results = resume_sweep("s", spec.storage, fake_trials.surroundings())
    assert [record.state for record in results.records] == ["done"] * 6
    assert reserved(spec) == {"e0.5-000": 2, **{f"e0.5-{number:03d}": 1 for number in range(1, 6)}}
