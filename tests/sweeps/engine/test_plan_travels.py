"""The plan of a trial: made once, reserved, executed, and held against every report."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials
import pytest
import spaces
from one_process import OneProcess

from dpcore.config import Places, RuntimeFlags
from dpcore.data.synthetic import synth
from dpcore.privacy.randomness import SweepKey
from sweeps.engine import driver
from sweeps.engine.driver import resume_sweep, run_sweep
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant, dp_accountant
from sweeps.pricing.reservations import Planner, Reservations
from sweeps.records.results import SweepResults, TrialRecord, read_results
from sweeps.records.spec import SweepSpec
from sweeps.search.studies import Studies
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def session(spec: SweepSpec) -> Any:
        yield 1

    monkeypatch.setattr(driver, "ray_session", session)
    monkeypatch.setattr(driver, "run_tune", OneProcess())


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store", trial_function="fake_trials:run_trial")


def lied(spec: SweepSpec) -> SweepResults:
    return run_sweep(spec.model_copy(update={"trial_function": "fake_trials:lying_trial"}), fake_trials.surroundings())


def test_a_trial_that_says_something_else_than_was_reserved_fails_and_its_claim_is_void(spec: SweepSpec) -> None:
    results = lied(spec)
    void = {record.trial_id: record for record in results.records if not record.fulfilled}
    assert set(void) == set(fake_trials.LIES)
    assert {record.state for record in void.values()} == {"failed"}
    named = {
        "e0.5-001": "noise_multiplier 0.1 reported, 2.0 reserved",
        "e0.5-002": "planned_steps 2 reported, 3 reserved",
        "e0.5-003": "delta 0.0001 reported, 1e-05 reserved",
        "e2-000": "epsilon 1.9 reported",
        "e2-001": "sampling_prob 0.5 reported, 0.01 reserved",
        "e2-002": "says nothing of what it has spent",
        "e2-003": "steps 1 reported, 2 reserved",
    }
    for trial_id, words in named.items():
        assert void[trial_id].error.startswith("NotAsPlanned: the report of step 2 ")
        assert words in void[trial_id].error
        assert [point.step for point in void[trial_id].curve] == [1]
    assert results.best(0.5).trial_id == "e0.5-000"
    assert results.best(2.0) is None
    assert [record.fulfilled for record in read_results(spec.sweep_dir).records] == [record.fulfilled for record in results.records]


def test_a_void_trial_stays_charged_in_full_and_the_ledger_says_so(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    results = lied(spec)
    ledger = Ledger(spec.resolved_ledger_url)
    ends = {line.trial_id: (line.outcome, line.epsilon, line.steps) for line in ledger.lines() if line.kind == "settle"}
    assert {trial_id for trial_id, (outcome, _, _) in ends.items() if outcome == "unfulfilled"} == set(fake_trials.LIES)
    assert ends["e0.5-001"] == ("unfulfilled", 0.5, 3)
    assert ends["e0.5-000"] == ("done", 0.5, 3)
    findings = ledger.verify(fake_trials.epsilon_of)
    assert len(findings) == len(fake_trials.LIES)
    assert all("ended unfulfilled: something else ran than the reservation that line" in finding for finding in findings)
    assert results.sweep_epsilon == pytest.approx(4 * 0.5 + 4 * 2.0 + 2 * 0.5)
    monkeypatch.setattr(driver, "run_tune", lambda spec, **given: None)
    resumed = resume_sweep("s", spec.storage, fake_trials.surroundings())
    assert {record.trial_id for record in resumed.records if not record.fulfilled} == set(fake_trials.LIES)


def test_a_worker_that_finds_out_itself_is_marked_alike(spec: SweepSpec) -> None:
    accusing = spec.model_copy(update={"trial_function": "fake_trials:self_accusing_trial"})
    results = run_sweep(accusing, fake_trials.surroundings())
    (void,) = (record for record in results.records if not record.fulfilled)
    assert (void.trial_id, void.state, void.error) == ("e0.5-001", "failed", "NotAsPlanned: executed 2 steps, 3 were planned")
    (finding,) = Ledger(spec.resolved_ledger_url).verify(fake_trials.epsilon_of)
    assert "(s e0.5-001)" in finding


def test_a_trial_that_reserved_nothing_may_say_of_no_spending(spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    floor = schedule.next()
    assert floor.plan is None
    other = fake_trials.plan(spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1}), None)
    said = replace(fake_trials.report_of(floor, 3, {"val/pckh_50": 0.5}), spent=other.spent(3, 0.5))
    assert schedule.is_to_stop(floor.trial_id, said)
    schedule.report(floor.trial_id, said)
    assert schedule.end(floor.trial_id).error == (
        "NotAsPlanned: the report of step 3 says that privacy was spent, and nothing was reserved"
    )


def schedule_of(spec: SweepSpec, accountant: Accountant = ACCOUNTANT) -> Schedule:
    schedule = Schedule(
        spec,
        accountant,
        Reservations(spec, Ledger(spec.resolved_ledger_url), accountant, validation=None, cohort="dd", key_id="k"),
        terms=terms_of(spec),
    )
    schedule.restore(key_lost=False)
    return schedule


def test_the_plan_is_made_once_and_a_resume_reads_it(spec: SweepSpec) -> None:
    asked: list[str] = []

    def counted(config: Any, cache_dir: Path | None) -> Any:
        asked.append(config.fingerprint())
        return fake_trials.plan(config, cache_dir)

    no_references = spec.model_copy(update={"space": spaces.space(references={"floor": False, "ceiling": False})})
    counting = replace(ACCOUNTANT, plan=counted)
    record = schedule_of(no_references, counting).next()
    assert len(asked) == 1

    def forbidden(config: Any, cache_dir: Path | None) -> Any:
        raise AssertionError("calibrated again")

    again = schedule_of(no_references, replace(ACCOUNTANT, plan=forbidden)).next()
    assert (again.trial_id, again.plan) == (record.trial_id, record.plan)


def test_a_sweep_whose_studies_hold_no_plans_is_resumed_with_calibrated_ones(spec: SweepSpec) -> None:
    no_references = spec.model_copy(update={"space": spaces.space(references={"floor": False, "ceiling": False})})
    record = schedule_of(no_references).next()
    studies = Studies(no_references)
    place = studies._places[record.trial_id]
    known = json.loads(studies._storage.get_trial(place.storage_id).user_attrs["record"])
    del known["plan"], known["sum"]  # as 0.1.0 wrote it
    studies._storage.set_trial_user_attr(place.storage_id, "record", json.dumps(known))
    assert schedule_of(no_references).next().plan == record.plan


def sixths(charges: Any, delta: float) -> float:
    """A sixth a step."""
    return float(sum(run.steps / 6 * count for run, count in charges))


def test_a_new_attempt_carries_the_rest_of_the_plan(spec: SweepSpec) -> None:
    no_references = spec.model_copy(update={"space": spaces.space(references={"floor": False, "ceiling": False})})
    accountant = replace(ACCOUNTANT, compose=sixths)
    schedule = schedule_of(no_references, accountant)
    record = schedule.next()
    (no_references.checkpoint_dir(record.trial_id) / "checkpoint-000002").mkdir(parents=True)
    schedule.not_replayable(record.trial_id, "other libraries")
    again = schedule.next()
    assert (again.plan.from_step, again.plan.steps, again.plan.reserved.steps) == (2, 3, 1)
    assert again.plan.reserved.epsilon == pytest.approx(1 / 6)
    lines = [line for line in Ledger(no_references.resolved_ledger_url).lines() if line.kind == "reserve"]
    assert [(line.attempt, line.steps, line.epsilon) for line in lines] == [(0, 3, 0.5), (1, 1, pytest.approx(1 / 6))]
    assert schedule_of(no_references, accountant).next().plan == again.plan


def test_a_rehearsal_carries_the_plan_of_its_private_run_and_reserves_nothing(spec: SweepSpec) -> None:
    config = spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    rehearsed = config.changed(**{"data.proxy": "synthetic/proxy", "data.proxy_examples": 2000})
    record = TrialRecord(trial_id="e0.5-000", role="search", number=0, epsilon=0.5, config=rehearsed)
    planned = Planner(ACCOUNTANT, None).planned(record)
    assert planned.plan == fake_trials.plan(config, None)
    assert (planned.reserved, planned.epsilon_spent, planned.noise_multiplier) == (None, 0.0, None)


def test_a_selection_with_a_candidate_that_did_something_else_is_void(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepKey, "fresh", lambda: SweepKey(bytes([2]) * 32))
    law = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 5, "shape": 1}}
    space = spaces.space(sweep=law, references={"winner_seeds": 0, "floor": False, "ceiling": False, "control": False})
    monkeypatch.setattr(fake_trials, "LIES", _OfEpsilon("e2-"))
    results = lied(spec.model_copy(update={"space": space}))
    ends = {line.trial_id: line.outcome for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "settle"}
    assert ends == {"selection-e0.5": "done", "selection-e2": "unfulfilled"}
    assert [(record.epsilon, record.fulfilled) for record in results.records] == [(0.5, True)]


class _OfEpsilon(dict[str, Any]):
    """Every trial of an ε lies."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def __contains__(self, trial_id: object) -> bool:
        return str(trial_id).startswith(self._prefix)

    def __missing__(self, trial_id: str) -> dict[str, Any]:
        return {"noise_multiplier": 0.1}


