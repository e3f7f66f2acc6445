"""Private selection: the best of a secret number of independent trials per ε (Papernot and Steinke 2022, arXiv:2110.03620)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_spaces.space import MOST_MEAN_TRIALS, SelectionLaw
from sweeps.pricing.regimes.regime import Basis, Group, Pricing

if TYPE_CHECKING:
    from dpcore.privacy.composition import Charge


class PrivateSelection(Pricing):
    """One selection per ε and the winner's reruns."""

    def charges(self, basis: Basis, groups: Sequence[Group]) -> list[tuple[Charge, int]] | None:
        """None where trials spend unlike, RDP would have to bound a claim of replacement, or no law has so many trials."""
        from dpcore.privacy.composition import Selected

        found: list[tuple[Charge, int]] = []
        for group in groups:
            law = basis.law or default_law(group)
            if group.spending is None or group.spending.relation == "replace" or law is None:
                return None
            selected = Selected(group.spending, law.mean_trials, law.shape_number, law.accountant)
            found += [(selected, 1), (group.spending, group.reruns)]
        return found

    def text(self, basis: Basis) -> str:
        """The law of the number of trials."""
        if basis.law is None:
            return super().text(basis)
        return f"private selection {_by(basis.law)}: the best of a secret number of trials per ε, {basis.law.text()}"

    def compared(self, basis: Basis, groups: Sequence[Group], *, fits: bool) -> str:
        """Of a plan under another regime: with a law that has as many trials on average."""
        if not fits or basis.law is not None:
            return super().compared(basis, groups, fits=fits)
        laws = ", ".join(dict.fromkeys(law.text() for law in map(default_law, groups) if law is not None))
        return f"private selection by RDP: the best of a secret number of trials per ε, {laws} for example"

    def accountants(self, basis: Basis) -> str:
        """Of selections, and of all together."""
        by, of_all = (_by(basis.law), "PLD") if basis.law is not None and basis.law.accountant == "profile" else ("by RDP", "RDP")
        return f"accountants: spent ε of a winner is that of its whole selection, {by}; of a rerun by PLD; the price of all by {of_all}"

    def lines(self, basis: Basis, *, spent: str, trials: int) -> list[str]:
        """Without the number of trials, which is secret."""
        first = f"price of this sweep ({basis.accounting}): {spent}, reruns included ({self.text(basis)})"
        return [first, "how long the sweep took hints at the number of trials"]


def _by(law: SelectionLaw) -> str:
    return "by RDP" if law.accountant == "rdp" else "by privacy profiles"


def default_law(group: Group) -> SelectionLaw | None:
    """The law that a plan of another regime is compared with: geometric, with as many trials on average; None where no law has
    so many."""
    return SelectionLaw(mean_trials=max(1.0, group.trials), shape=1.0) if group.trials <= MOST_MEAN_TRIALS else None
