"""Composed: every trial's result may be released; the sweep costs all of them together."""

from sweeps.pricing.regimes.regime import Pricing


class Composed(Pricing):
    """All trials and reruns by PLD; behind an RDP filter where q or the steps are searched."""
