"""A fault of all trials ends a sweep before the others are charged; a fault that repeats itself is not tried a third time."""

from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status
from sweeps.search.failures import repeats_itself, shape_of
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
ALONE = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
BROKEN = "batch_size of the stage public: {} wanted but only 12 there; ask for at most 12"


def spec_of(tmp_path: Path, **references: object) -> SweepSpec:
    """A sweep of four trials at each of two ε."""
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(references={**ALONE, **references}), places=places, storage=tmp_path / "store")


def schedule_of(spec: SweepSpec) -> Schedule:
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec))
    schedule.restore(key_lost=False)
    return schedule


def finish(schedule: Schedule, record: TrialRecord) -> None:
    schedule.report(record.trial_id, fake_trials.report_of(record, 3, {"val/pckh_50": 0.5}, done=True))
    schedule.end(record.trial_id)


def failing_schedule(tmp_path: Path, errors: list[str]) -> tuple[SweepSpec, Schedule]:
    """A sweep whose trials fail with one error after the other."""
    spec = spec_of(tmp_path)
    schedule = schedule_of(spec)
    for error in errors:
        record = schedule.next()
        assert record is not None
        schedule.end(record.trial_id, error=error)
    return spec, schedule


def write(spec: SweepSpec, schedule: Schedule) -> None:
    SweepResults(
        name="s", records=schedule.records, accounting="composed", delta=1e-5, planned=schedule.planned, stopped_by=schedule.stopped_by
    ).write_parquet(spec.sweep_dir / "results")


def test_three_like_failures_end_a_sweep_and_leave_the_other_trials_their_budget(tmp_path: Path) -> None:
    spec, schedule = failing_schedule(tmp_path, [f"BadInput: {BROKEN.format(n)}" for n in (64, 48, 32)])
    assert schedule.next() is None
    assert schedule.is_over
    assert [line.kind for line in Ledger(spec.resolved_ledger_url).lines()] == ["reserve", "settle"] * 3
    assert "3 trials in a row failed alike and none has worked (e0.5-001: BadInput: batch_size" in str(schedule.stopped_by)
    assert "dpsweep resume s" in str(schedule.stopped_by)
    write(spec, schedule)
    status = sweep_status(spec, ACCOUNTANT)
    assert (status["state"], status["reason"]) == ("failed", schedule.stopped_by)


def test_a_resume_goes_on_with_what_was_not_begun(tmp_path: Path) -> None:
    spec, _ = failing_schedule(tmp_path, [f"BadInput: {BROKEN.format(64)}"] * 3)
    resumed, done = schedule_of(spec), 0
    while (record := resumed.next()) is not None:
        finish(resumed, record)
        done += 1
    assert (done, resumed.stopped_by) == (5, None)


@pytest.mark.parametrize(
    "errors",
    [
        ["KeyError: 'a'", "KeyError: 'b'", "ValueError: shapes", "KeyError: 'c'", "KeyError: 'd'"],
        ["Diverged: the weights diverged"] * 4,
        ["val/pckh_50 is no number: the weights diverged; try a smaller learning rate"] * 4,
    ],
)
def test_unlike_failures_and_diverged_weights_do_not_end_a_sweep(tmp_path: Path, errors: list[str]) -> None:
    _, schedule = failing_schedule(tmp_path, errors)
    assert schedule.next() is not None


def test_once_a_trial_has_worked_failures_do_not_end_a_sweep(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    record = schedule.next()
    assert record is not None
    finish(schedule, record)
    for _ in range(4):
        record = schedule.next()
        assert record is not None
        schedule.end(record.trial_id, error="KeyError: 'a'")
    assert schedule.next() is not None


def test_a_floor_that_works_does_not_hide_that_no_private_trial_does(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path, floor=True))
    while (record := schedule.next()) is not None:
        if record.role == "floor":
            finish(schedule, record)
        else:
            schedule.end(record.trial_id, error="RuntimeError: no device")
    assert [record.state for record in schedule.records if record.role == "search"] == ["failed"] * 3


def test_a_crash_that_repeats_itself_is_not_tried_again(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    record = schedule.next()
    assert record is not None
    assert schedule.worker_died(record.trial_id, "RuntimeError: mat1 and mat2 cannot be multiplied (64x16 and 12x16)").state != "failed"
    again = schedule.next()
    assert again is not None
    assert again.trial_id == record.trial_id
    ended = schedule.worker_died(record.trial_id, "RuntimeError: mat1 and mat2 cannot be multiplied (32x16 and 12x16)")
    assert (ended.state, ended.error) == (
        "failed",
        "RuntimeError: mat1 and mat2 cannot be multiplied (32x16 and 12x16) (after 2 tries)",
    )


@pytest.mark.parametrize(
    ("error", "earlier", "repeats"),
    [
        ("KeyError: 'e0.5-001'", "KeyError: 'e2-003'", True),
        ("OSError: /data/shard-00001 is gone", "OSError: /data/shard-00007 is gone", True),
        ("KeyError: 'a'", "IndexError: 'a'", False),
        ("the worker died: its process was killed or crashed", "the worker died: its process was killed or crashed", False),
        ("dpcore.errors.Unavailable: the folder is held", "dpcore.errors.Unavailable: the folder is held", False),
        ("KeyError: 'a'", None, False),
    ],
)
def test_messages_are_alike_up_to_their_particulars(error: str, earlier: str | None, repeats: bool) -> None:
    assert repeats_itself(error, earlier) is repeats


def test_the_shape_of_a_message_keeps_its_words() -> None:
    assert shape_of("BadInput: 64 wanted but only 12 there") == "BadInput: … wanted but only … there"


def test_a_sweep_of_which_nothing_worked_has_failed_and_says_why(tmp_path: Path) -> None:
    errors = [f"ValueError: {word}" for word in ("north", "east", "south", "west", "up", "down", "left", "right")]
    spec, schedule = failing_schedule(tmp_path, errors)
    assert schedule.next() is None
    assert schedule.stopped_by is None
    write(spec, schedule)
    status = sweep_status(spec, ACCOUNTANT)
    assert status["state"] == "failed"
    assert status["reason"].startswith("no private trial came to its end: 8 failed, the last with ValueError")
