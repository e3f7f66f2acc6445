"""What is common to all ways to account for a sweep, and the comparison of their prices.

| regime | what leaves | what is charged |
|---|---|---|
| composed | every trial | all trials by PLD; behind an RDP filter where q or the steps are searched |
| public_proxy | every trial, none of which read private data | nothing; the final training by itself |
| private_selection | the best of a secret number of trials per ε | one selection per ε, the winner's reruns; RDP or PLD |
| unaccounted | every trial | the same as composed, and nobody is promised anything |

Whatever a regime says, the ledger holds the composition of all that was reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from search_spaces.regimes import REGIMES
from search_spaces.space import MOST_MEAN_TRIALS, SelectionLaw
from sweeps.pricing.regimes.promise import Promise, promise_of

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Charge, Filtered
    from sweeps.ledger.room import Compose
    from sweeps.records.spec import SweepSpec

NO_GUARANTEE = "no end-to-end guarantee"


class Group(Protocol):
    """What a regime must know of the trials of one ε."""

    @property
    def epsilon(self) -> float:
        """The target of each trial."""

    @property
    def trials(self) -> float:
        """How many the search has; of a selection the mean."""

    @property
    def reruns(self) -> int:
        """Of the winner."""

    @property
    def spending(self) -> Spending | None:
        """Of each; None where q or the steps are searched."""

    @property
    def searching(self) -> tuple[Spending, int] | None:
        """Of the search, and how often; None where `spending` is."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a price rests on, beside the number.

    Attributes:
        accounting: the regime's name.
        filter: of a sweep that searches q or the steps.
        law: of a private selection.
        promise: to whom the price is a promise.
        is_extended: whether trials were added after results were seen.
    """

    accounting: str
    filter: Filtered | None = None
    law: SelectionLaw | None = None
    promise: Promise | None = None
    is_extended: bool = False

    def text(self) -> str:
        """The accountant, named."""
        return pricing_of(self.accounting).text(self)


class Pricing:
    """What a regime charges and says: that of `composed`, which others change where they differ. No state.

    Attributes:
        warning: stands on top of every report; None: nothing to warn of.
    """

    warning: str | None = None

    def charges(self, basis: Basis, groups: Sequence[Group]) -> list[tuple[Charge, int]] | None:
        """What the planned trials charge, each with how often. None where the regime cannot price them."""
        if basis.filter is not None:
            return [(basis.filter, 1)]
        found: list[tuple[Charge, int]] = []
        for group in groups:
            if group.spending is None or group.searching is None:
                return None
            spending, count = group.searching
            found += [(spending, count + group.reruns)] if spending == group.spending else [group.searching, (group.spending, group.reruns)]
        return found

    def text(self, basis: Basis) -> str:
        """The accountant, named."""
        if basis.filter is not None:
            return f"RDP filter at order {basis.filter.order}: its budget, fixed before the first trial"
        if basis.is_extended:
            return "composition of all its trials by PLD, as if all had been fixed beforehand: some were added on earlier results"
        return "composition of all its trials by PLD"

    def compared(self, basis: Basis, groups: Sequence[Group], *, fits: bool) -> str:
        """What the price rests on, in the plan's table of regimes. `fits`: whether the regime can price the plan."""
        if not fits:
            return f"needs q and the steps fixed, relation add_remove, and at most {MOST_MEAN_TRIALS} trials per ε on average"
        return self.text(basis)

    def headline(self, basis: Basis, *, delta: float, epsilon: str) -> str:
        """One line on what the sweep as a whole guarantees."""
        return f"sweep epsilon {epsilon} at delta {delta:g} ({self.text(basis)})"

    def lines(self, basis: Basis, *, spent: str, trials: int) -> list[str]:
        """The price in a report: its first line, then what must be known beside it.

        Args:
            basis: of the sweep.
            spent: ε and δ of all that was reserved.
            trials: how many private trials are shown.
        """
        return [f"{_where(basis)}: {spent} for {trials} private trials ({self.text(basis)})"]

    def accountants(self, basis: Basis) -> str:
        """Which accountant each figure of a report comes from."""
        if basis.filter is not None:
            return (
                f"accountants: spent ε of one trial by PLD; the price is the budget of an RDP filter (order {basis.filter.order}), because "
                "q or the steps of a trial may follow from earlier results"
            )
        if basis.is_extended:
            return (
                "accountants: spent ε of one trial by PLD; the price by PLD too, as if all trials had been fixed beforehand, though some "
                "were added on earlier results. A cap over them is held by an RDP filter"
            )
        return "accountants: spent ε of one trial by PLD; the price by PLD too, because q, noise and steps were fixed beforehand"

    def cap(self, basis: Basis, cap: float, delta: float) -> str:
        """How `epsilon_total` is held."""
        if basis.filter is not None:
            return (
                f"cap: epsilon_total {cap:g}, held by the RDP filter of this sweep (order {basis.filter.order}), whose budget is cut to it"
            )
        from dpcore.privacy.composition import order_for

        if basis.is_extended:
            return f"cap: epsilon_total {cap:g}, held by an RDP filter (order {order_for(cap, delta)}), as the sweep was extended"
        alone = "RDP" if basis.law is not None and basis.law.accountant == "rdp" else "PLD"
        return (
            f"cap: epsilon_total {cap:g}, held by {alone} while this sweep is alone in its ledger, and by an RDP filter (order "
            f"{order_for(cap, delta)}) beside other sweeps"
        )

    def caption(self, basis: Basis, *, epsilon: str, delta: float) -> str:
        """What must stand under a curve over ε."""
        counted = "" if basis.promise is None else f", {basis.promise.counted}"
        where = f"δ = {delta:.3g}, {basis.accounting}{counted}"
        return f"Choosing cost ε = {epsilon} ({where}): a model here is that private together with its settings."


