"""The plan: what a sweep costs under each regime, and the filter of one that searches q or the steps."""

from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Refused
from dpcore.privacy.composition import Filtered, order_for, price, rdp_of
from search_spaces.space import SelectionLaw
from sweeps.engine.preflight import with_filter
from sweeps.engine.schedule import Schedule
from sweeps.ledger.charges import FilterTerms
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant, SweepPlan, check_cap, plan_sweep, sweep_price
from sweeps.pricing.regimes import basis_of, pricing_of
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import terms_of as selection_terms
from sweeps.records.spec import SweepSpec
from sweeps.report.plan_text import plan_text
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
EXACT = Accountant(plan=fake_trials.plan, compose=price, spent=fake_trials.spent)
SEARCHED = {
    **spaces.DOCUMENT["search"],
    "stages.private.steps": {"int": [3, 6]},
    "stages.private.expected_batch_size": {"choice": [10, 20]},
}
STAGES = {"public_view": {"until": "converged"}, "private": {}}


def plan_for(**sections: object) -> SweepPlan:
    return plan_sweep(spaces.space(**sections), ACCOUNTANT)


def adaptive(**sections: object) -> dict[str, object]:
    return {"search": SEARCHED, "trial": {"stages": STAGES}, **sections}


def spec_of(tmp_path: Path, **sections: object) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(**sections), places=places, storage=tmp_path / "store")


def test_a_plan_names_the_price_under_every_regime() -> None:
    plan = plan_for()
    prices = {one.accounting: one.epsilon for one in plan.prices}
    # 4 trials and 2 reruns at 0.5 and at 2; a selection counts three times one trial here
    assert prices == {
        "composed": pytest.approx(6 * 0.5 + 6 * 2.0),
        "public_proxy": 0.0,
        "private_selection": pytest.approx((3 + 2) * 0.5 + (3 + 2) * 2.0),
        "unaccounted": None,
    }
    assert plan.finals == (0.5, 2.0)
    assert "composition of all its trials by PLD" in plan.headline
    assert {one.accounting: one.basis for one in plan.prices}["private_selection"].endswith("geometric law with mean 4 for example")


def test_a_sweep_of_more_trials_than_a_selection_may_have_is_planned_without_its_price() -> None:
    plan = plan_for(sweep={"trials_per_epsilon": 1250})
    prices = {one.accounting: one for one in plan.prices}
    assert prices["composed"].epsilon == pytest.approx(1252 * 0.5 + 1252 * 2.0)
    assert prices["private_selection"].epsilon is None
    assert "at most 500 trials" in prices["private_selection"].basis


@pytest.mark.parametrize(
    ("accounting", "epsilon", "words"),
    [
        ("composed", 15.0, "sweep epsilon 15 at"),
        ("unaccounted", None, "no end-to-end guarantee (accounting unaccounted; composed would be epsilon 15"),
    ],
)
def test_the_headline_is_the_regimes(accounting: str, epsilon: float | None, words: str) -> None:
    plan = plan_for(sweep={"accounting": accounting})
    assert plan.sweep_epsilon == epsilon
    assert words in plan.headline


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        ({}, "per image, added or removed; public: the views of every image under blur (gaussian_blur on region all) and keypoints, "),
        ({"privacy_unit": "video", "labels": "private"}, "per video, added or removed; public: the views of every video under blur "),
    ],
)
def test_a_price_names_its_unit_its_neighbours_and_what_is_public(trial: dict[str, str], said: str) -> None:
    plan = plan_for(trial=trial)
    assert said in plan.headline
    assert ("keypoints" in plan.headline) == (trial.get("labels") != "private")


def test_where_no_view_is_read_nothing_of_a_unit_is_public() -> None:
    search = {"clip_norm": {"float": [0.1, 1.0]}}
    plan = plan_for(search=search, splits={}, trial={"method": "dpsgd", "relation": "replace"})
    assert plan.headline.endswith("per image, replaced by another; public: nothing of the image")


def test_a_price_without_private_data_promises_nobody_anything() -> None:
    data = {**spaces.DOCUMENT["trial"]["data"], "proxy": "synthetic/proxy", "proxy_examples": 2000}
    assert "per image" not in plan_for(sweep={"accounting": "public_proxy"}, trial={"data": data}).headline


def test_plan_and_report_say_which_accountant_gives_each_figure_and_holds_the_cap(tmp_path: Path) -> None:
    fixed = plan_for(sweep={"epsilon_total": 17.3})
    pricing, basis = pricing_of("composed"), fixed.basis
    order = order_for(17.3, 1e-5)
    alone = f"by PLD while this sweep is alone in its ledger, and by an RDP filter (order {order}) beside other sweeps"
    assert pricing.cap(basis, 17.3, 1e-5).endswith(alone)
    assert "the price by PLD too" in pricing.accountants(basis)
    filtered = plan_sweep(spaces.space(**adaptive()), EXACT).basis
    assert filtered.filter is not None
    assert f"an RDP filter (order {filtered.filter.order})" in pricing.accountants(filtered)
    assert f"the RDP filter of this sweep (order {filtered.filter.order})" in pricing.cap(filtered, 17.3, 1e-5)
    assert "by RDP" in pricing_of("private_selection").accountants(basis)
    text = plan_text(spec_of(tmp_path, sweep={"epsilon_total": 17.3}), fixed)
    assert pricing.cap(basis, 17.3, 1e-5) in text
    assert "(each by PLD)" in text


