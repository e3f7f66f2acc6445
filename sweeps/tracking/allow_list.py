"""Decides what may go to the tracker on protected data.

On protected data only functions of released states and of public data may leave. The list names what may pass. So a metric that is not
on the list stays inside.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping

from dpcore import errors
from dpcore.config.metrics import METRICS

PROTECTED_METRICS = frozenset(
    {
        *(f"val/{name}" for name in METRICS.own),
        "privacy/epsilon_spent",
        "privacy/noise_multiplier",
        "split/disclosure",
        "public/loss",
        "public/clipped_frac",
        "plan/duration_s",
        "best/epsilon_spent",
        "price/epsilon",
        *(f"{what}/{name}" for what in ("best", "seeds", "floor", "control") for name in METRICS.own),
    }
)
"""Scores on PUBLIC validation data, the budget, and numbers computed only from public data. `best/…`, `seeds/…`, `floor/…`, `control/…` and
`price/…` speak of an ε as a whole, and repeat what its trials told. The ceiling of protected people is sealed: it is not here."""

PROTECTED_PREFIXES = ("val/pckh_50/", "val/pckh_10/")
"""Scores per joint, at the end of a trial."""


OWN_WORDS = (
    "the worker died",
    "cancelled by",
    "the sweep key was lost",
    "not started",
    "the trial ended without a last report",
    *(f"val/{name} is no number" for name in METRICS.own),
)
"""Beginnings of the failure messages that the driver itself writes."""

WITHHELD = "withheld"


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


def allowed_error(error: str, *, protected: bool) -> str:
    """The part of a failure message that may leave. On protected data it is only the kind, because the message may quote a record.

    | given, on protected data | out |
    |---|---|
    | `ValueError: pixel 3 of ...`, a builtin's, Ray's or our own exception | `ValueError` |
    | a message of the driver | its beginning |
    | anything else | `withheld` |
    """
    if not protected:
        return error
    own = [words for words in OWN_WORDS if error.startswith(words)]
    kind = error.partition(":")[0].strip()
    return own[0] if own else kind if _is_exception(kind) else WITHHELD


def _is_exception(name: str) -> bool:
    module, _, plain = name.rpartition(".")
    if module == "ray.exceptions":
        return plain.isidentifier() and plain.endswith("Error")
    found = getattr(builtins, plain, None) or getattr(errors, plain, None)
    return module in ("", "builtins", "dpcore.errors") and isinstance(found, type) and issubclass(found, BaseException)
