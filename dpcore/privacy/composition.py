"""What releases of different kinds cost together: fixed runs, runs behind an RDP filter, private selections.

Fixed runs (q, noise multiplier and steps of each fixed beforehand) compose by PLD, however adaptively they are chosen
otherwise. PLD says nothing of a filter, and of a selection only by way of a profile; else the whole is bounded by RDP:

* a *filter* (Feldman and Zrnic 2021, arXiv:2008.11193, Theorem 4.3) admits runs whose q, noise or steps were chosen on
  earlier results, as long as their RDP at one order stays within a budget; order and budget are fixed before the first run.
  What it guarantees is the budget: the sum so far depends on the results themselves and is no bound that can be promised.
* a *selection* (Papernot and Steinke 2022, arXiv:2110.03620) releases the best of a random number of equal runs. By the profile of one
  run (`dpcore.privacy.selection`) it has a privacy loss distribution, and composes with fixed runs by PLD.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import (
    SELECTION_ORDERS,
    Spending,
    check_delta,
    compose,
    epsilon_of,
    loss_of,
    refuse_replacement,
    remembered_price,
)
from dpcore.privacy.grid import FINAL_INTERVAL

if TYPE_CHECKING:
    from dp_accounting import dp_event
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

ORDERS = (*range(2, 64), 128, 256, 512)
"""Whole orders: exact for the subsampled Gaussian, where the series of fractional ones may fail to converge."""

TOLERANCE = 1e-9
"""Relative: of sums of the same RDP values in another order."""


SelectionAccountant = Literal["rdp", "profile"]


@dataclass(frozen=True)
class Selected:
    """The best of a random number of runs, each `spending`; `shape`: 1 geometric, 0 logarithmic, inf Poisson. `accountant`: which bound
    was promised. Each holds.

    Raises:
        BadInput: a mean below 1 or a negative shape.
        Refused: a claim of replacement, for which RDP has no bound.
    """

    spending: Spending
    mean_trials: float
    shape: float
    accountant: SelectionAccountant = "rdp"

    def __post_init__(self) -> None:
        refuse_replacement(self.spending, "private selection")
        if not (math.isfinite(self.mean_trials) and self.mean_trials >= 1.0):
            raise BadInput(f"mean_trials must be finite and at least 1, given {self.mean_trials}")
        if not self.shape >= 0.0:
            raise BadInput(f"shape must be 0 or more (1 geometric, 0 logarithmic, inf Poisson), given {self.shape}")

    def event(self) -> dp_event.DpEvent:
        """The same as a dp-accounting event."""
        from dp_accounting import dp_event

        return dp_event.RepeatAndSelectDpEvent(self.spending.event(), self.mean_trials, self.shape)


@dataclass(frozen=True)
class Filtered:
    """Everything that an RDP filter may let through: `rdp` at `order`.

    Raises:
        BadInput: an order that is not in ORDERS, a budget that is no finite number above 0.
    """

    order: int
    rdp: float

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise BadInput(f"the order of a filter must be one of {ORDERS[0]} to {ORDERS[-4]}, 128, 256 or 512, given {self.order}")
        if not (math.isfinite(self.rdp) and self.rdp > 0):
            raise BadInput(f"the budget of a filter must be finite and above 0, given {self.rdp}")

    def epsilon(self, delta: float) -> float:
        """The ε at `delta` that the filter guarantees."""
        return epsilon_at(self.order, self.rdp, delta)

    def admits(self, before: Iterable[Spending], run: Spending) -> bool:
        """Whether `run` still fits after the runs `before`."""
        spent = sum(rdp_of(one, self.order) for one in before)
        return spent + rdp_of(run, self.order) <= self.rdp * (1 + TOLERANCE)


@dataclass(frozen=True)
class AtOrder:
    """No charge: what stands beside it is bounded by RDP at `order`, which was fixed beforehand. So nothing else had to be."""

    order: int

    @property
    def rdp(self) -> float:
        """Of itself."""
        return 0.0


Charge = Spending | Selected | Filtered | AtOrder
Wanted = tuple[tuple[Charge, int], ...]


def price(charges: Iterable[tuple[Charge, int]], delta: float, *, cache_dir: Path | None = None) -> float:
    """ε at `delta` of everything together, each charge with how often it was made.

    | charges | bound |
    |---|---|
    | none | 0 |
    | fixed runs alone | PLD |
    | also selections, all by profile | PLD |
    | also selections, else | RDP at the best order, tenths included |
    | also filters, or an order | RDP at the smallest order: RDP grows with the order, so each budget holds there too |
    | one of those, and a claim of replacement | RDP of one removed and one added |

    Raises:
        BadInput: a negative count, or delta outside (0, 1).
        Refused: a run is priced for replacement beside a filter of an order below 4.
    """
    check_delta(delta)
    wanted = [(charge, count) for charge, count in charges if count]  # a planned run may happen no time at all
    if any(count < 0 for _, count in wanted):
        raise BadInput("a charge cannot have been made a negative number of times")
    runs = [(charge, count) for charge, count in wanted if isinstance(charge, Spending)]
    if len(runs) == len(wanted):
        return compose(runs, delta, cache_dir=cache_dir)
    order = _order_of(wanted)
    if any(run.relation == "replace" for run, _ in runs):
        return _price_of_pairs([(_by_removal(charge), count) for charge, count in wanted], delta, order)
    if _by_profile(wanted):
        return _remembered("profile", wanted, delta, cache_dir, _price_by_profile)
    if order is None:
        return _remembered("selections", wanted, delta, cache_dir, _price_by_rdp)
    return epsilon_at(order, rdp_at(wanted, order), delta)


def _remembered(
    what: str, wanted: Sequence[tuple[Charge, int]], delta: float, cache_dir: Path | None, bound: Callable[[Wanted, float], float]
) -> float:
    ordered = tuple(sorted(wanted, key=repr))
    return remembered_price(what, {"charges": repr(ordered), "delta": delta}, cache_dir, lambda: bound(ordered, delta))


def _price_by_rdp(wanted: Wanted, delta: float) -> float:
    """ε of runs and selections at the order that is best for the whole."""
    from dpcore.privacy.losses import composed_rdp_epsilon

    events = [(charge.event(), count) for charge, count in wanted if isinstance(charge, Spending | Selected)]
    return composed_rdp_epsilon(events, delta, orders=SELECTION_ORDERS)


def accountant_of(charges: Iterable[tuple[Charge, int]]) -> str:
    """Which accountant `price` takes, in words."""
    wanted = [(charge, count) for charge, count in charges if count]
    if all(isinstance(charge, Spending) for charge, _ in wanted) or _by_profile(wanted):
        return "PLD"
    order = _order_of(wanted)
    return "RDP" if order is None else f"RDP at order {order}, which a filter fixed beforehand"


def _by_profile(wanted: Sequence[tuple[Charge, int]]) -> bool:
    """Whether PLD prices all: runs that add or remove a unit, and selections that were promised by profile."""
    return all(
        charge.accountant == "profile" if isinstance(charge, Selected) else isinstance(charge, Spending) and charge.relation == "add_remove"
        for charge, _ in wanted
    )


@functools.lru_cache(maxsize=256)
def _price_by_profile(wanted: Wanted, delta: float) -> float:
    """ε by PLD of runs and selections together."""
    first, *others = (_loss_of(charge, count) for charge, count in wanted)
    return float(functools.reduce(lambda one, other: one.compose(other), others, first).get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=64)
def _loss_of(charge: Charge, count: int) -> PrivacyLossDistribution:
    if isinstance(charge, Selected):
        from dpcore.privacy.selection import loss_of_selection

        law = {"mean_trials": charge.mean_trials, "shape": charge.shape, "interval": FINAL_INTERVAL}
        return loss_of_selection(loss_of(charge.spending), **law).self_compose(count)
    if not isinstance(charge, Spending):
        raise TypeError(f"{charge} has no privacy loss distribution")
    return loss_of(replace(charge, steps=charge.steps * count))


def _by_removal(charge: Charge) -> Charge:
    """The same run as one that a unit is added to or removed from."""
    return replace(charge, relation="add_remove") if isinstance(charge, Spending) else charge


def _price_of_pairs(wanted: Sequence[tuple[Charge, int]], delta: float, order: int | None) -> float:
    """ε for a replaced unit, which is one removed and one added: RDP obeys a weak triangle inequality (Mironov 2017, Corollary 4),
    D_α(P‖R) ≤ (α − ½)/(α − 1) · D_2α(P‖Q) + D_2α−1(Q‖R). With a fixed order, α is half of it.

    Raises:
        Refused: a filter's order is below 4.
    """
    if order is not None and order < 4:
        raise Refused(f"a filter of order {order} beside a claim of replacement: no bound is known below order 4; use another ledger")
    halves = [one for one in ORDERS if one <= 128] if order is None else [order // 2]
    needed = sorted({*ORDERS, *(2 * one for one in halves), *(2 * one - 1 for one in halves)})
    sums = [0.0] * len(needed)
    for charge, count in wanted:
        own = [charge.rdp] * len(needed) if isinstance(charge, Filtered | AtOrder) else _rdp_of_event(charge.event(), tuple(needed))
        sums = [total + count * one for total, one in zip(sums, own, strict=True)]
    at = dict(zip(needed, sums, strict=True))
    return min(epsilon_at(a, (a - 0.5) / (a - 1) * at[2 * a] + at[2 * a - 1], delta) for a in halves)


def epsilon_of_charge(charge: Spending | Selected, delta: float, *, cache_dir: Path | None = None) -> float:
    """ε at `delta` of one line of a ledger by itself: a run by PLD, a selection by the accountant that promised it."""
    if isinstance(charge, Spending):
        return epsilon_of(charge, delta, cache_dir=cache_dir)
    return price([(charge, 1)], delta, cache_dir=cache_dir)


def open_filter(
    groups: Sequence[tuple[Sequence[Spending], int]],
    delta: float,
    *,
    cap: float | None = None,
    standing: Iterable[tuple[Charge, int]] = (),
) -> Filtered:
    """The filter that lets a plan through, with the order at which that costs least ε at `delta`; where a cap leaves no room
    for the whole plan, the filter that lets most of it through.

    Args:
        groups: the alternatives of a run, and how many such runs are planned; each is charged at its dearest alternative.
        delta: in (0, 1).
        cap: on ε of `standing` and the filter together.
        standing: what has been charged already.

    Raises:
        Refused: the cap leaves no room at any order.
    """
    there = list(standing)
    whole = [Filtered(order, math.fsum(n * max(rdp_of(run, order) for run in runs) for runs, n in groups)) for order in ORDERS]
    fitting = whole if cap is None else [one for one in whole if one.rdp <= _room(one.order, there, cap=cap, delta=delta)]
    if fitting or cap is None:
        return min(fitting, key=lambda one: one.epsilon(delta))
    best = max(whole, key=lambda one: _room(one.order, there, cap=cap, delta=delta) / one.rdp)
    room = _room(best.order, there, cap=cap, delta=delta)
    if room <= 0:
        raise Refused(
            f"sweep.epsilon_total {cap:g} leaves nothing for an RDP filter beside the {sum(count for _, count in there)} releases "
            f"that stand (at delta {delta:g} an order of {best.order} costs {_conversion_cost(best.order, delta):.3g} by itself); "
            "raise it, or fix the batch and the steps, so that PLD composes"
        )
    return Filtered(best.order, room)


def _room(order: int, standing: Sequence[tuple[Charge, int]], *, cap: float, delta: float) -> float:
    """The budget of a filter of `order` with which everything together costs `cap`."""
    common = min(order, _order_of(standing) or order)
    return cap - _conversion_cost(common, delta) - rdp_at(standing, common)


@functools.lru_cache(maxsize=4096)
def rdp_of(spending: Spending, order: int) -> float:
    """Rényi divergence of one run at `order`, ORDERS alone.

    Raises:
        Refused: a run priced for replacement.
    """
    refuse_replacement(spending, "an RDP filter")
    return float(_rdp_of_event(spending.event())[ORDERS.index(order)])


def rdp_at(charges: Iterable[tuple[Charge, int]], order: int) -> float:
    """The bound at `order` of everything together; an order above a filter's own is none of its business.

    Raises:
        BadInput: a filter's order is smaller than `order`.
    """
    total = []
    for charge, count in charges:
        if isinstance(charge, Filtered | AtOrder):
            if charge.order < order:
                raise BadInput(f"a filter of order {charge.order} bounds nothing at order {order}")
            total.append(count * charge.rdp)
        elif isinstance(charge, Selected):
            total.append(count * float(_rdp_of_event(charge.event())[ORDERS.index(order)]))
        else:
            total.append(count * rdp_of(charge, order))
    return math.fsum(total)


def epsilon_at(order: int, divergence: float, delta: float) -> float:
    """ε at `delta` of a Rényi divergence at one order (Canonne, Kamath, Steinke 2020, arXiv:2004.00010, Proposition 12)."""
    return max(0.0, divergence + _conversion_cost(order, delta))


def _conversion_cost(order: int, delta: float) -> float:
    if not 0.0 < delta < 1.0:
        raise BadInput(f"delta must lie in (0, 1), given {delta}")
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def _order_of(charges: Iterable[tuple[Charge, int]]) -> int | None:
    return min((charge.order for charge, _ in charges if isinstance(charge, Filtered | AtOrder)), default=None)


def rdp_of_all(charges: Sequence[tuple[Charge, int]], order: int, *, replaced: bool) -> float | None:
    """RDP of everything together at `order`, `replaced` for a unit that gives way to another; None where a filter's order is too small
    to say."""
    least = _order_of(charges)
    if least is not None and least < (2 * order if replaced else order):
        return None
    plain = [(_by_removal(charge), count) for charge, count in charges]
    if not replaced:
        return rdp_at(plain, order)
    orders = tuple(sorted({*ORDERS, 2 * order, 2 * order - 1}))
    total = 0.0
    for charge, count in plain:
        own = [charge.rdp] * len(orders) if isinstance(charge, Filtered | AtOrder) else _rdp_of_event(charge.event(), orders)
        upper, lower = own[orders.index(2 * order)], own[orders.index(2 * order - 1)]
        total += count * ((order - 0.5) / (order - 1) * upper + lower)
    return total


def filter_budget(order: int, epsilon: float, delta: float) -> float:
    """The RDP at `order` that ε at δ leaves room for; not above 0 where there is none."""
    return epsilon - _conversion_cost(order, delta)


def order_for(epsilon: float, delta: float) -> int:
    """The order at which Gaussians that use up ε at δ cost least: what a cap fixes before anything is spent."""
    log = math.log(1 / delta)
    best = 1 + math.sqrt(log) / (math.sqrt(log + epsilon) - math.sqrt(log))
    nearest: int = min(ORDERS, key=lambda one: abs(math.log(one / best)))
    return nearest


@functools.lru_cache(maxsize=1024)
def _rdp_of_event(event: dp_event.DpEvent, orders: tuple[int, ...] = ORDERS) -> tuple[float, ...]:
    from dp_accounting import rdp

    return tuple(float(value) for value in rdp.RdpAccountant(orders).compose(event).rdp)
