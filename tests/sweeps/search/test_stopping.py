"""Early stopping: the two rules against hand-worked cases and their definitions, and a schedule that lives by them."""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import fake_trials
import optuna
import pytest
import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dpcore.config import Places, RuntimeFlags
from dpcore.errors import BadInput
from dpcore.privacy.accounting import epsilon_spent
from dpcore.train.reports import Report
from search_spaces.space import SpaceFile
from sweeps.engine.driver import run_sweep
from sweeps.engine.schedule import Schedule
from sweeps.engine.simulation import REPORTS_FILE
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import CurvePoint, TrialRecord, read_results
from sweeps.records.spec import SweepSpec, reporting_flags
from sweeps.report.progress import progress_line
from sweeps.report.report import build_report
from sweeps.report.status import sweep_status
from sweeps.search.stopping import (
    Stopping,
    StoppingPlan,
    exact_mean,
    halving_stops,
    median_stops,
    plan_stopping,
    what_stopping_saves,
)
from sweeps.search.studies import Studies
from sweeps.search.terms import terms_of
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.trial_facts import TrackedDataset

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
SPACE = spaces.space()
HALVING = StoppingPlan(stopper="asha", rungs=(1, 2, 4), horizon=8, reduction_factor=2)
MEDIAN = StoppingPlan(stopper="median", rungs=(2, 3, 4), horizon=8, min_others=2)


def record_of(number: int, *scores: float, epsilon: float = 0.5, first_step: int = 1, **changes: object) -> TrialRecord:
    """A trial that reported these scores at steps 1, 2, …; NaN is a report without one."""
    config = SPACE.trial_config(epsilon, {"method": "dpsgd", "clip_norm": 0.1})
    record = TrialRecord(trial_id=f"e{epsilon:g}-{number:03d}", role="search", number=number, epsilon=epsilon, config=config)
    for step, score in enumerate(scores, start=first_step):
        record = record.with_point(CurvePoint(step, {} if math.isnan(score) else {"val/pckh_50": score}))
    return replace(record, **changes)


def test_at_a_rung_the_best_third_of_those_that_came_so_far_goes_on() -> None:
    arrivals = [
        (0.5, False),
        (0.4, False),
        (0.6, False),
        (0.3, True),
        (0.55, True),
        (0.7, False),
        (0.6, False),
        (0.59, True),
        (0.61, False),
    ]
    others: list[float] = []
    for score, stops in arrivals:
        assert halving_stops(score, sorted(others), reduction_factor=3) is stops, (score, others)
        others.append(score)


def test_equal_scores_go_on_together_and_weights_without_a_score_come_last() -> None:
    assert not halving_stops(0.5, [0.5, 0.5, 0.5], reduction_factor=2)
    assert halving_stops(-math.inf, [0.1], reduction_factor=2)
    assert not halving_stops(-math.inf, [-math.inf], reduction_factor=2)


def test_a_trial_stops_where_its_best_lies_below_the_median_of_running_averages() -> None:
    assert median_stops(0.49, [0.4, 0.5, 0.6], min_others=3)
    assert not median_stops(0.5, [0.4, 0.5, 0.6], min_others=3)
    assert median_stops(0.44, [0.3, 0.4, 0.5, 0.6], min_others=3)
    assert not median_stops(0.45, [0.3, 0.4, 0.5, 0.6], min_others=3)
    assert not median_stops(0.0, [0.4, 0.5], min_others=3)


def test_a_trial_at_the_median_goes_on_where_a_rounded_mean_would_lie_above_it() -> None:
    assert sum([0.1, 0.1, 0.1]) / 3 > 0.1
    stopping = Stopping(replace(MEDIAN, rungs=(3,)))
    for number in range(3):
        assert not stopping.take(record_of(number, 0.1, 0.1, 0.1))
    assert not stopping.take(record_of(3, 0.0, 0.1, 0.1))
    assert stopping.take(record_of(4, 0.0, 0.09999999999999999, 0.0))
    assert exact_mean([0.1, -math.inf]) == -math.inf


