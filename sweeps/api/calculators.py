"""Answers from files and numbers, without training or a sweep: the budget calculator, and PCKh of predictions from any program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack

from dpcore.config import Relation
from sweeps.pricing.budget import Budget, BudgetQuestion, answer_budget

if TYPE_CHECKING:
    from dpcore.privacy.accounting import AccountantName


class BudgetOptions(TypedDict, total=False):
    """What may be asked: see `sweeps.pricing.budget.BudgetQuestion`. None is the default, as if not given."""

    sampling_prob: Required[float]
    steps: Required[int]
    delta: Required[float]
    noise_multiplier: float | None
    target_epsilon: float | None
    accountant: AccountantName | Literal["profile"] | None
    composed: int | None
    mean_trials: float | None
    shape: float | None
    relation: Relation | None


def epsilon(**question: Unpack[BudgetOptions]) -> Budget:
    """ε of T Poisson-subsampled Gaussian steps, or the noise that a target ε needs; and the price of many such runs.

    Args:
        **question: `sampling_prob` q in (0, 1], `steps` T, `delta`; either `noise_multiplier` or `target_epsilon`; optionally
            `composed` (so many runs are released) or `mean_trials` and `shape` (the best of a random number is); `accountant`
            (pld or rdp; of a selection rdp or profile), `relation`.

    Returns:
        epsilon, delta, noise_multiplier, sweep_epsilon. With a target, epsilon never exceeds it.

    Raises:
        BadInput: a number is out of range, or too little or too much is given.
        Refused: RDP or private selection for a claim of replacement.

    >>> budget = epsilon(sampling_prob=0.01, steps=1000, delta=1e-5, noise_multiplier=5.0, accountant="rdp", composed=50)
    >>> round(budget.epsilon, 4), round(budget.sweep_epsilon, 4)
    (0.2344, 1.9393)
    >>> epsilon(sampling_prob=0.1, steps=20, delta=1e-4, target_epsilon=1.0).epsilon <= 1.0
    True
    >>> epsilon(sampling_prob=1.5, steps=20, delta=1e-4, target_epsilon=1.0)
    Traceback (most recent call last):
    ...
    dpcore.errors.BadInput: sampling_prob: expected a probability in (0, 1], given 1.5
    """
    given: dict[str, Any] = {name: value for name, value in question.items() if value is not None}
    return answer_budget(BudgetQuestion(**given))


def score(predictions: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """PCKh@0.5 and @0.1 in percent, as MPII counts it: mean without pelvis and thorax, per joint and per group.

    Args:
        predictions: an .npz file, or arrays by name: predictions and keypoints (N, 16, 2) px in MPII's joint order, NaN is no
            prediction; visible (N, 16); head_boxes (N, 2, 2) px, two opposite corners.

    Returns:
        mean, mean_at_01, per_joint, groups; NaN for a joint that is never visible.

    Raises:
        BadInput: the file is missing or no .npz, an array is missing or has another shape, or nothing can be scored.

    >>> import numpy as np
    >>> keypoints = np.tile(np.arange(16.0)[:, None], (3, 1, 2))
    >>> arrays = {"keypoints": keypoints, "visible": np.ones((3, 16)), "head_boxes": np.tile([[10.0, 10.0], [16.0, 18.0]], (3, 1, 1))}
    >>> found = score({**arrays, "predictions": keypoints + [2.9, 0.0]})  # a head of 6 px: a hit is within 3 px
    >>> found["mean"], found["mean_at_01"]
    (100.0, 0.0)
    """
    from sweeps.models.predictions import check_predictions, load_predictions, score_predictions

    loaded = check_predictions(predictions, "predictions") if isinstance(predictions, Mapping) else load_predictions(Path(predictions))
    return score_predictions(loaded)