@pytest.fixture
def real(spec: SweepSpec) -> SweepSpec:
    """The real trainer over 64 people: six steps, a report every other."""
    for name, domain, count, seed, role in (
        ("public", "public", 48, 1, "PUBLIC"),
        ("private", "private", 64, 2, "PRIVATE"),
        ("validation", "private", 24, 3, "PUBLIC"),
    ):
        synth(spec.places.data_dir / name, domain, count=count, seed=seed, role=role, name=name)  # type: ignore[arg-type]
    sections = {
        "trial": {
            "data": {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 64},
            "model": {"freeze": "backbone"},
            "stages": {"public": {"steps": 4, "batch_size": 16}, "private": {"steps": 6, "expected_batch_size": 16}},
        },
        "search": {"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.01, 1.0]}},
        "splits": {},
        "sweep": {"delta": 1.3e-3, "epsilons": [0.77], "trials_per_epsilon": 1},
        "references": {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0},
    }
    runtime = RuntimeFlags(physical_batch_size=16, report_every_steps=2, checkpoint_every_steps=4)
    return spec.model_copy(update={"space": spaces.space(**sections), "runtime": runtime})


def test_the_real_worker_executes_what_was_reserved_and_calibrates_nothing(real: SweepSpec) -> None:
    around = replace(fake_trials.surroundings(), accountant=dp_accountant(real.places.cache_dir))
    results = run_sweep(real.model_copy(update={"trial_function": "fake_trials:real_trial_without_calibration"}), around)
    (record,) = results.records
    assert (record.state, record.error, record.fulfilled) == ("done", None, True)
    (line,) = (line for line in Ledger(real.resolved_ledger_url).lines() if line.kind == "reserve")
    assert (record.noise_multiplier, record.delta, record.steps) == (line.noise_multiplier, 1.3e-3, line.steps)
    assert record.curve[-1].metrics["privacy/epsilon_spent"] == line.epsilon
    assert [point.step for point in record.curve] == [2, 4, 6]
