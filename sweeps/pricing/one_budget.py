"""One budget for choosing and training (`sweep.total_epsilon`): the largest ε of a trial with which the whole sweep stays within it.

The price is that of `sweeps.pricing.plan`: what the ledger will hold of all trials and fresh seeds. Under `public_proxy` choosing costs
nothing, so the budget is that of the final training.

*Guarantees*: the price of the plan that is returned is at most E, by the very function that prices a sweep.
*Assumes*: the price rises with the ε of a trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config import parse_config
from dpcore.errors import BadInput, Refused
from search_spaces.regimes import REGIMES
from search_spaces.space import References, SpaceFile, SweepSettings
from sweeps.pricing.budget_split import BudgetSplit
from sweeps.pricing.plan import Accountant, price_at, spendings_at

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending

PER_DECADE = 900
"""ε of three digits: 1.00, 1.01 … 9.99. A trial's id holds its ε."""
DECADES_DOWN = 3
"""How far below the budget the ε of a trial is sought."""
ENOUGH = 0.99
"""Of the budget: a price this close to it is not improved."""
PROXY = "public proxy"
"""The procedure that needs further PUBLIC data: best only where the space has them."""
FEWER = (1.0, 0.25)
"""Numbers of trials that are compared, as shares of the planned one."""


def divided(space: SpaceFile, accountant: Accountant, cache_dir: Path | None) -> SpaceFile:
    """The space with the ε of its trials: found where `total_epsilon` leaves it open, else as it is.

    Raises:
        Refused: no ε of a trial keeps the sweep within the budget, or one that is given does not.
        BadInput: q or the steps are searched, so that no price is known beforehand.
    """
    total = space.sweep.total_epsilon
    if total is None:
        return space
    if space.searches_spending and space.sweep.regime.reads_private:
        raise BadInput("sweep.total_epsilon needs q and the steps fixed: fix stages.private.steps and expected_batch_size in trial")
    if not space.sweep.is_to_be_divided:
        require_within(space, price_at(space, accountant, cache_dir))
        return space
    found = largest_epsilon(lambda epsilon: price_at(_at(space, epsilon), accountant, cache_dir), total)
    if found is None:
        raise Refused(
            f"sweep.total_epsilon {total:g} is too small for this sweep: even trials of ε = {total / 10**DECADES_DOWN:g} cost more; "
            "plan fewer trials or fresh seeds (--trials, references.winner_seeds), or choose on PUBLIC data (accounting public_proxy)"
        )
    return _at(space, found[0])


def require_within(space: SpaceFile, price: float) -> None:
    """Refuses a sweep that would cost more than its own budget.

    Raises:
        Refused: says both numbers and what to do.
    """
    total = space.sweep.total_epsilon
    if total is not None and price > total:
        asked = ", ".join(f"{epsilon:g}" for epsilon in space.sweep.epsilons)
        raise Refused(
            f"sweep.total_epsilon is {total:g}, and this sweep of ε = {asked} would cost {price:.4g} in all; leave sweep.epsilons out, and "
            "the plan finds the ε of a trial; or plan fewer trials, or raise the budget"
        )


def largest_epsilon(price: Callable[[float], float], total: float) -> tuple[float, float] | None:
    """The largest ε of three digits, or one whose price is close enough, with price(ε) ≤ total, and that price; None where there is none.

    Args:
        price: of a sweep, rising with ε.
        total: E.
    """
    low, high = _index(total / 10**DECADES_DOWN), _index(total)
    top = price(_number(high))
    if top <= total:
        return _number(high), top
    bottom = price(_number(low))
    if bottom > total:
        return None
    best, known = bottom, {low: bottom, high: top}
    is_halving = False
    while high - low > 1 and best < ENOUGH * total:
        middle = (low + high) // 2 if is_halving else _between(low, high, known, total)
        known[middle] = price(_number(middle))
        before = high - low
        if known[middle] <= total:
            low, best = middle, known[middle]
        else:
            high = middle
        is_halving = high - low > before / 2
    return _number(low), best


def _between(low: int, high: int, known: Mapping[int, float], total: float) -> int:
    """Where a straight line through both ends, in logarithms, meets the budget; a little below, strictly between them."""
    rise = math.log(known[high] / known[low]) if known[low] > 0 else 0.0
    share = math.log(0.996 * total / known[low]) / rise if rise > 0 else 0.5
    at = math.log(_number(low)) + share * math.log(_number(high) / _number(low))
    return min(high - 1, max(low + 1, _index(math.exp(at))))


def _number(index: int) -> float:
    decade, digits = divmod(index, PER_DECADE)
    return float(f"{digits + 100}e{decade - 2}")


