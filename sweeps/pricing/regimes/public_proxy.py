"""Public proxy: trials read PUBLIC data alone, so choosing costs nothing; the final training is charged for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps.pricing.regimes.regime import Basis, Group, Pricing

if TYPE_CHECKING:
    from dpcore.privacy.composition import Charge


class PublicProxy(Pricing):
    """Charges nothing, and says that its scores are a rehearsal's."""

    def charges(self, basis: Basis, groups: Sequence[Group]) -> list[tuple[Charge, int]] | None:
        """Nothing."""
        return []

    def text(self, basis: Basis) -> str:
        """Why nothing is charged."""
        return "trials read PUBLIC data alone; the final training is charged for itself"

    def lines(self, basis: Basis, *, spent: str, trials: int) -> list[str]:
        """ε = 0, and what the scores are."""
        first = f"price of this sweep ({basis.accounting}): ε = 0: {self.text(basis)}"
        return [first, "scores and gains are a rehearsal's, on the proxy"]

    def caption(self, basis: Basis, *, epsilon: str, delta: float) -> str:
        """That every point is a rehearsal."""
        return "Choosing cost ε = 0: every point was trained and scored on PUBLIC data, at the noise of its ε relative to the batch."
