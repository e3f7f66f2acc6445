"""Private validation in a sweep: planned, refused above a point of noise, charged to its own people, one score a run."""

from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import Spending, epsilon_of
from sweeps.engine.preflight import DatasetFacts, plan_of
from sweeps.engine.searcher import assignment
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import planned_runs, sweep_price
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.validation import PUBLIC_VALIDATION, plan_validation
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of

PRIVATE = {"validation": "private", "validation_epsilon": 2.0, "validation_units": 3000}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(sweep=PRIVATE), places=places, storage=tmp_path / "store")


def record(number: int) -> TrialRecord:
    config = spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    return TrialRecord(
        trial_id=f"e0.5-{number:03d}", role="search", number=number, epsilon=0.5, config=config, plan=fake_trials.plan(config, None)
    )


def reservations(spec: SweepSpec, ledger: Ledger) -> Reservations:
    accountant = fake_trials.surroundings().accountant
    return Reservations(
        spec, ledger, accountant, validation=plan_validation(spec.space, None), cohort="patients", validation_cohort="others", key_id="k"
    )


def test_every_run_releases_one_score_and_the_plan_says_what_that_takes(spec: SweepSpec) -> None:
    plan = plan_validation(spec.space, spec.places.cache_dir)
    assert plan is not None
    assert plan.releases == planned_runs(spec.space) == plan_of(spec, around()).trials == 17
    line = terms_of(spec).validation_text
    assert line.startswith("validation is private: 17 scores, one per run, at epsilon 2 together")
    assert "PCKh points on 3000 people" in line
    assert terms_of(spec.model_copy(update={"space": spaces.space()})).validation_text.startswith(PUBLIC_VALIDATION)


def around() -> object:
    return replace(
        fake_trials.surroundings(), dataset=lambda spec: DatasetFacts(cohort="patients", protected=False, validation_cohort="others")
    )


def test_more_than_a_point_of_noise_is_refused_before_anything_runs(spec: SweepSpec) -> None:
    few = spec.model_copy(update={"space": spaces.space(sweep={**PRIVATE, "validation_units": 500})})
    with pytest.raises(Refused, match="more than 1 point"):
        plan_of(few, around())
    assert not few.storage.exists()


def test_scores_are_charged_to_the_people_who_are_scored_on(spec: SweepSpec) -> None:
    ledger = Ledger(spec.resolved_ledger_url)
    charged = reservations(spec, ledger)
    charged.reserve(record(0))
    charged.reserve(record(0))
    charged.settle(record(0))
    lines = [(line.trial_id, line.cohort, line.kind) for line in ledger.lines()]
    assert lines == [
        ("e0.5-000/score", "others", "reserve"),
        ("e0.5-000", "patients", "reserve"),
        ("e0.5-000/score", "others", "settle"),
        ("e0.5-000", "patients", "settle"),
    ]
    score = ledger.lines(cohort="others")[0]
    assert (score.sampling_prob, score.steps) == (1.0, 1)
    noise = score.noise_multiplier
    assert sweep_price(ledger, "s", 1e-5, fake_trials.surroundings().accountant) == pytest.approx(max(0.5, 1 / noise))


def test_a_score_is_charged_at_the_noise_under_which_it_leaves(spec: SweepSpec, tmp_path: Path) -> None:
    ledger = Ledger(spec.resolved_ledger_url)
    reservations(spec, ledger).reserve(record(0))
    told = assignment(spec, record(0), folder=tmp_path, validation=terms_of(spec).validation).validation
    line = ledger.lines(cohort="others")[0]
    assert told is not None
    assert line.noise_multiplier == told.noise_multiplier != round(told.noise_multiplier, 1)
    assert line.epsilon == pytest.approx(epsilon_of(Spending(1.0, told.noise_multiplier, 1), 1e-5))


def test_no_more_scores_leave_than_the_noise_was_made_for(spec: SweepSpec) -> None:
    ledger = Ledger(spec.resolved_ledger_url)
    charged = reservations(spec, ledger)
    for number in range(17):
        charged.reserve(record(number))
    charged.reserve(record(3))
    with pytest.raises(Refused, match="made for 17 scores"):
        charged.reserve(record(17))
    assert len(ledger.lines(cohort="patients")) == 17


def test_a_worker_is_told_how_its_score_leaves(spec: SweepSpec, tmp_path: Path) -> None:
    told = assignment(spec, record(0), folder=tmp_path, validation=terms_of(spec).validation).validation
    plan = plan_validation(spec.space, spec.places.cache_dir)
    assert plan is not None
    assert told == plan.release
    assert terms_of(spec.model_copy(update={"space": spaces.space()})).validation is None


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"validation": "private"}, "needs validation_epsilon"),
        ({"validation_epsilon": 1.0}, "are for validation private"),
        ({"validation": "secret"}, "validation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(sweep: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        spaces.space(sweep=sweep)


def test_a_part_of_the_people_has_the_same_noise_over_their_own_number_and_the_same_price(spec: SweepSpec, tmp_path: Path) -> None:
    """Every score is priced as if all people were in it: a person may lie in either part."""
    whole = terms_of(spec).validation
    divided = spec.model_copy(update={"space": spaces.space(sweep={**PRIVATE, "validation_search_frac": 0.3})})
    plan = terms_of(divided).validation
    assert whole is not None
    assert plan is not None
    assert (plan.releases, plan.release) == (whole.releases, whole.release)
    told = {
        role: assignment(divided, replace(record(0), role=role), folder=tmp_path, validation=plan) for role in ("search", "seed", "floor")
    }
    assert {role: one.people.part for role, one in told.items()} == {"search": "search", "seed": "verdict", "floor": "verdict"}
    assert {role: one.validation.nominal_units for role, one in told.items()} == {"search": 900, "seed": 2100, "floor": 2100}
    assert {one.validation.noise_multiplier for one in told.values()} == {whole.release.noise_multiplier}
    ledger = Ledger(divided.resolved_ledger_url)
    reservations(divided, ledger).reserve(record(0))
    assert ledger.lines(cohort="others")[0].noise_multiplier == whole.release.noise_multiplier


def test_the_noise_on_the_smaller_part_decides_whether_a_search_would_follow_it(spec: SweepSpec) -> None:
    small = spec.model_copy(update={"space": spaces.space(sweep={**PRIVATE, "validation_search_frac": 0.1})})
    plan_of(spec, around())
    with pytest.raises(Refused, match=r"at most .* on 300 people"):
        plan_of(small, around())
