"""A sweep whose ledger was lost or restored from yesterday: neither taken up nor priced, and no new sweep begins beside it."""

import shutil
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Refused
from sweeps.engine.preflight import plan_of
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.restoring import restore
from sweeps.pricing.plan import Accountant, sweep_price
from sweeps.pricing.reservations import Reservations
from sweeps.records.charged import open_ledger
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


def schedule_of(spec: SweepSpec, ledger: Ledger) -> Schedule:
    schedule = Schedule(
        spec, ACCOUNTANT, Reservations(spec, ledger, ACCOUNTANT, validation=None, cohort="d" * 8, key_id="k"), terms=terms_of(spec)
    )
    schedule.restore(key_lost=False)
    return schedule


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    """A sweep that has run whole; yesterday's ledger lies beside it."""
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    made = SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store")
    made.save()
    ledger = open_ledger(made)
    schedule = schedule_of(made, ledger)
    while (record := schedule.next()) is not None:
        for step in (1, 2, 3):
            schedule.report(
                record.trial_id, fake_trials.report_of(record, step, {"val/pckh_50": fake_trials.score_of(record.config) * step / 3})
            )
        schedule.end(record.trial_id)
        if record.trial_id == "e0.5-001":
            ledger.close()
            shutil.copy(made.storage_dir / "ledger.sqlite", tmp_path / "yesterday.sqlite")
    ledger.close()
    return made


def lose(spec: SweepSpec, how: str) -> None:
    for path in spec.storage_dir.glob("ledger.sqlite*" if "witness" in how else "ledger.sqlite"):
        path.unlink()
    if "own" in how:
        spec.ledger_witness.unlink()
    if "yesterday" in how:
        shutil.copy(spec.storage_dir.parent / "yesterday.sqlite", spec.storage_dir / "ledger.sqlite")


@pytest.mark.parametrize("how", ["gone", "gone with witness", "yesterday", "gone with witness and own", "yesterday with witness and own"])
def test_a_sweep_whose_ledger_is_lost_is_not_taken_up(spec: SweepSpec, how: str) -> None:
    lose(spec, how)
    with pytest.raises(Refused, match=r"remember|cannot be told|have no reservation in the ledger .* \(the first is e"):
        schedule_of(spec, open_ledger(spec))


@pytest.mark.parametrize("how", ["gone", "gone with witness", "yesterday"])
def test_no_new_sweep_begins_and_no_price_is_said_on_a_lower_total(spec: SweepSpec, how: str) -> None:
    lose(spec, how)
    with pytest.raises(Refused, match="lower total"):
        plan_of(spec.model_copy(update={"name": "new"}), fake_trials.surroundings())
    with pytest.raises(Refused, match="lower total"):
        sweep_price(open_ledger(spec), "s", 1e-5, ACCOUNTANT)


def test_after_a_restore_everything_goes_on(spec: SweepSpec) -> None:
    before = open_ledger(spec).lines()
    lose(spec, "yesterday")
    assert restore(spec.resolved_ledger_url, [spec.ledger_witness]) > 0
    assert open_ledger(spec).lines() == before
    assert schedule_of(spec, open_ledger(spec)).finished == 17
    plan_of(spec.model_copy(update={"name": "new"}), fake_trials.surroundings())


def test_a_ledger_that_was_only_begun_stops_no_plan(spec: SweepSpec, tmp_path: Path) -> None:
    new = spec.model_copy(update={"name": "new", "storage": tmp_path / "other"})
    new.storage_dir.mkdir()
    (new.storage_dir / "ledger.sqlite").touch()
    plan_of(new, fake_trials.surroundings())