def _where(basis: Basis) -> str:
    return f"price of this sweep ({basis.accounting})"


def pricing_of(accounting: str) -> Pricing:
    """The pricing of a regime.

    Raises:
        BadInput: there is no such regime, or its pricing does not load.
    """
    pricing = loaded(REGIMES.get(accounting).pricing, what=f"the pricing of regime {accounting}")
    found = pricing() if isinstance(pricing, type) else pricing
    if not isinstance(found, Pricing):
        raise BadInput(f"regime {accounting}: its pricing must be a sweeps.pricing.regimes.Pricing, it is {found!r}")
    return found


def basis_of(spec: SweepSpec) -> Basis:
    """The basis of a sweep that has begun."""
    opened = None if spec.privacy_filter is None else spec.privacy_filter.charge()
    return Basis(
        accounting=spec.space.sweep.accounting,
        filter=opened,
        law=spec.space.sweep.selection,
        promise=promise_of(spec.space),
        is_extended=spec.is_extended,
    )


def headline(basis: Basis, *, delta: float, epsilon: float | None) -> str:
    """One line on what a sweep as a whole guarantees, and to whom; `epsilon` is what its regime (one that promises nothing: composed)
    costs."""
    shown = "not known" if epsilon is None else f"{epsilon:.3g}"
    said = pricing_of(basis.accounting).headline(basis, delta=delta, epsilon=shown)
    reads = basis.promise is not None and REGIMES.get(basis.accounting).reads_private
    return f"{said}, {basis.promise.text()}" if reads and basis.promise is not None else said


@dataclass(frozen=True, kw_only=True)
class RegimePrice:
    """What a plan costs under a regime. `epsilon`: None where the regime promises nothing or does not fit the space."""

    accounting: str
    epsilon: float | None
    basis: str


def charges_under(basis: Basis, groups: Sequence[Group]) -> list[tuple[Charge, int]] | None:
    """What the planned trials charge under a regime; None where it cannot price them: q or the steps are searched, RDP would
    have to bound a claim of replacement, or a selection would have more trials than any law."""
    return pricing_of(basis.accounting).charges(basis, groups)


def regime_prices(basis: Basis, groups: Sequence[Group], *, delta: float, compose: Compose) -> tuple[RegimePrice, ...]:
    """The price of the same plan under each of dpsweep's regimes, and under the sweep's own."""
    found = []
    for accounting in dict.fromkeys((*REGIMES.own, basis.accounting)):
        one = replace(basis, accounting=accounting)
        pricing = pricing_of(accounting)
        charges = pricing.charges(one, groups)
        is_known = charges is not None and REGIMES.get(accounting).is_promise
        epsilon = compose(charges, delta) if charges and is_known else 0.0 if is_known else None
        found.append(RegimePrice(accounting=accounting, epsilon=epsilon, basis=pricing.compared(one, groups, fits=charges is not None)))
    return tuple(found)
