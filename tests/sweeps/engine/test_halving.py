"""Synchronous halving: rungs and numbers fixed beforehand, the ladder's price in plan, reservation and ledger, a kill on every rung."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials
import pytest
import spaces

from dpcore.config import Places, RuntimeFlags
from dpcore.errors import BadInput, Corrupt
from dpcore.privacy.ladder import Rung
from sweeps.engine.driver import resume_sweep
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger, LedgerLine
from sweeps.pricing.halving import ladder_of
from sweeps.pricing.plan import Accountant, plan_sweep, sweep_price
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.progress import progress_line
from sweeps.search.terms import terms_of

NONE = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
LADDER = (Rung(trials=9, steps=2), Rung(trials=3, steps=6), Rung(trials=1, steps=18))
HALVING: dict[str, Any] = {
    "sweep": {"epsilons": [0.5], "trials_per_epsilon": None, "sampler": "grid", "stopper": "halving"},
    "trial": {
        "data": {**spaces.DOCUMENT["trial"]["data"]},
        "stages": {"public_view": {"until": "converged"}, "private": {"steps": 18, "expected_batch_size": 10}},
    },
    "references": NONE,
    "search": {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.02, 0.03, 0.05, 0.08, 0.13, 0.2, 0.3, 0.5, 0.8]}},
}


SWEEP = """
import sys
import fake_trials
from pathlib import Path
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
run_sweep(SweepSpec.model_validate_json(Path(sys.argv[1]).read_text()), fake_trials.surroundings())
"""


class Killed(BaseException):
    """The driver's end, at any report."""


def in_steps(charges: Iterable[tuple[Any, int]], delta: float) -> float:
    """Every step costs its noise: whatever is split into rungs adds up again. A selection costs what one run does."""
    runs = ((getattr(charge, "spending", charge), count) for charge, count in charges)
    return sum(count * run.steps / run.noise_multiplier for run, count in runs)


ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=in_steps, spent=fake_trials.spent)


def spec_of(tmp_path: Path, *, device: str = "cpu", **sections: Any) -> SweepSpec:
    return SweepSpec(
        name="s",
        space=spaces.space(**{**HALVING, **sections}),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        runtime=RuntimeFlags(device=device),
        gpus_per_trial=float(device == "cuda"),
    )


def schedule_of(spec: SweepSpec, *, key_lost: bool = False) -> Schedule:
    ledger = Ledger(spec.resolved_ledger_url)
    reservations = Reservations(spec, ledger, ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec))
    schedule.restore(key_lost=key_lost)
    return schedule


def lines_of(spec: SweepSpec, kind: str = "reserve") -> list[LedgerLine]:
    return [line for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == kind]


def run_one(schedule: Schedule, record: TrialRecord, *, reports_left: list[int]) -> TrialRecord:
    """What a worker does: repeats its reports, goes on, and is stopped where the driver says so. The driver dies after so many reports."""
    for step in range(1, 19):
        report = fake_trials.report_of(record, step, {"val/pckh_50": fake_trials.score_of(record.config) * step / 18}, done=step == 18)
        stops = schedule.is_to_stop(record.trial_id, report)
        schedule.report(record.trial_id, report)
        reports_left[0] -= 1
        if reports_left[0] == 0:
            raise Killed
        if stops:
            break
    return schedule.end(record.trial_id)


def run_all(schedule: Schedule, *, until_report: int = -1) -> dict[str, TrialRecord]:
    left = [until_report]
    while (record := schedule.next()) is not None:
        run_one(schedule, record, reports_left=left)
    assert schedule.is_over
    return {record.trial_id: record for record in schedule.records}


def ends(records: dict[str, TrialRecord]) -> dict[str, tuple[str, int]]:
    return {name: (record.state, record.steps) for name, record in records.items()}


def test_the_ladder_follows_from_the_space_alone() -> None:
    assert ladder_of(spaces.space(**HALVING), 9) == LADDER
    quick = spaces.space(**{**HALVING, "trial": {**HALVING["trial"], "stages": {"private": {"steps": 60, "expected_batch_size": 10}}}})
    assert ladder_of(quick, 24) == (Rung(trials=24, steps=7), Rung(trials=8, steps=20), Rung(trials=2, steps=60))
    assert [rung.trials for rung in ladder_of(quick, 2)] == [2, 1, 1]
    assert ladder_of(spaces.space(), 9) == ()


