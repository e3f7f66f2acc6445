"""A sweep that other packages take up: what goes on, what is said, what is refused and with which remedy."""

import json
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Refused
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.spec import SweepSpec
from sweeps.records.versions import check_versions, installed_versions
from sweeps.search.terms import terms_of

BEFORE = {"python": "3.11.7", "dpsweep": "0.2.0", "torch": "2.11.0+cpu", "numpy": "2.1.3", "optuna": "5.0.0", "ray": "2.60.0"}
ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


def told(*open_runs: str, new_attempt: bool = False, **changed: str) -> list[str]:
    """What is said where these packages have other versions."""
    lines: list[str] = []
    check_versions(BEFORE, {**BEFORE, **changed}, sweep="s", open_runs=open_runs, new_attempt=new_attempt, say=lines.append)
    return lines


def test_the_same_packages_say_nothing() -> None:
    assert told("e0.5-001") == []


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"torch": "2.12.1+cpu"}, r"torch was 2\.11\.0\+cpu and is 2\.12\.1\+cpu.*Install torch==2\.11\.0\+cpu, or let them"),
        ({"numpy": "2.2.0", "python": "3.12.1"}, r"python was 3\.11\.7 and is 3\.12\.1, numpy was .*Install numpy==2\.1\.3"),
        ({"python": "3.12.1"}, r"Use Python 3\.11\.7, or let them"),
    ],
)
def test_open_runs_are_not_repeated_under_another_arithmetic(changed: dict[str, str], remedy: str) -> None:
    with pytest.raises(Refused, match=rf"{remedy}.*`dpsweep resume s --new-attempt`"):
        told("e0.5-001", **changed)
    (said,) = told("e0.5-001", new_attempt=True, **changed)
    assert said.endswith("open runs go on as new attempts, charged again")


def test_without_open_runs_it_is_said_and_goes_on() -> None:
    assert told(torch="2.12.1") == ["dpsweep: torch was 2.11.0+cpu and is 2.12.1; no open run depends on it"]


def test_another_major_optuna_is_refused_a_minor_one_said_and_ray_is_free() -> None:
    with pytest.raises(Refused, match=r"install optuna==5\.0\.0"):
        told(optuna="6.0.0")
    assert told("e0.5-001", optuna="5.1.0") == ["dpsweep: optuna was 5.0.0 and is 5.1.0; no open run depends on it"]
    assert told("e0.5-001", ray="2.61.0", dpsweep="0.3.0") == []


def test_a_spec_of_a_later_dpsweep_is_refused_by_name_whatever_else_it_holds() -> None:
    document = {"versions": {"dpsweep": "99.1.0"}, "a_field_of_the_future": 1}
    with pytest.raises(Refused, match=r"written by dpsweep 99\.1\.0, and this is .*: install 99\.1\.0 or a later one"):
        SweepSpec.parse(json.dumps(document).encode(), where="spec.json")


def test_all_packages_of_a_bit_exact_repetition_are_written_down() -> None:
    from dpcore.train.replay import ARITHMETIC

    assert {"python", "dpsweep", "optuna", *ARITHMETIC} <= installed_versions().keys()


def test_a_run_is_open_once_it_has_reported_or_left_a_checkpoint(tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    alone = {"floor": True, "ceiling": False, "control": False, "winner_seeds": 0}
    spec = SweepSpec(name="s", space=spaces.space(references=alone), places=places, storage=tmp_path / "store")

    def schedule() -> Schedule:
        reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
        return Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec))

    first = schedule()
    first.restore(key_lost=False)
    records = [first.next() for _ in range(5)]
    reported = next(record for record in records if record is not None and record.config.spends_privacy)
    first.report(reported.trial_id, fake_trials.report_of(reported, 1, {"val/pckh_50": 0.5}))
    asked: list[str] = []

    def refuse(trials: object) -> None:
        asked.extend(trials)  # type: ignore[arg-type]
        raise Refused("no")

    journal = spec.study_path.read_bytes()
    with pytest.raises(Refused):
        schedule().restore(key_lost=False, may_repeat=refuse)
    assert asked == [reported.trial_id]
    assert spec.study_path.read_bytes() == journal