def reports(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Trials and the scores of their reports, interleaved; with ties and with weights that have no score."""
    scores = st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan])
    return draw(st.lists(st.tuples(st.integers(0, 7), scores), max_size=60))


@given(st.composite(reports)())
@settings(max_examples=150, deadline=None)
def test_halving_is_its_definition_whatever_the_order_of_reports(log: list[tuple[int, float]]) -> None:
    def by_definition(curves: dict[int, list[float]], trial: int, step: int) -> bool:
        there = [curve[step - 1] for curve in curves.values() if len(curve) >= step]
        kept = len(there) // 2
        return kept > 0 and curves[trial][step - 1] < sorted(there, reverse=True)[kept - 1]

    replay(log, HALVING, by_definition)


@given(st.composite(reports)())
@example([(0, 0.1), (0, 0.1), (0, 0.4), (1, 0.1), (1, 0.1), (3, 0.1), (3, 0.2), (3, 0.3), (1, 0.2)])
@settings(max_examples=150, deadline=None)
def test_the_median_rule_is_its_definition_whatever_the_order_of_reports(log: list[tuple[int, float]]) -> None:
    def by_definition(curves: dict[int, list[float]], trial: int, step: int) -> bool:
        averages = [mean(curve[:step]) for other, curve in curves.items() if other != trial and len(curve) >= step]
        return len(averages) >= 2 and median(averages) > max(curves[trial])

    def mean(scores: list[float]) -> Fraction | float:
        return -math.inf if -math.inf in scores else sum(map(Fraction, scores)) / len(scores)

    replay(log, MEDIAN, by_definition)


def replay(log: Sequence[tuple[int, float]], plan: StoppingPlan, by_definition: Callable[[dict[int, list[float]], int, int], bool]) -> None:
    """Holds `Stopping` against a definition that looks at all curves anew; nobody obeys, so that every rung fills."""
    stopping = Stopping(plan)
    curves: dict[int, list[float]] = {}
    for trial, score in log:
        curve = curves.setdefault(trial, [])
        if len(curve) == plan.horizon:
            continue
        curve.append(-math.inf if math.isnan(score) else score)
        record = record_of(trial, *(math.nan if math.isinf(one) else one for one in curve))
        expected = len(curve) in plan.rungs and by_definition(curves, trial, len(curve))
        assert stopping.stops(record) is expected
        assert stopping.take(record) is expected


def test_trials_are_compared_within_their_epsilon_the_search_and_the_private_methods_alone() -> None:
    stopping = Stopping(HALVING)
    ceiling = SPACE.trial_config(None, {"method": "nonprivate"})
    others = [
        record_of(0, 0.9, role="seed"),
        record_of(1, 0.9, role="control"),
        record_of(2, 0.9, config=ceiling),
        record_of(3, 0.9, epsilon=2.0),
    ]
    assert not any(stopping.take(record) for record in others)
    assert not stopping.take(record_of(4, 0.1))
    assert stopping.take(record_of(5, 0.05))
    assert not stopping.stops(record_of(6, 0.01, role="seed"))
    assert not stopping.stops(record_of(6, 0.01, first_step=3))


def test_asking_changes_nothing_and_a_new_attempt_takes_the_place_of_the_one_before() -> None:
    stopping = Stopping(HALVING)
    for _ in range(3):
        assert not stopping.stops(record_of(0, 0.5))
    stopping.take(record_of(0, 0.5))
    stopping.take(record_of(0, 0.2, attempt=1))
    assert not stopping.stops(record_of(1, 0.3))
    assert stopping.stops(record_of(1, 0.1))


def test_stopping_says_what_it_saves_and_under_a_rehearsal_nothing_of_charges() -> None:
    assert what_stopping_saves(HALVING, "composed").endswith("charged in full, because its end depended on released scores")
    assert what_stopping_saves(HALVING, "public_proxy") == HALVING.text()


def space_with(stopper: str, *, steps: int = 300, **settings: object) -> SpaceFile:
    stages = {"public_view": {"until": "converged"}, "private": {"steps": steps, "expected_batch_size": 10}}
    return spaces.space(sweep={"stopper": stopper, **({"stopping": settings} if settings else {})}, trial={"stages": stages})


def test_rungs_follow_from_the_horizon_and_the_reports() -> None:
    assert plan_stopping(space_with("none"), 50) is None
    assert plan_stopping(space_with("asha"), 50).rungs == (50, 150)
    assert plan_stopping(space_with("asha"), 30).rungs == (30, 90, 270)
    assert plan_stopping(space_with("asha", grace_steps=10, reduction_factor=4), 10).rungs == (10, 40, 160)
    assert plan_stopping(space_with("median", grace_steps=120), 50).rungs == (150, 200, 250)
    assert "at step 30, 90, 270 of 300 (the best 1/3 continue)" in plan_stopping(space_with("asha"), 30).text()


def test_a_stopper_that_could_never_stop_is_refused() -> None:
    with pytest.raises(BadInput, match="grace_steps 30 and a report every 300 steps there is no decision before the horizon of 300"):
        plan_stopping(space_with("asha"), 300)


def test_trials_report_at_least_as_often_as_the_stopper_judges() -> None:
    assert reporting_flags(space_with("none")) == {}
    assert reporting_flags(space_with("none", steps=60)) == {"report_every_steps": 12, "checkpoint_every_steps": 12}
    assert reporting_flags(space_with("none", steps=12)) == {"report_every_steps": 10, "checkpoint_every_steps": 10}
    assert reporting_flags(space_with("none", steps=10)) == {}
    assert reporting_flags(space_with("none", steps=17_379)) == {"report_every_steps": 348, "checkpoint_every_steps": 348}
    assert reporting_flags(space_with("asha", steps=17_379, grace_steps=200)) == {"report_every_steps": 200, "checkpoint_every_steps": 200}
    assert reporting_flags(space_with("asha")) == {"report_every_steps": 30, "checkpoint_every_steps": 30}
    assert reporting_flags(space_with("median", steps=2000)) == {"report_every_steps": 50, "checkpoint_every_steps": 50}
    assert reporting_flags(space_with("median", grace_steps=7)) == {"report_every_steps": 7, "checkpoint_every_steps": 7}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    """8 trials an ε of three reports, judged after the first and the second."""
    stopping = {"reduction_factor": 2, "grace_steps": 1}
    space = spaces.space(
        sweep={"trials_per_epsilon": 8, "stopper": "asha", "stopping": stopping}, references={"ceiling": False, "winner_seeds": 1}
    )
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=space, places=places, storage=tmp_path / "store", runtime=RuntimeFlags(report_every_steps=1))


def schedule_of(spec: SweepSpec, *, key_lost: bool = False) -> Schedule:
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec))
    schedule.restore(key_lost=key_lost)
    return schedule


def point_of(record: TrialRecord, step: int) -> Report:
    score = fake_trials.score_of(record.config) * step / 3
    return fake_trials.report_of(record, step, {"val/pckh_50": score}, f"{record.trial_id}-{step}")


def events(schedule: Schedule, *, workers: int = 3) -> Iterator[str]:
    """Runs a sweep on a few pretended workers in a fixed disorder, one event at a time; a killed driver is one that is asked no more."""
    order = random.Random(1)
    running: dict[str, tuple[TrialRecord, int]] = {}
    while True:
        while len(running) < workers and (record := schedule.next()) is not None:
            running[record.trial_id] = (record, 0)
        if not running:
            return
        trial_id = order.choice(sorted(running))
        record, step = running[trial_id]
        point = point_of(record, step + 1)
        stops = schedule.is_to_stop(trial_id, point)
        schedule.report(trial_id, point)
        yield f"{trial_id} {step + 1}"
        if stops or step + 1 == 3:
            del running[trial_id]
            schedule.end(trial_id)
        else:
            running[trial_id] = (record, step + 1)


def run_out(schedule: Schedule) -> dict[str, TrialRecord]:
    assert sum(1 for _ in events(schedule)) > 0
    assert schedule.is_over
    assert schedule.finished == schedule.planned
    return {record.trial_id: record for record in schedule.records}


def test_stopped_trials_are_pruned_everywhere_and_charged_in_full(spec: SweepSpec) -> None:
    records = run_out(schedule_of(spec))
    pruned = [record for record in records.values() if record.state == "pruned"]
    assert len(records) == 2 + 2 * (8 + 1 + 1)
    assert {record.steps for record in pruned} == {1, 2}
    assert {record.role for record in pruned} == {"search"}
    assert all(record.pckh_50 == record.curve[-1].metrics["val/pckh_50"] for record in pruned)
    assert "stopped early at step" in progress_line(pruned[0], finished=1, planned=2)
    for epsilon in (0.5, 2.0):
        searched = [record for record in records.values() if record.role == "search" and record.epsilon == epsilon]
        winner = max((record for record in searched if record.state == "done"), key=lambda record: record.pckh_50 or 0.0)
        assert records[f"seed-e{epsilon:g}-1"].config == winner.config
    lines = Ledger(spec.resolved_ledger_url).lines()
    reserved = {line.trial_id: line for line in lines if line.kind == "reserve"}
    settled = {line.trial_id: line for line in lines if line.kind == "settle"}
    assert {(settled[r.trial_id].outcome, settled[r.trial_id].steps_done) for r in pruned} == {("pruned", 1), ("pruned", 2)}
    assert all((reserved[r.trial_id].steps, reserved[r.trial_id].epsilon) == (3, r.epsilon) for r in pruned)
    total = ACCOUNTANT.compose([(line.spending, 1) for line in reserved.values()], 1e-5)
    assert total == pytest.approx(0.5 * 9 + 2.0 * 9)


def test_a_stopped_trial_leaves_no_checkpoint_behind(spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    for trial_id, step in map(str.split, events(schedule)):
        (spec.checkpoint_dir(trial_id) / f"checkpoint-{int(step):06d}").mkdir(parents=True)
    for record in schedule.records:
        there = len(list(spec.checkpoint_dir(record.trial_id).glob("checkpoint-*")))
        assert there == (0 if record.state == "pruned" else 3)


def opened_study(spec: SweepSpec, epsilon: float) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(spec.study_path)))
    return optuna.load_study(study_name=f"s/epsilon-{epsilon:g}", storage=storage, sampler=RandomSampler())


def test_optuna_has_stopped_trials_as_pruned_with_what_they_reported(spec: SweepSpec) -> None:
    records = run_out(schedule_of(spec))
    trials = opened_study(spec, 0.5).get_trials(states=[TrialState.PRUNED])
    told = {json.loads(trial.user_attrs["record"])["trial_id"]: trial for trial in trials}
    assert told.keys() == {r.trial_id for r in records.values() if r.state == "pruned" and r.epsilon == 0.5}
    for trial_id, trial in told.items():
        assert trial.intermediate_values == {point.step: point.metrics["val/pckh_50"] for point in records[trial_id].curve}
        assert trial.value == records[trial_id].pckh_50
    group = sweep_status(spec, ACCOUNTANT)["epsilons"][0]
    assert (group["done"], group["pruned"], group["failed"]) == (8 - len(told), len(told), 0)


@pytest.mark.parametrize("killed_after", [5, 12, 13, 14, 15, 24])
def test_a_resume_keeps_every_verdict_and_never_runs_a_pruned_trial_again(killed_after: int, spec: SweepSpec) -> None:
    first = schedule_of(spec)
    list(itertools.islice(events(first), killed_after))  # the last report is taken in, its trial's end is told to nobody
    judged = {r.trial_id: r for r in first.records}
    stopped = set(first._pruned)
    again = schedule_of(spec)
    assert {r.trial_id for r in again.records if r.state == "pruned"} == stopped
    assert all(judged[r.trial_id].curve == r.curve for r in again.records)
    handed = []
    while (record := again.next()) is not None:
        handed.append(record.trial_id)
        for step in (1, 2, 3):
            stops = again.is_to_stop(record.trial_id, point_of(record, step))
            again.report(record.trial_id, point_of(record, step))
            if stops:
                break
        again.end(record.trial_id)
    assert not stopped.intersection(handed)
    assert again.finished == again.planned == 22
    ledger = Ledger(spec.resolved_ledger_url)
    assert ledger.open_reservations("s") == ledger.verify(fake_trials.epsilon_of) == ()
    assert sum(line.kind == "reserve" for line in ledger.lines()) == 18


def test_a_report_that_is_on_disk_and_not_in_optuna_is_told_with_the_end(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, told = schedule_of(spec), Studies.report

    def killed(studies: Studies, record: TrialRecord) -> None:
        if record.trial_id in schedule._pruned:
            raise OSError("killed")
        told(studies, record)

    monkeypatch.setattr(Studies, "report", killed)
    with pytest.raises(OSError, match="killed"):
        run_out(schedule)
    monkeypatch.undo()
    (stopped,) = (record for record in schedule_of(spec).records if record.state == "pruned")
    trials = opened_study(spec, stopped.epsilon).get_trials(states=[TrialState.PRUNED])
    assert [trial.value for trial in trials] == [stopped.pckh_50]


def test_some_kill_falls_between_a_verdict_and_its_end(spec: SweepSpec) -> None:
    schedule, untold = schedule_of(spec), 0
    for _ in events(schedule):
        untold += any(r.trial_id in schedule._pruned and r.state == "running" for r in schedule.records)
    assert untold > 5


@pytest.mark.parametrize("key_lost", [True, False])
def test_what_was_stopped_stays_stopped_with_the_key_lost_or_its_worker_dead(key_lost: bool, spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    stopped = next(name for name in events(schedule) if name.split()[0] in schedule._pruned).split()[0]
    if key_lost:
        assert {r.trial_id: r.state for r in schedule_of(spec, key_lost=True).records}[stopped] == "pruned"
    else:
        assert schedule.worker_died(stopped, "killed").state == "pruned"


def test_replayed_reports_are_not_judged_again(spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    events_so_far = events(schedule)
    while not any(r.role == "search" and len(r.curve) == 2 and r.state == "running" for r in schedule.records):
        next(events_so_far)
    survivor = next(r for r in schedule.records if r.role == "search" and len(r.curve) == 2 and r.state == "running")
    low = fake_trials.report_of(survivor, 1, {"val/pckh_50": 0.0})
    assert not schedule.is_to_stop(survivor.trial_id, low)
    assert schedule.report(survivor.trial_id, low) is survivor


class Facts:
    """Of trials that open no dataset."""

    def datasets(self, config: object) -> dict[str, TrackedDataset]:
        return {}

    def claim(self, config: object, plan: object) -> SimpleNamespace:
        return SimpleNamespace(paragraph=lambda: "a claim", model_dump_json=lambda indent: "{}")


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")  # ray leaves its log files and sockets to the end of the process
def test_on_ray_stopped_trials_are_pruned_in_study_tables_report_and_mlflow(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    search = {
        "method": {"choice": ["dpsgd"]},
        "clip_norm": {"float": [0.001, 10.0], "log": True},
        "optimizer.learning_rate": {"float": [1e-4, 1.0], "log": True},
    }
    stages = {"private": {"steps": 300, "expected_batch_size": 10}}
    sweep = {"epsilons": [2.0], "trials_per_epsilon": 12, "stopper": "asha", "sampler": "tpe"}
    space = spaces.space(sweep=sweep, references={"ceiling": False, "winner_seeds": 1}, search=search, trial={"stages": stages})
    simulated = spec.model_copy(
        update={
            "space": space,
            "trial_function": "sweeps.engine.simulation:run_trial",
            "runtime": RuntimeFlags(**reporting_flags(space)),
            "max_concurrent": 2,
            "cpus_per_trial": 0.5,
        }
    )
    lines: list[str] = []
    accountant = replace(ACCOUNTANT, spent=epsilon_spent)  # as the simulated trials say it
    around = replace(fake_trials.surroundings(lines), tracker=partial(Tracker, facts=Facts()), accountant=accountant)
    results = run_sweep(simulated, around)
    assert len(results.records) == results.planned == 1 + 12 + 1
    pruned = {record.trial_id for record in results.records if record.state == "pruned"}
    assert 2 <= len(pruned) <= 10
    assert {record.steps for record in results.records if record.trial_id in pruned} <= {30, 90, 270}
    assert {record.state for record in results.records if record.trial_id not in pruned} == {"done"}
    assert read_results(simulated.sweep_dir) == results
    assert sweep_status(simulated, ACCOUNTANT)["epsilons"][0]["pruned"] == len(pruned)
    client = MlflowClient(tracking_uri=f"sqlite:///{simulated.storage}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    assert {run.data.tags["trial_id"] for run in runs if run.info.status == "KILLED"} == pruned
    assert {run.data.tags["trial_id"] for run in runs if run.data.tags.get("state") == "pruned"} == pruned
    assert lines[-1].startswith("[14/14]")
    report = build_report(results, spec=simulated).text()
    assert f"ε = 2: {len(pruned)} of 12 trials stopped early" in report
    assert "it saves time, not privacy" in report
    for name in pruned:  # not a step further than the report that it was stopped for
        assert len((simulated.checkpoint_dir(name) / REPORTS_FILE).read_text().splitlines()) == results.trial(name).steps // 30
