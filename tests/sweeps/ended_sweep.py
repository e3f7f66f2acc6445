"""A sweep of milliseconds that has ended, on disk as a driver leaves it: spec, studies, reports, ledger and tables."""

from pathlib import Path
from typing import Any

import fake_trials
import spaces

from dpcore.config import Places
from sweeps.engine.schedule import Schedule
from sweeps.pricing.plan import Accountant, priced
from sweeps.pricing.reservations import Reservations
from sweeps.records.charged import open_ledger
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


def spec_of(folder: Path, *, name: str = "s", **sections: Any) -> SweepSpec:
    """A spec in `folder`; `sections` change the example space."""
    places = Places(data_dir=folder / "data", cache_dir=folder / "cache")
    return SweepSpec(name=name, space=spaces.space(**sections), places=places, storage=folder / "store", max_concurrent=2)


def schedule_of(spec: SweepSpec) -> Schedule:
    """Its schedule, taken up where an earlier one ended."""
    reservations = Reservations(spec, open_ledger(spec), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec))
    schedule.restore(key_lost=False)
    return schedule


def run_one(schedule: Schedule, record: TrialRecord, *, error: str | None = None, score: float | None = None) -> None:
    """A handed-out trial from its start to its end."""
    schedule.started(record.trial_id)
    if error is None:
        reached = fake_trials.score_of(record.config) if score is None else score
        schedule.report(record.trial_id, fake_trials.report_of(record, 3, {"val/pckh_50": reached}, done=True))
    schedule.end(record.trial_id, error=error)


def write(spec: SweepSpec, schedule: Schedule) -> SweepResults:
    """The tables, with the price."""
    results = SweepResults(
        name=spec.name, records=schedule.records, accounting=spec.space.sweep.accounting, delta=spec.space.delta, planned=schedule.planned
    )
    results = priced(results, open_ledger(spec), ACCOUNTANT)
    results.write_parquet(spec.sweep_dir / "results")
    return results


def ended_sweep(folder: Path, *, name: str = "s", **sections: Any) -> SweepSpec:
    """A sweep that ran to its end."""
    spec = spec_of(folder, name=name, **sections)
    spec.save()
    schedule = schedule_of(spec)
    while (record := schedule.next()) is not None:
        run_one(schedule, record)
    write(spec, schedule)
    return spec
