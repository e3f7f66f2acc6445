"""PCKh: the share of joints that lie within a fraction of the head size (Andriluka et al., CVPR 2014).

It counts like HRNet's MPII evaluation: distance ≤ threshold · head size, mean weighted by visible joints, without pelvis and
thorax. Counts are integers, so any order and any partition of the examples gives the same score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpcore.errors import BadInput
from dpcore.pose.skeleton import MPII_16, Skeleton

THRESHOLDS = (0.5, 0.1)
HEAD_BOX_FACTOR = 0.6
"""Head size = 0.6 · diagonal of the annotated head box, the MPII evaluation's SC_BIAS."""


@dataclass(frozen=True)
class PckhState:
    """Hit counts per threshold and joint: a monoid, `+` merges two disjoint sets of examples.

    Attributes:
        thresholds: fractions of the head size.
        hits: one tuple of K counts per threshold.
        counted: K numbers of visible joints.
        skeleton: names the K joints.
    """

    thresholds: tuple[float, ...]
    hits: tuple[tuple[int, ...], ...]
    counted: tuple[int, ...]
    skeleton: Skeleton = MPII_16

    @classmethod
    def empty(cls, thresholds: tuple[float, ...] = THRESHOLDS, skeleton: Skeleton = MPII_16) -> PckhState:
        """The neutral element: counts over no example."""
        none = (0,) * skeleton.count
        return cls(thresholds, (none,) * len(thresholds), none, skeleton)

    @classmethod
    def of(
        cls,
        predictions: ArrayLike,
        keypoints: ArrayLike,
        visible: ArrayLike,
        head_size_px: ArrayLike,
        thresholds: tuple[float, ...] = THRESHOLDS,
        *,
        skeleton: Skeleton = MPII_16,
    ) -> PckhState:
        """Counts over one set of examples.

        | input | effect |
        |---|---|
        | prediction NaN or infinite | a miss |
        | joint not visible | not counted; its coordinates may be NaN |
        | head size NaN or ≤ 0 | no joint of the example is counted, because there is no denominator |
        | no examples | the neutral element |

        Args:
            predictions: (N, K, 2) px.
            keypoints: (N, K, 2) px.
            visible: (N, K), bool or 0/1.
            head_size_px: (N,).
            thresholds: fractions of the head size, each > 0.
            skeleton: the K joints.

        Raises:
            BadInput: shapes do not agree, or a visible keypoint is not finite.
        """
        predicted, truth, shown, head = _as_arrays(predictions, keypoints, visible, head_size_px, joints=skeleton.count)
        counted = shown & (np.isfinite(head) & (head > 0))[:, None]
        if not np.isfinite(truth[counted]).all():
            row, joint = np.argwhere(counted & ~np.isfinite(truth).all(axis=-1))[0]
            raise BadInput(
                f"keypoints: example {row}, joint {skeleton.joints[joint]} is visible but not finite; mark it not visible or mend it"
            )
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            distance = np.linalg.norm(predicted - truth, axis=-1) / head[:, None]
        hits = tuple(_tally(counted & (distance <= threshold)) for threshold in thresholds)
        return cls(tuple(thresholds), hits, _tally(counted), skeleton)

    def __add__(self, other: PckhState) -> PckhState:
        if self.thresholds != other.thresholds:
            raise BadInput(f"PCKh states with thresholds {self.thresholds} and {other.thresholds} cannot be added")
        if self.skeleton.joints != other.skeleton.joints:
            raise BadInput(f"PCKh states of the skeletons {self.skeleton.name} and {other.skeleton.name} cannot be added")
        hits = tuple(_added(mine, theirs) for mine, theirs in zip(self.hits, other.hits, strict=True))
        return PckhState(self.thresholds, hits, _added(self.counted, other.counted), self.skeleton)

    def mean(self, threshold: float = 0.5) -> float:
        """Hits over visible joints, without the skeleton's unscored ones (MPII: pelvis and thorax), as a fraction.

        Raises:
            BadInput: the threshold was not counted, or no scored joint is visible.
        """
        scored = np.flatnonzero(self.skeleton.scored)
        total = sum(self.counted[joint] for joint in scored)
        if total == 0:
            raise BadInput("PCKh has no mean: no example has both a visible joint and a known head size")
        hits = self._hits_at(threshold)
        return sum(hits[joint] for joint in scored) / total

    def per_joint(self, threshold: float = 0.5) -> dict[str, float]:
        """Fraction per joint name; NaN where the joint is never visible."""
        return {
            name: hits / counted if counted else math.nan
            for name, hits, counted in zip(self.skeleton.joints, self._hits_at(threshold), self.counted, strict=True)
        }

    def groups(self, threshold: float = 0.5) -> dict[str, float]:
        """Fraction per group, the mean of its joints (left and right side); NaN if none of them is ever visible."""
        fractions = self.per_joint(threshold)
        groups = self.skeleton.groups.items()
        sides = {name: [fractions[joint] for joint in joints if not math.isnan(fractions[joint])] for name, joints in groups}
        return {name: sum(values) / len(values) if values else math.nan for name, values in sides.items()}

    def _hits_at(self, threshold: float) -> tuple[int, ...]:
        if threshold not in self.thresholds:
            raise BadInput(f"PCKh was counted at {self.thresholds}, not at {threshold}")
        return self.hits[self.thresholds.index(threshold)]


