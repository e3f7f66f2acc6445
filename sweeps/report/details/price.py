"""What choosing cost, in the words of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search_spaces.regimes import REGIMES, Regime
from sweeps.pricing.regimes import NO_GUARANTEE, Basis, Pricing, pricing_of
from sweeps.report.text import number

STAND_IN = "stand-in data: ε as it would be"
SEALED = "a ceiling without privacy was run and sealed: no table, log or tracker has its score, and it costs nothing while it stays sealed"
UNSEALED = "the sealed ceiling was shown: a release without privacy, so the ε of this sweep and of its dataset is ∞"


@dataclass(frozen=True, kw_only=True)
class SweepPrice:
    """What choosing cost.

    Attributes:
        basis: The regime, with its filter or the law of its selection.
        composed_epsilon: ε of everything that the sweep reserved, at `delta`.
        private_trials: How many private trials are shown.
        protected: Whether the private data belongs to real people.
        validation: One sentence about the validation data and its price.
        sealed: Whether a ceiling without privacy was run and sealed.
        warm_start: For a warm start, a sentence about what the price does not include.
        epsilon_total: The sweep's own cap.
    """

    basis: Basis
    composed_epsilon: float
    private_trials: int
    delta: float
    protected: bool
    validation: str
    sealed: bool = False
    warm_start: str | None = None
    epsilon_total: float | None = None

    @property
    def regime(self) -> Regime:
        """How the sweep is accounted for."""
        return REGIMES.get(self.basis.accounting)

    @property
    def pricing(self) -> Pricing:
        """What the regime says."""
        return pricing_of(self.basis.accounting)

    def lines(self) -> list[str]:
        """The price in words."""
        spent = f"ε = {number(self.composed_epsilon)} at δ = {self.delta:.3g}"
        first, *beside = self.pricing.lines(self.basis, spent=spent, trials=self.private_trials)
        begun = [] if self.warm_start is None else [self.warm_start]
        if not self.regime.reads_private:
            return [first, *begun, *beside]
        promised = [] if self.basis.promise is None else [f"counted {self.basis.promise.text()}"]
        capped = [] if self.epsilon_total is None else [self.pricing.cap(self.basis, self.epsilon_total, self.delta)]
        lines = [first, *promised, self.pricing.accountants(self.basis), *capped, *beside, *begun, self.validation]
        if math.isinf(self.composed_epsilon):
            lines.append(UNSEALED)
        elif self.sealed:
            lines.append(SEALED)
        return lines if self.protected else [*lines, STAND_IN]

    def short(self) -> str:
        """The price for the middle of a sentence."""
        warning = self.pricing.warning
        return f"ε = {number(self.composed_epsilon)} ({self.basis.accounting})" if warning is None else warning

    def total(self, trial_epsilon: float) -> str:
        """ε of the whole procedure that ends in one model, after "at". `trial_epsilon`: of one training."""
        at = f"at δ = {self.delta:.3g}"
        if not self.regime.is_promise or math.isinf(self.composed_epsilon):
            return f"{self.pricing.warning or NO_GUARANTEE} (all runs together: ε = {number(self.composed_epsilon)} {at})"
        if not self.regime.reads_private:
            return f"ε = {number(trial_epsilon)} in all {at} (a rehearsal: choosing reads PUBLIC data alone, the final training is charged)"
        return f"ε = {number(self.composed_epsilon)} in all {at} (choosing and fresh seeds included)"

    def caption(self) -> str:
        """The caption that every curve over ε must have."""
        text = self.pricing.caption(self.basis, epsilon=number(self.composed_epsilon, 2), delta=self.delta)
        if not (self.regime.reads_private and self.regime.is_promise):
            return text
        text = text if self.warm_start is None else f"{text} {self.warm_start[0].upper()}{self.warm_start[1:]}."
        return text if self.protected else f"{text} {STAND_IN.capitalize()}."
