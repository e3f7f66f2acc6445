"""A sweep that dpsweep 0.1.0 began and this version goes on with: its ledger lines do not say their unit of privacy."""

from dataclasses import replace
from pathlib import Path

import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Refused
from dpcore.privacy.composition import price
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.totals import totals_of
from sweeps.pricing.plan import dp_accountant, sweep_price
from sweeps.records.charged import say_earlier_unit
from sweeps.records.spec import SweepSpec

RUN = Reservation(
    sweep="s", trial_id="e1-000", dataset="private", cohort="people", sampling_prob=0.0613, noise_multiplier=3.1875, steps=61, epsilon=2.0,
    delta=1e-5, unit="image", examples_per_unit=1, views="[]", labels="public",
)  # fmt: skip
EARLIER = {"unit": "", "examples_per_unit": 0, "views": "", "labels": ""}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store")


def test_the_unit_that_its_spec_tells_is_written_down_so_that_old_and_new_lines_have_one_total(spec: SweepSpec, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.reserve(replace(RUN, **EARLIER))
    say_earlier_unit(spec, ledger, cohort="people", unit="image")
    ledger.reserve(replace(RUN, trial_id="e1-001"))
    say_earlier_unit(spec, ledger, cohort="people", unit="image")  # once is enough
    assert [line.kind for line in ledger.lines()] == ["reserve", "state", "reserve"]
    (total,) = totals_of(ledger.lines(), 1e-5, price)
    assert total.unit == "image"
    assert total.epsilon == pytest.approx(price([(RUN.spending, 2)], 1e-5))
    assert sweep_price(ledger, "s", 1e-5, dp_accountant()) == total.epsilon


def test_lines_of_other_sweeps_of_that_version_are_not_spoken_for(spec: SweepSpec, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    for sweep in ("s", "other"):
        ledger.reserve(replace(RUN, sweep=sweep, **EARLIER))
    with pytest.raises(Refused, match=r"begun by dpsweep 0\.1\.0, and the ledger has lines of that version of other too"):
        say_earlier_unit(spec, ledger, cohort="people", unit="image")
