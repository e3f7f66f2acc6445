"""Unaccounted: what papers do. Charged like composed in the ledger, while the sweep as a whole promises nothing."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.pricing.regimes.composed import Composed
from sweeps.pricing.regimes.regime import NO_GUARANTEE, Basis, Group


class Unaccounted(Composed):
    """Says what composed would have cost."""

    warning = NO_GUARANTEE

    def compared(self, basis: Basis, groups: Sequence[Group], *, fits: bool) -> str:
        """What it hides."""
        return f"{NO_GUARANTEE}: hides what composed costs"

    def headline(self, basis: Basis, *, delta: float, epsilon: str) -> str:
        """No guarantee, and the price of composed beside it."""
        return f"{NO_GUARANTEE} (accounting {basis.accounting}; composed would be epsilon {epsilon} at delta {delta:g}, {self.text(basis)})"

    def lines(self, basis: Basis, *, spent: str, trials: int) -> list[str]:
        """The same for a report."""
        composed = f"{spent} for {trials} private trials ({self.text(basis)})"
        return [f"price of this sweep ({basis.accounting}): {NO_GUARANTEE}; composed would have cost {composed}"]

    def caption(self, basis: Basis, *, epsilon: str, delta: float) -> str:
        """No number at all."""
        return f"{NO_GUARANTEE}: settings were chosen on private results that nobody paid for"
