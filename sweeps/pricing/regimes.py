"""The four ways to account for a sweep: what each charges, and in which words.

| regime | what leaves | what is charged |
|---|---|---|
| composed | every trial | all trials by PLD; behind an RDP filter where q or the steps are searched |
| public_proxy | every trial, none of which read private data | nothing; the final training by itself |
| private_selection | the best of a secret number of trials per ε | one selection per ε, the winner's reruns; RDP |
| unaccounted | every trial | the same as composed, and nobody is promised anything |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

from search_spaces.space import MOST_MEAN_TRIALS, Accounting, SelectionLaw

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Charge, Filtered
    from sweeps.ledger.room import Compose
    from sweeps.records.spec import SweepSpec

REGIMES: tuple[Accounting, ...] = get_args(Accounting)
NO_GUARANTEE = "no end-to-end guarantee"


class Group(Protocol):
    """What a regime must know of the trials of one ε."""

    @property
    def epsilon(self) -> float:
        """The target of each trial."""

    @property
    def trials(self) -> float:
        """How many the search has; under private_selection the mean."""

    @property
    def reruns(self) -> int:
        """Of the winner."""

    @property
    def spending(self) -> Spending | None:
        """Of each; None where q or the steps are searched."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a price rests on, beside the number.

    Attributes:
        accounting: the regime.
        filter: of a sweep that searches q or the steps.
        law: of a private selection.
    """

    accounting: Accounting
    filter: Filtered | None = None
    law: SelectionLaw | None = None

    def text(self) -> str:
        """The accountant, named."""
        if self.accounting == "public_proxy":
            return "trials read PUBLIC data alone; the final training is charged for itself"
        if self.accounting == "private_selection" and self.law is not None:
            return f"private selection by RDP: the best of a secret number of trials per ε, {self.law.text()}"
        if self.filter is not None:
            return f"RDP filter at order {self.filter.order}: its budget, fixed before the first trial"
        return "composition of all its trials by PLD"


def basis_of(spec: SweepSpec) -> Basis:
    """The basis of a sweep that has begun."""
    opened = None if spec.privacy_filter is None else spec.privacy_filter.charge()
    return Basis(accounting=spec.space.sweep.accounting, filter=opened, law=spec.space.sweep.selection)


def headline(basis: Basis, *, delta: float, epsilon: float | None) -> str:
    """One line on what a sweep as a whole guarantees; `epsilon` is what its regime (`unaccounted`: composed) costs."""
    shown = "not known" if epsilon is None else f"{epsilon:.3g}"
    if basis.accounting == "unaccounted":
        composed = Basis(accounting="composed", filter=basis.filter).text()
        return f"{NO_GUARANTEE} (accounting unaccounted; composed would be epsilon {shown} at delta {delta:g}, {composed})"
    return f"sweep epsilon {shown} at delta {delta:g} ({basis.text()})"


@dataclass(frozen=True, kw_only=True)
class RegimePrice:
    """What a plan costs under a regime. `epsilon`: None where the regime promises nothing or does not fit the space."""

    accounting: Accounting
    epsilon: float | None
    basis: str


def charges_under(basis: Basis, groups: Sequence[Group]) -> list[tuple[Charge, int]] | None:
    """What the planned trials charge under a regime; None where it cannot price them: q or the steps are searched, RDP would
    have to bound a claim of replacement, or a selection would have more trials than any law."""
    from dpcore.privacy.composition import Selected

    if basis.accounting == "public_proxy":
        return []
    if basis.accounting != "private_selection" and basis.filter is not None:
        return [(basis.filter, 1)]
    found: list[tuple[Charge, int]] = []
    for group in groups:
        if group.spending is None or (basis.accounting == "private_selection" and group.spending.relation == "replace"):
            return None
        if basis.accounting == "private_selection":
            law = basis.law or default_law(group)
            if law is None:
                return None
            found += [(Selected(group.spending, law.mean_trials, law.shape_number), 1), (group.spending, group.reruns)]
        else:
            found.append((group.spending, round(group.trials) + group.reruns))
    return found


def default_law(group: Group) -> SelectionLaw | None:
    """The law that a plan of another regime is compared with: geometric, with as many trials on average; None where no law has
    so many."""
    return SelectionLaw(mean_trials=max(1.0, group.trials), shape=1.0) if group.trials <= MOST_MEAN_TRIALS else None


def regime_prices(basis: Basis, groups: Sequence[Group], *, delta: float, compose: Compose) -> tuple[RegimePrice, ...]:
    """The price of the same plan under each regime, in the order of REGIMES."""
    found = []
    for accounting in REGIMES:
        one = Basis(accounting=accounting, filter=basis.filter, law=basis.law)
        charges = charges_under(one, groups)
        epsilon = None if charges is None or accounting == "unaccounted" else compose(charges, delta) if charges else 0.0
        found.append(RegimePrice(accounting=accounting, epsilon=epsilon, basis=_explained(one, groups, fits=charges is not None)))
    return tuple(found)


def _explained(basis: Basis, groups: Sequence[Group], *, fits: bool) -> str:
    if basis.accounting == "unaccounted":
        return f"{NO_GUARANTEE}: hides what composed costs"
    if not fits:
        return f"needs q and the steps fixed, relation add_remove, and at most {MOST_MEAN_TRIALS} trials per ε on average"
    if basis.accounting == "private_selection" and basis.law is None:
        laws = ", ".join(dict.fromkeys(law.text() for law in map(default_law, groups) if law is not None))
        return f"private selection by RDP: the best of a secret number of trials per ε, {laws} for example"
    return basis.text()
