"""Scores a model on a labelled dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcore.config import TrialConfig
from dpcore.config.losses import SIMCC, PckMassConfig
from dpcore.config.metrics import PCKH_50
from dpcore.config.networks import HEADS
from dpcore.config.registry import loaded
from dpcore.data.shards import ShardSet
from dpcore.data.truth import truth_of
from dpcore.errors import BadInput
from dpcore.model.network import codec_of
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.losses import Targets, loss_function
from dpcore.pose.metrics import METRICS, Scored, counts_of_people, score_of, why_not
from dpcore.pose.skeleton import MPII_16, Skeleton
from dpcore.privacy.per_example import Batch, Loss
from dpcore.privacy.randomness import Indices
from dpcore.train.reports import joint_metrics
from dpcore.train.sources import Examples

_ROWS_AT_ONCE = 256


def loss_of(
    codec: SimCCCodec, name: str = SIMCC, pck_mass: PckMassConfig | None = None, *, read: Callable[[Any], Any] | None = None
) -> Loss:
    """The training loss (B,) of a module on a batch, per example, by its name in `LOSSES`. `read`: what makes marginals or maps
    of the module's outputs, where they are neither.

    Raises:
        BadInput: there is no such loss, or it does not load.
    """
    function, settings = loss_function(name), pck_mass or PckMassConfig()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        _, keypoints, visible, head_px = batch.tensors
        targets = Targets(keypoints=keypoints, visible=visible, head_px=head_px, codec=codec, pck_mass=settings)
        outputs = module(batch.inputs)
        return function(outputs if read is None else read(outputs), targets)

    return loss


def training_loss(config: TrialConfig, skeleton: Skeleton = MPII_16) -> Loss:
    """The loss of a trial and of its public stages, for the joints of `skeleton`."""
    head = HEADS.get(config.model.head)
    read = None if head.for_loss is None else loaded(head.for_loss, what=f"head {head.name}")(config.model, skeleton)
    return loss_of(codec_of(config.model), config.loss, config.pck_mass, read=read)


def metrics_of(
    predicted: tuple[Tensor, Tensor], *, dataset: ShardSet, per_joint: bool, metric: str = PCKH_50, rows: Indices | None = None
) -> dict[str, float]:
    """The metrics of a report on PUBLIC validation data.

    Metrics that nobody asked for are left out where the data cannot give them.

    Args:
        predicted: keypoints (N, K, 2) px and confidences (N, K).
        dataset: the people.
        per_joint: also PCKh@0.5 of each joint that is visible somewhere.
        metric: the one that the sweep maximises.
        rows: (N,) of whom the predictions are; None: of all.

    Raises:
        BadInput: the data do not give `metric`, or another package's metric does not load, or gives no number.
    """
    scored = scored_of(predicted, dataset, rows)
    scores = {}
    for one in map(METRICS.get, METRICS.names()):
        if one.name == metric or not (one.asked_only or why_not(one, scored.truth)):
            scores[f"val/{one.name}"] = score_of(one, scored)
    found = {name: score for name, score in scores.items() if math.isfinite(score)}
    return found | (joint_metrics(scored.pckh) if per_joint else {})


def scored_of(predicted: tuple[Tensor, Tensor], dataset: ShardSet, rows: Indices | None = None) -> Scored:
    """The people of a dataset, or of its `rows` (N,), with keypoints (N, K, 2) px and confidences (N, K) of a model, in px of the crops as
    they are stored."""
    keypoints, confidence = (one.numpy() for one in predicted)
    which = np.arange(len(dataset)) if rows is None else rows
    while dataset.frame is not None:
        keypoints, dataset = dataset.frame.back(keypoints, which).astype(np.float32), dataset.stored
    return Scored(keypoints, truth_of(dataset, rows), confidence)


def unit_scores(
    predicted: tuple[Tensor, Tensor], *, dataset: ShardSet, units: NDArray[np.str_], metric: str = PCKH_50, rows: Indices | None = None
) -> NDArray[np.float64]:
    """The metric of each privacy unit, (U,) in [0, 1]: the mean over its examples. An example without any joint that counts has 0.

    Args:
        predicted: keypoints (N, K, 2) px and confidences (N, K).
        dataset: the people. units: (N,) ids of the examples' units.
        metric: a mean over people.
        rows: (N,) of whom the predictions are; None: of all.

    Raises:
        BadInput: the metric is no mean over people, so that one unit could move it by any amount.
    """
    counts = counts_of_people(METRICS.get(metric), scored_of(predicted, dataset, rows))
    if counts is None:
        raise BadInput(f"metric {metric} is no mean over people: one of them could move it by any amount; choose a PCK for private people")
    scores = counts[:, 0] / np.maximum(counts[:, 1], 1)
    _, unit = np.unique(units, return_inverse=True)
    means: NDArray[np.float64] = np.bincount(unit, weights=scores) / np.bincount(unit)
    return means


def mean_loss(tail: nn.Module, examples: Examples, *, indices: Indices, loss: Loss) -> float:
    """The mean training loss over `indices`, without augmentation."""
    tail.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            total += float(loss(tail, examples.batch(indices[start : start + _ROWS_AT_ONCE], None)).sum())
    return total / len(indices)