def _index(epsilon: float) -> int:
    """Of the largest number of three digits up to ε."""
    decade = math.floor(math.log10(epsilon) + 1e-12)
    digits = math.floor(epsilon / 10.0**decade * 100 + 1e-9)
    return decade * PER_DECADE + min(999, max(100, digits)) - 100


def _at(space: SpaceFile, epsilon: float, **sweep: Any) -> SpaceFile:
    """The space with another ε and other settings of its sweep, checked."""
    values = space.sweep.model_dump(mode="json") | {"epsilons": [epsilon], **sweep}
    return space.model_copy(update={"sweep": parse_config(SweepSettings, values, where="sweep")})


def compared(space: SpaceFile, accountant: Accountant, cache_dir: Path | None) -> tuple[BudgetSplit, ...]:
    """What the budget gives a model under each procedure. Empty without `total_epsilon`, or where q or the steps are searched.

    Args:
        space: after `divided`.
        accountant: prices.
        cache_dir: keeps calibrations.
    """
    total, settings = space.sweep.total_epsilon, space.sweep
    if total is None or space.searches_spending:
        return ()
    asked = settings.selection.mean_trials if settings.selection is not None else float(settings.trials_per_epsilon or 0)
    if not asked:
        return ()
    rows = [_row(space, total, one, accountant, cache_dir) for one in _procedures(space, asked)]
    fair = [row for row in rows if row.epsilon is not None and row.trials >= asked and (row.procedure != PROXY or row.is_own)]
    best = max(fair, key=lambda row: row.epsilon or 0.0, default=None)
    return tuple(replace(row, is_best=row is best) for row in rows)


@dataclass(frozen=True)
class _Procedure:
    """A procedure: what it is called, what the space would have to say, and the settings that say so."""

    name: str
    trials: float
    needs: str
    sweep: dict[str, Any]


def _procedures(space: SpaceFile, asked: float) -> list[_Procedure]:
    plain: dict[str, Any] = {"accounting": "composed", "selection": None, "stopper": "none", "stopping": None}
    numbers = list(dict.fromkeys(max(1, round(asked * share)) for share in FEWER))
    found = [
        _Procedure("composed", number, "accounting: composed", {**plain, "trials_per_epsilon": number})
        for number in (*numbers, 1)
        if number
    ]
    halving = {**plain, "stopper": "halving", "trials_per_epsilon": numbers[0]}
    found.append(_Procedure("composed, halving", numbers[0], "stopper: halving", halving))
    law = {"mean_trials": float(max(1.0, asked)), "shape": 1.0, "accountant": "profile"}
    drawn = {"accounting": "private_selection", "sampler": "random", "trials_per_epsilon": None, "selection": law, "method_shares": "free"}
    found.append(_Procedure("private selection", asked, "accounting: private_selection, sampler: random", {**plain, **drawn}))
    found.append(_Procedure(PROXY, numbers[0], "data.proxy, accounting: public_proxy", {**plain, "accounting": "public_proxy"}))
    return list({(one.name, one.trials): one for one in found}.values())


def _row(space: SpaceFile, total: float, one: _Procedure, accountant: Accountant, cache_dir: Path | None) -> BudgetSplit:
    is_selection = REGIMES.get(one.sweep["accounting"]).is_selection
    references = space.references
    if is_selection:
        references = parse_config(References, references.model_dump(mode="json") | {"seeds_of": "winner"})
    base = space.model_copy(update={"references": references})
    row = BudgetSplit(
        procedure=one.name,
        trials=one.trials,
        reruns=base.reruns_at(space.sweep.epsilons[0]),
        needs=one.needs,
        is_own=_is_own(space, one),
    )
    given = {"trials_per_epsilon": space.sweep.trials_per_epsilon or round(one.trials)} | one.sweep
    try:
        found = largest_epsilon(lambda epsilon: price_at(_at(base, epsilon, **given), accountant, cache_dir), total)
    except (BadInput, Refused) as error:
        return replace(row, why=str(error).splitlines()[0])
    if found is None:
        return replace(row, why=f"even trials of ε = {total / 10**DECADES_DOWN:g} cost more")
    spending = _spending(_at(base, found[0], **given), accountant, cache_dir)
    return replace(row, epsilon=found[0], price=found[1], noise_multiplier=None if spending is None else spending.noise_multiplier)


def _is_own(space: SpaceFile, one: _Procedure) -> bool:
    now = space.sweep
    trials = now.selection.mean_trials if now.selection is not None else now.trials_per_epsilon
    stopper = now.stopper if now.stopper == "halving" else "none"
    return (one.sweep["accounting"], one.sweep["stopper"], one.trials) == (now.accounting, stopper, trials)


def _spending(space: SpaceFile, accountant: Accountant, cache_dir: Path | None) -> Spending | None:
    found = spendings_at(space, space.sweep.epsilons[0], accountant, cache_dir)
    return found[0] if found else None
