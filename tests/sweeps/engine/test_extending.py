"""A sweep that goes on beyond its plan: what runs again, what it costs, and what is refused because it would be unsound."""

from dataclasses import replace
from pathlib import Path

import pytest
from ended_sweep import ACCOUNTANT, ended_sweep, run_one, schedule_of, spec_of, write

import dpsweep
from dpcore.errors import BadInput, Refused
from dpcore.privacy.composition import AtOrder
from sweeps.api.changing import plan_retry
from sweeps.ledger.charges import FilterTerms
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.pricing import plan as plan_module
from sweeps.pricing.extending import extended, require_extensible
from sweeps.pricing.regimes import basis_of
from sweeps.records.charged import open_ledger
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status


def goes_on(spec: SweepSpec, *, better: bool = False) -> tuple[TrialRecord, ...]:
    """Runs what is left of a sweep; `better`: each further trial beats all before."""
    spec.save()
    schedule = schedule_of(spec)
    before = {record.trial_id for record in schedule.records}
    while (record := schedule.next()) is not None:
        run_one(schedule, record, score=0.99 if better and record.role == "search" else None)
    write(spec, schedule)
    assert schedule.finished == schedule.planned
    return tuple(record for record in schedule.records if record.trial_id not in before)


def reserved(spec: SweepSpec) -> list[str]:
    return [line.trial_id for line in open_ledger(spec, read_only=True).lines() if line.kind == "reserve"]


def test_more_trials_run_beside_those_that_are_there_and_each_is_reserved(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path)
    before = reserved(spec)
    new = goes_on(extended(spec, trials=3, epsilons=()))
    assert sorted(record.trial_id for record in new if record.role == "search") == [
        f"e{e}-{n:03d}" for e in ("0.5", "2") for n in (4, 5, 6)
    ]
    after = reserved(spec)
    assert after[: len(before)] == before
    assert {record.trial_id for record in new if record.config.spends_privacy} == set(after[len(before) :])


def test_a_further_epsilon_gets_its_whole_search_and_its_own_reruns(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path)
    new = goes_on(extended(spec, trials=0, epsilons=(1.0,)))
    assert {record.epsilon for record in new} == {1.0}
    assert sum(record.role == "search" for record in new) == 4
    assert [record.trial_id for record in new if record.role == "seed"] == ["seed-e1-1", "seed-e1-2"]


def test_a_new_winner_gets_reruns_of_its_own_and_the_old_ones_no_longer_count(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path, sweep={"epsilons": [0.5]})
    new = goes_on(extended(spec, trials=1, epsilons=()), better=True)
    assert [record.trial_id for record in new if record.role == "seed"] == ["seed-e0.5-1.again", "seed-e0.5-2.again"]
    results = dpsweep.read_results("s", storage=spec.storage_dir).found
    winner = results.best(0.5)
    assert winner.trial_id == "e0.5-004"
    assert [record.trial_id for record in results.seeds(0.5)] == ["seed-e0.5-1.again", "seed-e0.5-2.again"]
    assert all(record.config == winner.config for record in results.seeds(0.5))
    assert len(results.of_role("seed", 0.5)) == 4


def test_the_price_says_that_some_trials_were_added_on_earlier_results(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path)
    assert "as if all had been fixed beforehand" not in basis_of(spec).text()
    assert "as if all had been fixed beforehand" in basis_of(extended(spec, trials=1, epsilons=())).text()


def test_a_cap_over_an_extended_sweep_is_held_by_a_filter(tmp_path: Path) -> None:
    """What is added was chosen on results: PLD alone would not hold for the sum."""
    seen: list[bool] = []

    def compose(charges: object, delta: float) -> float:
        seen.append(any(isinstance(charge, AtOrder) for charge, _ in charges))
        return 0.1

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    run = Reservation(
        sweep="s", trial_id="e1-000", dataset="d", cohort="c", sampling_prob=0.061, noise_multiplier=3.19, steps=61, epsilon=1.0,
        delta=1e-5, unit="image",
    )  # fmt: skip
    ledger.reserve(run, cap=5.0, compose=compose)
    assert not any(seen)
    ledger.reserve(replace(run, trial_id="e1-001"), cap=5.0, compose=compose, is_planned_whole=False)
    assert any(seen)