def test_a_rehearsal_costs_nothing_and_its_final_training_does() -> None:
    data = {**spaces.DOCUMENT["trial"]["data"], "proxy": "synthetic/proxy", "proxy_examples": 2000}
    plan = plan_for(sweep={"accounting": "public_proxy"}, trial={"data": data})
    assert (plan.sweep_epsilon, plan.composed_epsilon) == (0.0, pytest.approx(15.0))
    assert plan.finals == (0.5, 2.0)
    assert "the final training is charged for itself" in plan.headline
    assert [group.price for group in plan.groups] == [0.0, 0.0]


def test_a_selection_by_profile_is_priced_by_pld_and_says_so() -> None:
    law = {"mean_trials": 7, "shape": 1}
    sweep = {"accounting": "private_selection", "trials_per_epsilon": None, "sampler": "random"}
    by_rdp, by_profile = (
        plan_sweep(spaces.space(sweep={**sweep, "selection": {**law, "accountant": one}}), EXACT) for one in ("rdp", "profile")
    )
    assert "private selection by privacy profiles" in by_profile.headline
    assert "private selection by RDP" in by_rdp.headline
    pricing = pricing_of("private_selection")
    assert pricing.accountants(by_profile.basis).endswith("by privacy profiles; of a rerun by PLD; the price of all by PLD")
    assert "held by PLD while" in pricing.cap(by_profile.basis, 9.7, 1e-5)
    assert "held by RDP while" in pricing.cap(by_rdp.basis, 9.7, 1e-5)
    promised = [selection_terms(SelectionLaw.model_validate({**law, "accountant": one})).accountant for one in ("rdp", "profile")]
    assert promised == ["rdp", "profile"]
    assert by_profile.sweep_epsilon is not None
    assert by_rdp.sweep_epsilon is not None
    assert by_profile.sweep_epsilon < 0.9 * by_rdp.sweep_epsilon


def test_a_selection_is_planned_by_its_law() -> None:
    law = {"mean_trials": 7, "shape": 0.5}
    plan = plan_for(sweep={"accounting": "private_selection", "trials_per_epsilon": None, "selection": law})
    assert plan.sweep_epsilon == pytest.approx((3 + 2) * 0.5 + (3 + 2) * 2.0)
    assert [group.trials for group in plan.groups] == [7, 7]
    assert "truncated negative binomial of shape 0.5 law with mean 7" in plan.headline


def test_searched_steps_and_batch_are_priced_by_a_filter_fixed_beforehand_and_never_by_pld() -> None:
    plan = plan_sweep(spaces.space(**adaptive()), EXACT)
    opened = plan.basis.filter
    assert opened is not None
    assert plan.sweep_epsilon == plan.composed_epsilon == opened.epsilon(1e-5)
    assert f"RDP filter at order {opened.order}" in plan.headline
    corners = plan.groups[0].spendings
    assert sorted((round(one.sampling_prob * 1000), one.steps) for one in corners) == [(10, 3), (10, 6), (20, 3), (20, 6)]
    # 4 trials, 2 reruns and a final training per ε, each at its dearest
    planned = sum(7 * max(rdp_of(one, opened.order) for one in group.spendings) for group in plan.groups)
    assert opened.rdp == pytest.approx(planned)
    fixed = [(max(group.spendings, key=lambda one: rdp_of(one, opened.order)), 6) for group in plan.groups]
    assert opened.epsilon(1e-5) > price(fixed, 1e-5)
    assert {one.accounting: one.epsilon for one in plan.prices}["private_selection"] is None


def test_a_cap_cuts_the_filter_instead_of_refusing_the_plan() -> None:
    whole = plan_sweep(spaces.space(**adaptive()), EXACT)
    cap = whole.sweep_epsilon / 2
    cut = plan_sweep(spaces.space(**adaptive(sweep={"epsilon_total": cap})), EXACT)
    check_cap(cut, (), EXACT, unit="image")
    assert cut.sweep_epsilon == pytest.approx(cap)
    with pytest.raises(Refused, match="leaves nothing for an RDP filter"):
        plan_sweep(spaces.space(**adaptive(sweep={"epsilon_total": 1e-6})), EXACT)


def test_a_sweep_stops_before_the_trial_that_would_pass_its_filter(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, **adaptive(references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}))
    run = plan_sweep(spec.space, EXACT).groups[0].spendings[0]
    budget = Filtered(8, 40 * rdp_of(run, 8))
    spec = spec.model_copy(update={"privacy_filter": FilterTerms(sweep="s", order=budget.order, rdp=budget.rdp)})
    spec.save()
    assert SweepSpec.load("s", spec.storage) == spec
    ledger = Ledger(spec.resolved_ledger_url)
    schedule = Schedule(spec, EXACT, Reservations(spec, ledger, EXACT, validation=None, cohort="c", key_id="k"), terms=terms_of(spec))
    while (record := schedule.next()) is not None:
        schedule.report(record.trial_id, fake_trials.report_of(record, 1, {"val/pckh_50": 0.5}))
        schedule.end(record.trial_id)
    assert "RDP filter" in str(schedule.stopped_by)
    reserved = [line.spending for line in ledger.lines() if line.kind == "reserve"]
    assert 0 < len(reserved) < 8
    assert sum(rdp_of(one, 8) for one in reserved) <= budget.rdp
    assert sweep_price(ledger, "s", 1e-5, EXACT) == budget.epsilon(1e-5)


def test_the_filter_is_written_into_the_spec_before_the_first_trial(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, **adaptive())
    plan = plan_sweep(spec.space, EXACT)
    begun = with_filter(spec, plan)
    assert basis_of(begun).filter == plan.basis.filter
    fixed = spec_of(tmp_path)
    assert with_filter(fixed, plan_sweep(fixed.space, ACCOUNTANT)) == fixed
