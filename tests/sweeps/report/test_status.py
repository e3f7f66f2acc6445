"""Where a sweep stands: counts, leader, time and cost left, with a driver and without."""

import fcntl
import math
import subprocess
import sys
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant, dp_accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.folder import mark_finished, mark_unfinished
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spec_of(tmp_path: Path, **sections: object) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(**sections), places=places, storage=tmp_path / "store", max_concurrent=2)


def schedule_of(spec: SweepSpec, clock: Clock) -> Schedule:
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec), clock=clock)
    schedule.restore(key_lost=False)
    return schedule


def finish(schedule: Schedule, record: TrialRecord, clock: Clock, *, seconds: float = 10.0) -> None:
    schedule.started(record.trial_id)
    clock.now += seconds
    schedule.report(record.trial_id, fake_trials.report_of(record, 3, {"val/pckh_50": fake_trials.score_of(record.config)}))
    schedule.end(record.trial_id)


def test_a_sweep_in_the_middle_has_counts_a_leader_and_the_time_and_cost_that_are_left(tmp_path: Path) -> None:
    spec, clock = spec_of(tmp_path), Clock()
    schedule = schedule_of(spec, clock)
    ended = [schedule.next() for _ in range(7)]
    for record in ended:
        finish(schedule, record, clock)
    running = schedule.next()
    status = sweep_status(spec, ACCOUNTANT)
    assert status["state"] == "interrupted"
    searched = [record for record in ended if record.epsilon == 0.5]
    group = next(one for one in status["epsilons"] if one["epsilon"] == 0.5)
    best = max(searched, key=lambda record: fake_trials.score_of(record.config))
    assert group["leader"] == {"trial_id": best.trial_id, "method": best.config.method}
    assert group["best"] == pytest.approx(fake_trials.score_of(best.config))
    assert (group["planned"], group["done"], group["running"]) == (4, len(searched), 0)
    assert status["sweep_epsilon"] == pytest.approx(math.fsum(r.epsilon or 0.0 for r in (*ended, running)))
    assert status["sweep_epsilon_planned"] == pytest.approx(6 * 0.5 + 6 * 2.0)
    assert status["seconds_left"] == pytest.approx(10.0 * (17 - 7) / 1)  # one runs


LOOK = """
import contextlib, io, sys
from sweeps.cli import main
said = io.StringIO()
with contextlib.redirect_stdout(said):
    code = main(sys.argv[1:])
heavy = ("torch", "ray", "mlflow", "optuna", "sqlalchemy", "scipy", "dp_accounting", "numpy", "pandas", "matplotlib")
print(code, [name for name in heavy if name in sys.modules], said.getvalue())
"""


@pytest.mark.parametrize(("command", "says"), [("status", "sweep s: interrupted"), ("ledger", "14 lines behind this")])
def test_looks_at_a_sweep_import_nothing_that_runs_or_prices_one(command: str, says: str, tmp_path: Path) -> None:
    """What a first look has priced is in the cache. A second one reads spec, studies and ledger with the standard library."""
    spec, clock = spec_of(tmp_path, references={"floor": False, "ceiling": False}), Clock()
    accountant = dp_accountant(spec.places.cache_dir)
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), accountant, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, accountant, reservations, terms=terms_of(spec), clock=clock)
    schedule.restore(key_lost=False)
    for _ in range(7):
        finish(schedule, schedule.next(), clock)
    spec.save()
    arguments = [sys.executable, "-c", LOOK, command, "s", "--storage", str(spec.storage_dir)]
    seen = [subprocess.run(arguments, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert seen[1].startswith("0 []"), seen[1]
    assert says in seen[1]


def test_while_a_driver_holds_the_lock_the_sweep_runs(tmp_path: Path) -> None:
    spec, clock = spec_of(tmp_path, references={"floor": False, "ceiling": False}), Clock()
    schedule = schedule_of(spec, clock)
    schedule.next()
    lock = (spec.state_dir / "sweep.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    status = sweep_status(spec, ACCOUNTANT)
    assert status["state"] == "running"
    assert sum(group["running"] for group in status["epsilons"]) == 1
    assert status["seconds_left"] is None  # nothing has ended yet
    lock.close()


def test_a_finished_sweep_has_nothing_left(tmp_path: Path) -> None:
    spec, clock = spec_of(tmp_path), Clock()
    schedule = schedule_of(spec, clock)
    while (record := schedule.next()) is not None:
        finish(schedule, record, clock)
    SweepResults("s", schedule.records, "composed", 1e-5, planned=schedule.planned).write_parquet(spec.sweep_dir / "results")
    status = sweep_status(spec, ACCOUNTANT)
    assert (status["state"], status["reason"], status["seconds_left"], status["next"]) == ("done", None, 0.0, None)
    assert status["sweep_epsilon"] == status["sweep_epsilon_planned"]


def test_a_sweep_whose_report_is_not_written_is_finishing_and_says_what_to_run_once_its_driver_is_gone(tmp_path: Path) -> None:
    spec, clock = spec_of(tmp_path), Clock()
    schedule = schedule_of(spec, clock)
    mark_unfinished(spec)
    while (record := schedule.next()) is not None:
        SweepResults("s", schedule.records, "composed", 1e-5, planned=schedule.planned).write_parquet(spec.sweep_dir / "results")
        assert sweep_status(spec, ACCOUNTANT)["state"] == "interrupted"  # seeds and controls are trials too
        finish(schedule, record, clock)
    with (spec.state_dir / "sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = sweep_status(spec, ACCOUNTANT)
        assert (status["state"], status["next"]) == ("finishing", None)
    status = sweep_status(spec, ACCOUNTANT)
    assert status["state"] == "finishing"
    assert f"dpsweep resume s --storage {spec.storage}" in status["next"]
    mark_finished(spec)
    assert sweep_status(spec, ACCOUNTANT)["state"] == "done"


def test_where_no_clock_ran_no_time_is_told(tmp_path: Path) -> None:
    """On protected data how long a trial took is not recorded."""
    spec = spec_of(tmp_path)
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec), clock=None)
    schedule.restore(key_lost=False)
    for _ in range(4):
        record = schedule.next()
        finish(schedule, record, Clock())
    assert sweep_status(spec, ACCOUNTANT)["seconds_left"] is None


def test_without_a_guarantee_no_price_is_told(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"accounting": "unaccounted"})
    schedule_of(spec, Clock()).next()
    status = sweep_status(spec, ACCOUNTANT)
    assert (status["sweep_epsilon"], status["sweep_epsilon_planned"]) == (None, None)