LONGER = {"stages": {"public_view": {"until": "converged"}, "private": {"steps": 30, "expected_batch_size": 10}}}
UNSOUND: dict[str, dict[str, object]] = {
    "sampler grid has each point once": {
        "sweep": {"sampler": "grid", "trials_per_epsilon": None},
        "search": {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.1, 1.0]}},
    },
    "how many trials go on at each rung": {"sweep": {"stopper": "halving"}, "trial": LONGER},
    "the noise of the scores was fixed": {"sweep": {"validation": "private", "validation_epsilon": 1.0, "validation_units": 100}},
    "one draw of its law": {"sweep": {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 3}}},
}


@pytest.mark.parametrize(("reason", "sections"), UNSOUND.items(), ids=UNSOUND)
def test_what_would_be_unsound_is_refused_with_the_reason(reason: str, sections: dict[str, object], tmp_path: Path) -> None:
    spec = spec_of(tmp_path, **sections)
    with pytest.raises(Refused, match=reason):
        extended(spec, trials=1, epsilons=())


def test_a_filter_that_was_fixed_before_the_first_trial_is_not_made_larger(tmp_path: Path) -> None:
    spec = spec_of(tmp_path).model_copy(update={"privacy_filter": FilterTerms(sweep="s", order=8, rdp=1.0)})
    with pytest.raises(Refused, match="RDP filter of s was fixed before its first trial"):
        extended(spec, trials=0, epsilons=(1.0,))


def test_halving_may_search_a_further_epsilon_whose_ladder_is_fixed_before_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"stopper": "halving"}, trial=LONGER)
    require_extensible(spec, more_trials=False)
    assert extended(spec, trials=0, epsilons=(1.0,)).space.sweep.epsilons == (0.5, 2.0, 1.0)


def test_an_extension_needs_something_that_is_not_there(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(BadInput, match=r"give --trials \+N"):
        extended(spec, trials=0, epsilons=())
    with pytest.raises(BadInput, match="2 is searched already"):
        extended(spec, trials=0, epsilons=(2.0,))


@pytest.fixture
def failed(tmp_path: Path) -> SweepSpec:
    """A sweep in which the second search trial at ε 0.5 and the first rerun there failed."""
    spec = spec_of(tmp_path, sweep={"epsilons": [0.5]})
    spec.save()
    schedule = schedule_of(spec)
    while (record := schedule.next()) is not None:
        run_one(schedule, record, error="the network is gone" if record.trial_id in ("e0.5-001", "seed-e0.5-1") else None)
    write(spec, schedule)
    return spec


def test_a_failed_trial_runs_again_with_its_settings_and_is_charged_again(failed: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "dp_accountant", lambda cache_dir=None: ACCOUNTANT)
    planned = plan_retry("s", storage=failed.storage_dir)
    spec = planned.plan.spec
    assert set(spec.set_aside) == {"e0.5-001", "seed-e0.5-1"}
    assert planned.epsilon_before == pytest.approx(6 * 0.5)
    assert planned.epsilon_after == pytest.approx((6 + 2 + 1) * 0.5)  # and the other rerun, if one of them becomes the winner
    before = reserved(failed)
    new = {record.trial_id: record for record in goes_on(spec)}
    assert set(new) == {"e0.5-004", "seed-e0.5-1.again"}
    assert set(reserved(failed)) == {*before, "e0.5-004", "seed-e0.5-1.again"}
    old = next(record for record in schedule_of(spec).records if record.trial_id == "e0.5-001")
    assert new["e0.5-004"].config == old.config
    status = sweep_status(spec, ACCOUNTANT)
    assert (status["epsilons"][0]["done"], status["epsilons"][0]["failed"]) == (4, 0)
    assert goes_on(spec) == ()


def test_where_none_failed_there_is_nothing_to_retry(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path)
    with pytest.raises(BadInput, match="no trial of s has failed"):
        plan_retry("s", storage=spec.storage_dir)
