"""What may leave for the tracker: the door of PRIVACY for data that is protected.

On protected data only functions of released states and of public data go out. The list says what may pass, not what
may not: a metric that nobody thought about stays inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

PROTECTED_METRICS = frozenset(
    {
        "val/pckh_50",
        "val/pckh_10",
        "privacy/epsilon_spent",
        "privacy/noise_multiplier",
        "split/disclosure",
        "public/loss",
        "public/clipped_frac",
        "plan/duration_s",
    }
)
"""Scores on PUBLIC validation data, the budget, and what is computed from public data alone."""

PROTECTED_PREFIXES = ("val/pckh_50/", "val/pckh_10/")
"""Scores per joint, at the end of a trial."""


def allowed_metrics(metrics: Mapping[str, float], *, protected: bool) -> dict[str, float]:
    """The metrics that may leave.

    | given | out |
    |---|---|
    | not protected | every finite metric |
    | protected | finite metrics on the list |
    | NaN, ∞ | never: MLflow would store ∞ as 1.8e308; an infinite ε is a tag |
    """
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value) and (not protected or is_allowed(name))}


def is_allowed(name: str) -> bool:
    """Whether a metric may leave on protected data."""
    return name in PROTECTED_METRICS or name.startswith(PROTECTED_PREFIXES)
