"""One budget for choosing and training: the ε of a trial that keeps the whole sweep within it, by the price that the ledger will hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput, Refused
from search_spaces.space import SpaceFile
from sweeps.pricing.one_budget import compared, divided, largest_epsilon
from sweeps.pricing.plan import Accountant, dp_accountant, plan_sweep, price_at
from sweeps.records.spec import SweepSpec
from sweeps.report.plan_text import plan_text

BUDGET = 1.7
HALVING = {"stopper": "halving", "stopping": {"grace_steps": 3, "reduction_factor": 3}}
SELECTION = {
    "accounting": "private_selection",
    "trials_per_epsilon": None,
    "selection": {"mean_trials": 4, "shape": 1, "accountant": "profile"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def accountant(cache: Path) -> Accountant:
    return dp_accountant(cache)


def space(*, total: float = BUDGET, seeds: int = 2, steps: int = 9, **sweep: Any) -> SpaceFile:
    document = spaces.document(sweep={"total_epsilon": total, **sweep}, references={"winner_seeds": seeds})
    document["trial"]["stages"]["private"]["steps"] = steps
    if "epsilons" not in sweep:
        del document["sweep"]["epsilons"]
    return spaces.build_space(document, name="budget")


@pytest.mark.parametrize("how", [{}, HALVING, SELECTION], ids=["composed", "halving", "selection"])
def test_the_plan_of_a_budget_costs_no_more_and_little_less(how: dict[str, Any], accountant: Accountant, cache: Path) -> None:
    found = divided(space(**how), accountant, cache)
    plan = plan_sweep(found, accountant, cache_dir=cache)
    (epsilon,) = found.sweep.epsilons
    assert plan.sweep_epsilon is not None
    assert 0.97 * BUDGET <= plan.sweep_epsilon <= BUDGET
    assert epsilon < BUDGET
    assert found.sweep.total_epsilon == BUDGET
    assert divided(found, accountant, cache) == found


def test_more_trials_leave_less_for_each_and_more_budget_leaves_more(accountant: Accountant, cache: Path) -> None:
    def epsilon(**given: Any) -> float:
        return divided(space(**given), accountant, cache).sweep.epsilons[0]

    assert epsilon(trials_per_epsilon=12) < epsilon() < epsilon(seeds=0) < epsilon(total=3.0, seeds=0)
    assert epsilon(trials_per_epsilon=1, seeds=0) == BUDGET


def test_where_choosing_reads_public_data_the_model_gets_the_whole_budget(accountant: Accountant, cache: Path) -> None:
    document = spaces.document(sweep={"total_epsilon": BUDGET, "accounting": "public_proxy"})
    document["trial"]["data"] |= {"proxy": "synthetic/public", "proxy_examples": 500}
    del document["sweep"]["epsilons"]
    found = divided(spaces.build_space(document, name="budget"), accountant, cache)
    assert found.sweep.epsilons == (BUDGET,)
    assert price_at(found, accountant, cache) <= BUDGET


def test_a_given_epsilon_that_costs_more_than_the_budget_is_refused_with_both_numbers(accountant: Accountant, cache: Path) -> None:
    with pytest.raises(Refused, match=r"total_epsilon is 1\.7, and this sweep of ε = 1\.5 would cost .*leave sweep\.epsilons out"):
        divided(space(epsilons=[1.5]), accountant, cache)
    assert divided(space(epsilons=[0.1]), accountant, cache).sweep.epsilons == (0.1,)


def test_a_budget_needs_a_promise_and_fixed_spending(accountant: Accountant, cache: Path) -> None:
    with pytest.raises(BadInput, match="unaccounted promises nothing"):
        space(accounting="unaccounted")
    searched = spaces.document(sweep={"total_epsilon": 1.0})
    searched["search"]["stages.private.expected_batch_size"] = {"choice": [10, 20]}
    del searched["trial"]["stages"]["private"]["expected_batch_size"]
    with pytest.raises(BadInput, match="needs q and the steps fixed"):
        divided(spaces.build_space(searched, name="budget"), accountant, cache)


def test_a_budget_that_no_trial_fits_is_refused(accountant: Accountant, cache: Path) -> None:
    dear = replace(accountant, compose=lambda charges, delta: 10.0)
    with pytest.raises(Refused, match=r"too small for this sweep: .*public_proxy"):
        divided(space(), dear, cache)


def test_the_search_over_epsilon_stays_on_the_private_side_of_any_price() -> None:
    """Prices that rise in leaps, hardly or steeply: whatever the interpolation hits, the answer costs no more than the budget."""
    prices: tuple[Callable[[float], float], ...] = (
        lambda e: 3 * e,
        lambda e: float(e**3),
        lambda e: 50 * e if e > 0.4 else e,
        lambda e: 1e-3 + e / 7,
        lambda e: 200 * e,
    )
    for price in prices:
        for total in (0.05, 0.731, 1.0, 9.99, 10.0):
            found = largest_epsilon(price, total)
            assert found is not None
            epsilon, said = found
            assert said == price(epsilon) <= total
            assert float(f"{epsilon:.3g}") == epsilon
            assert epsilon <= total
            assert said >= 0.98 * total or price(epsilon * 1.011) > total or epsilon * 1.011 > total


def test_procedures_are_compared_at_one_budget_and_the_best_one_is_named(accountant: Accountant, cache: Path) -> None:
    rows = compared(divided(space(trials_per_epsilon=9, **HALVING), accountant, cache), accountant, cache)
    by_name = {(row.procedure, row.trials): row for row in rows}
    assert all(row.price is None or row.price <= BUDGET for row in rows)
    plain, ladder = by_name["composed", 9], by_name["composed, halving", 9]
    assert plain.epsilon < ladder.epsilon < by_name["public proxy", 9].epsilon == BUDGET
    assert plain.epsilon < by_name["composed", 1].epsilon
    assert [row.procedure for row in rows if row.is_own] == ["composed, halving"]
    fair = [row for row in rows if row.trials == 9 and row.procedure != "public proxy"]
    assert [row for row in rows if row.is_best] == [max(fair, key=lambda row: row.epsilon or 0.0)]


def test_a_space_without_a_budget_is_as_it_was(accountant: Accountant, cache: Path) -> None:
    plain = spaces.space()
    assert divided(plain, accountant, cache) is plain
    assert compared(plain, accountant, cache) == ()
    later = ("total_epsilon", "method_shares", "validation_search_frac")
    assert not [name for name in later if name in plain.document()["sweep"]]
    assert "seeds_of" not in plain.document()["references"]


def test_the_plan_shows_what_a_budget_gives_and_how_trials_are_divided(tmp_path: Path, accountant: Accountant, cache: Path) -> None:
    found = divided(space(trials_per_epsilon=5, method_shares="equal"), accountant, cache)
    places = Places(data_dir=tmp_path / "data", cache_dir=cache)
    spec = SweepSpec(name="s", space=found, places=places, storage=tmp_path / "store")
    plan = plan_sweep(found, accountant, cache_dir=cache)
    shown = plan_text(spec, replace(plan, splits=compared(found, accountant, cache)))
    row = next(line for line in shown.splitlines() if line.startswith("→ composed") and line.endswith("accounting: composed"))
    assert row.split()[2:5] == ["5", "2", f"{found.sweep.epsilons[0]:g}"]
    assert "best for as many trials on these data: " in shown
    assert "trials per method are unequal: dpsgd 3, feature 2; a number of trials that 2 divides makes them equal" in shown
