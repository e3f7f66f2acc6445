"""The scores of a report by name. A score is a function of predictions and labels on PUBLIC validation data. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpcore.config.registry import Table, loaded
from dpcore.errors import BadInput
from dpcore.pose.pckh import PckhState


@dataclass(frozen=True, eq=False)
class Scored:
    """A validation set with what a model predicted on it.

    Attributes:
        predictions, keypoints: (N, K, 2) px in the crop.
        visible: (N, K) bool.
        head_size_px: (N,); NaN where unknown.
        pckh: the counts behind PCKh.
    """

    predictions: NDArray[np.floating]
    keypoints: NDArray[np.floating]
    visible: NDArray[np.bool_]
    head_size_px: NDArray[np.floating]
    pckh: PckhState


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score.

    Attributes:
        name: it is reported as `val/NAME`.
        score: `module:name` of a function from a `Scored` to a number, or the function. What is no finite number is left out.
    """

    name: str
    score: str | Callable[[Scored], float]


METRICS = Table(
    "metric",
    Metric,
    (
        Metric(name="pckh_50", score=lambda scored: scored.pckh.mean(0.5)),
        Metric(name="pckh_10", score=lambda scored: scored.pckh.mean(0.1)),
    ),
)


def score_of(metric: Metric, scored: Scored) -> float:
    """The number of a metric.

    Raises:
        BadInput: its function does not load, or gives something else.
    """
    value = loaded(metric.score, what=f"metric {metric.name}")(scored)
    if not isinstance(value, (int, float, np.floating)):
        raise BadInput(f"metric {metric.name}: expected a number, it gave {value!r}")
    return float(value)