def person_counts(
    predictions: ArrayLike,
    keypoints: ArrayLike,
    visible: ArrayLike,
    head_size_px: ArrayLike,
    *,
    threshold: float = 0.5,
    skeleton: Skeleton = MPII_16,
) -> NDArray[np.int64]:
    """Of each example, how many joints are hits and how many count: (N, 2). Their sums give `PckhState.mean`.

    Joints count as in `PckhState.of`, without the skeleton's unscored ones. Any other size in place of the head's gives another PCK.
    """
    predicted, truth, shown, head = _as_arrays(predictions, keypoints, visible, head_size_px, joints=skeleton.count)
    counted = shown & (np.isfinite(head) & (head > 0))[:, None]
    counted[:, ~skeleton.scored] = False
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        distance = np.linalg.norm(predicted - truth, axis=-1) / head[:, None]
    return np.stack([(counted & (distance <= threshold)).sum(axis=1), counted.sum(axis=1)], axis=1)


def head_size_of_box(head_boxes: ArrayLike) -> NDArray[np.float64]:
    """PCKh denominators of head boxes: 0.6 · diagonal.

    Args:
        head_boxes: (N, 2, 2) px, the corners (x1, y1) and (x2, y2).

    Returns:
        (N,) px.
    """
    boxes = np.asarray(head_boxes, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[1:] != (2, 2):
        raise BadInput(f"head_boxes must have the shape (N, 2, 2), given {boxes.shape}")
    diagonal: NDArray[np.float64] = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=-1)
    return HEAD_BOX_FACTOR * diagonal


def _as_arrays(
    predictions: ArrayLike, keypoints: ArrayLike, visible: ArrayLike, head_size_px: ArrayLike, *, joints: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    predicted = np.asarray(predictions, dtype=np.float64)
    count = predicted.shape[0] if predicted.ndim else 0
    truth = np.asarray(keypoints, dtype=np.float64)
    shown = np.asarray(visible).astype(bool)
    head = np.asarray(head_size_px, dtype=np.float64)
    wanted = {"predictions": (count, joints, 2), "keypoints": (count, joints, 2), "visible": (count, joints), "head_size_px": (count,)}
    for (name, shape), array in zip(wanted.items(), (predicted, truth, shown, head), strict=True):
        if array.shape != shape:
            raise BadInput(f"{name} must have the shape {shape} ({count} predictions), given {array.shape}")
    return predicted, truth, shown, head


def _tally(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(count) for count in mask.sum(axis=0))


def _added(mine: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(mine, theirs, strict=True))
