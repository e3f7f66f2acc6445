"""What a sweep says that its trials spent, after reports were lost and its driver came back: never less than they did."""

from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.train.reports import EPSILON_SPENT
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
FEW = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    space = spaces.space(references=FEW, sweep={"epsilons": [8.485], "trials_per_epsilon": 3})
    made = SweepSpec(name="s", space=space, places=places, storage=tmp_path / "store")
    made.save()
    return made


def reservations_of(spec: SweepSpec) -> Reservations:
    return Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="c", key_id="k")


def schedule_of(spec: SweepSpec) -> Schedule:
    schedule = Schedule(spec, ACCOUNTANT, reservations_of(spec), terms=terms_of(spec))
    schedule.restore(key_lost=False)
    return schedule


def run(schedule: Schedule, *, steps: int = 3, error: str | None = None) -> TrialRecord:
    record = schedule.next()
    for step in range(1, steps + 1):
        schedule.report(record.trial_id, fake_trials.report_of(record, step, {"val/pckh_50": step / 7}, done=step == 3))
    return schedule.end(record.trial_id, error=error)


def without_last_report(record: TrialRecord) -> TrialRecord:
    """As it comes back where no memory has the report any more."""
    last = record.curve[-2]
    return replace(record, curve=record.curve[:-1], steps=last.step, epsilon_spent=last.metrics[EPSILON_SPENT])


def taken_up(spec: SweepSpec, record: TrialRecord) -> TrialRecord:
    (found,) = reservations_of(spec).with_spent([record])
    return found


def test_a_done_trial_whose_last_report_was_lost_spent_its_whole_plan(spec: SweepSpec) -> None:
    ended = run(schedule_of(spec))
    cut = without_last_report(ended)
    assert cut.epsilon_spent == pytest.approx(8.485 * 2 / 3)
    assert (ended.epsilon_spent, taken_up(spec, cut).epsilon_spent) == (8.485, 8.485)


def test_of_a_failed_trial_the_ledger_knows_how_many_steps_it_took(spec: SweepSpec) -> None:
    ended = run(schedule_of(spec), steps=2, error="the node went away")
    found = taken_up(spec, without_last_report(ended))
    assert (found.steps, found.epsilon_spent) == (2, ended.epsilon_spent)


def test_where_no_end_stands_in_the_ledger_what_a_failed_trial_spent_is_not_known(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Reservations, "settle", lambda self, record: None)
        ended = run(schedule_of(spec), steps=2, error="the node went away")
    assert taken_up(spec, without_last_report(ended)).epsilon_spent is None


def test_a_resume_says_of_every_ended_trial_what_it_said_before(spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    ended = [run(schedule), run(schedule, steps=2, error="the node went away")]
    assert [record.epsilon_spent for record in schedule_of(spec).records] == [record.epsilon_spent for record in ended]


def test_what_a_trial_spent_that_did_something_else_is_not_known(spec: SweepSpec) -> None:
    schedule = schedule_of(spec)
    record = schedule.next()
    schedule.report(record.trial_id, fake_trials.report_of(record, 1, {"val/pckh_50": 0.1}))
    schedule.report(record.trial_id, fake_trials.report_of(record, 2, {"val/pckh_50": 0.2}, noise_multiplier=0.01))
    assert schedule.end(record.trial_id).epsilon_spent is None
    after = schedule_of(spec).records[0]
    assert (after.fulfilled, after.epsilon_spent) == (False, None)