def test_the_best_of_each_rung_go_on_and_plan_reservations_and_ledger_hold_the_ladders_price(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    records = run_all(schedule_of(spec))
    by_score = sorted(records.values(), key=lambda record: -fake_trials.score_of(record.config))
    assert [(record.state, record.steps) for record in by_score] == [("done", 18)] + [("pruned", 6)] * 2 + [("pruned", 2)] * 6
    lines, steps = lines_of(spec), 9 * 2 + 3 * 4 + 1 * 12
    assert sorted(line.steps for line in lines) == [2] * 9 + [4] * 3 + [12]
    assert {line.trial_id for line in lines if line.trial_id.startswith(by_score[0].trial_id)} == {
        f"{by_score[0].trial_id}{suffix}" for suffix in ("/to-2", "/to-6", "")
    }
    plan = plan_sweep(spec.space, ACCOUNTANT)
    assert plan.sweep_epsilon == plan.groups[0].price == pytest.approx(steps * 0.5)
    ledger = Ledger(spec.resolved_ledger_url)
    assert sweep_price(ledger, "s", 1e-5, ACCOUNTANT) == pytest.approx(plan.sweep_epsilon)
    assert ledger.open_reservations("s") == ()
    assert [line.steps_done for line in lines_of(spec, "settle") if line.outcome == "done"] == [18]
    assert ledger.verify(lambda charge, delta: in_steps([(charge, 1)], delta)) == ()


def test_nobody_goes_on_before_all_have_come(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    handed = [schedule.next() for _ in range(9)]
    assert schedule.next() is None
    for record in handed[:8]:
        waiting = run_one(schedule, record, reports_left=[-1])
        assert (waiting.state, waiting.steps) == ("running", 2)
        assert "waits for the others at step 2 of 18" in progress_line(waiting, finished=0, planned=9)
        assert schedule.next() is None
    assert not schedule.is_over
    run_one(schedule, handed[8], reports_left=[-1])
    assert [record.trial_id for record in schedule.take_stayed()] != []
    assert schedule.next() is not None


UNDISTURBED = 9 * 2 + 3 * 6 + 18
"""Reports, with those that a trial repeats from its folder when it goes on."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """How the trials of a sweep end that nobody kills."""
    return ends(run_all(schedule_of(spec_of(tmp_path_factory.mktemp("undisturbed"))), until_report=UNDISTURBED + 1))


@pytest.mark.parametrize("killed_at", [2, 17, 18, 19, 25, 36, 37, 43, UNDISTURBED])
def test_a_driver_killed_on_any_rung_goes_on_to_the_same_trials_at_the_same_price(
    killed_at: int, undisturbed: dict[str, tuple[str, int]], tmp_path: Path
) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(Killed):
        run_all(schedule_of(spec), until_report=killed_at)
    assert ends(run_all(schedule_of(spec))) == undisturbed
    assert sorted(line.steps for line in lines_of(spec)) == [2] * 9 + [4] * 3 + [12]
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()
    assert ends(run_all(schedule_of(spec))) == undisturbed


@pytest.mark.parametrize(
    ("broken", "call"), [("new_attempt", 1), ("new_attempt", 2), ("new_attempt", 4), ("tell", 1), ("tell", 3), ("settle", 9)]
)
def test_a_driver_killed_while_a_rung_is_decided_goes_on_to_the_same_trials(
    broken: str, call: int, undisturbed: dict[str, tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, calls = spec_of(tmp_path), 0
    schedule = schedule_of(spec)
    owner = schedule._reservations if broken == "settle" else schedule._studies
    honest = getattr(owner, broken)

    def dying(*given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        honest(*given, **named)

    monkeypatch.setattr(owner, broken, dying)
    with pytest.raises(Killed):
        run_all(schedule)
    assert ends(run_all(schedule_of(spec))) == undisturbed
    assert sorted(line.steps for line in lines_of(spec)) == [2] * 9 + [4] * 3 + [12]


def test_on_a_gpu_a_trial_goes_on_under_its_own_attempt_as_nothing_is_computed_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, device="cuda")
    assert sorted(record.attempt for record in run_all(schedule_of(spec)).values()) == [0] * 9
    assert len(lines_of(spec)) == 13


def test_a_new_attempt_on_a_rung_reserves_the_steps_to_that_rung_and_where_its_checkpoint_is_lost_those_below_too(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    schedule = schedule_of(spec)
    for _ in range(9):
        run_one(schedule, schedule.next(), reports_left=[-1])
    first, second = schedule.next(), schedule.next()
    (spec.checkpoint_dir(first.trial_id) / "checkpoint-000002").mkdir(parents=True)
    for record in (first, second):
        schedule.not_replayable(record.trial_id, "other libraries")
    run_all(schedule)
    again = {line.trial_id: line.steps for line in lines_of(spec) if line.attempt == 1}
    assert again.pop(f"{first.trial_id}/to-6") == 4
    assert again.pop(f"{second.trial_id}/to-6") == 6
    assert set(again.values()) <= {12}
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()


def test_failed_trials_leave_their_places_to_the_next_best_and_a_trial_without_a_score_stays(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    schedule = schedule_of(spec)
    handed = [schedule.next() for _ in range(9)]
    for number, record in reversed(list(enumerate(handed))):
        if number < 5:
            schedule.end(record.trial_id, error="no data")
            continue
        for step in (1, 2):
            score = float("nan") if number == 5 else 0.1 * number
            schedule.report(record.trial_id, fake_trials.report_of(record, step, {"val/pckh_50": score}))
        schedule.end(record.trial_id)
    assert sorted(schedule.next().trial_id for _ in range(3)) == [record.trial_id for record in handed[6:]]
    assert [record.trial_id for record in schedule.take_stayed()] == [handed[5].trial_id]


def test_a_trial_that_waits_on_its_rung_can_be_cancelled_and_leaves_its_place(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    handed = [schedule.next() for _ in range(9)]
    best = max(handed, key=lambda record: fake_trials.score_of(record.config))
    for record in sorted(handed, key=lambda record: record is not best)[:8]:
        run_one(schedule, record, reports_left=[-1])
    ended = schedule.cancel(best.trial_id)
    assert ended is not None
    assert ended.state == "failed"
    assert schedule.cancel(best.trial_id) is None
    last = next(record for record in handed if not schedule._roster[record.trial_id].is_finished and record.trial_id in schedule._live)
    run_one(schedule, last, reports_left=[-1])
    assert best.trial_id not in {schedule.next().trial_id for _ in range(3)}


def test_a_study_that_forgot_who_went_on_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    schedule = schedule_of(spec)
    monkeypatch.setattr(schedule._studies, "new_attempt", lambda record: None)
    with pytest.raises(Killed):
        run_all(schedule, until_report=25)
    with pytest.raises(Corrupt, match=r"does not know trial e0\.5-00./to-6, attempt 0"):
        schedule_of(spec)


def test_a_worker_that_goes_beyond_its_rung_is_not_believed(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    record = schedule.next()
    report = fake_trials.report_of(replace(record, plan=replace(record.plan, until=None)), 3, {"val/pckh_50": 0.9})
    assert schedule.is_to_stop(record.trial_id, report)
    schedule.report(record.trial_id, report)
    ended = schedule.end(record.trial_id)
    assert (ended.state, ended.fulfilled) == ("failed", False)
    assert "2 steps were reserved" in str(ended.error)


def test_with_the_key_lost_waiting_trials_are_replaced(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(Killed):
        run_all(schedule_of(spec), until_report=9)
    resumed = schedule_of(spec, key_lost=True)
    assert [record.state for record in resumed.records] == ["failed"] * 5
    run_all(resumed)
    assert sorted(record.state for record in resumed.records) == ["done", *["failed"] * 5, *["pruned"] * 8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep": {**HALVING["sweep"], "stopping": {"min_others": 2}}}, "halving does not have it"),
        ({"sweep": {**HALVING["sweep"], "validation": "private", "validation_epsilon": 1.0, "validation_units": 9}}, "noised score"),
        ({"search": {**HALVING["search"], "stages.private.expected_batch_size": {"choice": [5, 10]}}}, "priced for one q"),
    ],
)
def test_spaces_that_no_ladder_prices_are_refused(changes: dict[str, Any], said: str) -> None:
    document = {**HALVING, **changes}
    if "search" in changes:
        stages = {**HALVING["trial"]["stages"], "private": {"steps": 18}}
        document["trial"] = {**HALVING["trial"], "stages": stages}
    with pytest.raises(BadInput, match=said):
        spaces.space(**document)


def test_a_grace_period_that_leaves_no_rung_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={**HALVING["sweep"], "stopping": {"grace_steps": 7}})
    with pytest.raises(BadInput, match="no rung lies at or below 1/3 of the horizon of 18"):
        terms_of(spec)


def test_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="waits on a rung of stopper halving keeps its state in a folder"):
        SweepSpec(
            name="s",
            space=spaces.space(**HALVING),
            places=Places(data_dir=tmp_path, cache_dir=tmp_path),
            storage="s3://bucket/sweeps",
            state=tmp_path / "state",
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")  # ray leaves its log files and sockets to the end of the process
def test_a_real_sweep_whose_driver_is_killed_on_its_second_rung_costs_the_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parents[1])]))
    spec = spec_of(tmp_path).model_copy(update={"trial_function": "fake_trials:noted_trial", "max_concurrent": 2, "cpus_per_trial": 0.5})
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json(by_alias=True))
    driver = subprocess.Popen([sys.executable, "-c", SWEEP, str(path)], start_new_session=True)
    end = time.monotonic() + 500
    starts = spec.places.data_dir / "starts.txt"
    while time.monotonic() < end and not (starts.is_file() and len(starts.read_text().splitlines()) >= 11):
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    spec.model_copy(update={"trial_function": "fake_trials:run_trial"}).save()
    trackers: list[fake_trials.Tracker] = []
    results = resume_sweep("s", spec.storage, fake_trials.surroundings(trackers=trackers))
    by_score = sorted(results.records, key=lambda record: -fake_trials.score_of(record.config))
    assert [(record.state, record.steps) for record in by_score] == [("done", 18)] + [("pruned", 6)] * 2 + [("pruned", 2)] * 6
    assert {name for kind, name in trackers[0].events if kind == "ended"} == {record.trial_id for record in results.records}
    assert sorted(line.steps for line in lines_of(spec)) == [2] * 9 + [4] * 3 + [12]
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()
