"""The scores of a report by name. A score is a function of predictions and labels. Torch-free.

Every PCK is the share of labelled joints within a fraction of some size of the person: the head, the box, the torso.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpcore.config.metrics import METRICS, Metric
from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from dpcore.pose.pckh import PckhState, person_counts
from dpcore.pose.skeleton import Skeleton

__all__ = ["METRICS", "Metric", "Scored", "Truth", "counts_of_people", "score_of", "why_not"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known of N labelled people; a metric needs some of it.

    Attributes:
        skeleton: names the K joints.
        keypoints: (N, K, 2) px in the crop. visible: (N, K) bool.
        head_size_px: (N,) in the crop; NaN where unknown.
        box_side_px: (N,) longer side of the person's box, in px of the crop; NaN where unknown.
        areas_px2: (N,) the person's area in the image; NaN where unknown.
        image_ids: (N,) which image each person is on.
        places: (N, 3) centre x and y of each crop in its image in px, and crop px per image px; NaN where unknown.
        middle_px: x and y of the crops' centre.
    """

    skeleton: Skeleton
    keypoints: NDArray[np.floating]
    visible: NDArray[np.bool_]
    head_size_px: NDArray[np.floating]
    box_side_px: NDArray[np.floating]
    areas_px2: NDArray[np.floating]
    image_ids: NDArray[np.str_]
    places: NDArray[np.floating]
    middle_px: tuple[float, float]

    @property
    def torso_px(self) -> NDArray[np.float64]:
        """(N,) length of the skeleton's torso; NaN where an end of it is not labelled."""
        if self.skeleton.torso is None:
            return np.full(len(self.keypoints), np.nan)
        first, second = (self.skeleton.index[joint] for joint in self.skeleton.torso)
        length = np.linalg.norm(self.keypoints[:, first].astype(np.float64) - self.keypoints[:, second], axis=-1)
        return np.where(self.visible[:, first] & self.visible[:, second], length, np.nan)

    def in_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, K, 2) px of the crops in px of their images; NaN where a crop's place is unknown."""
        return np.asarray((points.astype(np.float64) - self.middle_px) / self.places[:, None, 2:] + self.places[:, None, :2])


@dataclass(frozen=True, eq=False)
class Scored:
    """Labelled people with what a model predicted on them.

    Attributes:
        predictions: (N, K, 2) px in the crop.
        truth: the labels.
        confidence: (N, K) in 0 … 1, how sure the model is of each joint.
    """

    predictions: NDArray[np.floating]
    truth: Truth
    confidence: NDArray[np.floating]

    @property
    def keypoints(self) -> NDArray[np.floating]:
        """(N, K, 2) px in the crop: the labels."""
        return self.truth.keypoints

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N, K) bool: which joints are labelled."""
        return self.truth.visible

    @property
    def head_size_px(self) -> NDArray[np.floating]:
        """(N,); NaN where unknown."""
        return self.truth.head_size_px

    @cached_property
    def pckh(self) -> PckhState:
        """The counts behind PCKh."""
        facts = (self.predictions, self.keypoints, self.visible, self.head_size_px)
        return PckhState.of(*facts, skeleton=self.truth.skeleton)

    def people(self, size_px: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
        """(N, 2): of each person the joints within `threshold` of a size (N,), and those that count."""
        facts = (self.predictions, self.keypoints, self.visible, size_px)
        return person_counts(*facts, threshold=threshold, skeleton=self.truth.skeleton)


def score_of(metric: Metric, scored: Scored) -> float:
    """The number of a metric.

    Raises:
        BadInput: its function does not load, gives something else, or these people give no score.
    """
    value = loaded(metric.score, what=f"metric {metric.name}")(scored)
    if not isinstance(value, (int, float, np.floating)):
        raise BadInput(f"metric {metric.name}: expected a number, it gave {value!r}")
    return float(value)


def why_not(metric: Metric, truth: Truth) -> str | None:
    """Why these people give no score of a metric, and what to do; None where they do."""
    if metric.why_not is None:
        return None
    reason: str | None = loaded(metric.why_not, what=f"metric {metric.name}")(truth)
    return reason


def counts_of_people(metric: Metric, scored: Scored) -> NDArray[np.int64] | None:
    """(N, 2) hits and countable joints of each person; None where the metric is no mean over people."""
    if metric.people is None:
        return None
    counts: NDArray[np.int64] = np.asarray(loaded(metric.people, what=f"metric {metric.name}")(scored))
    return counts


def pckh_50(scored: Scored) -> float:
    """PCKh@0.5."""
    return scored.pckh.mean(0.5)


def pckh_10(scored: Scored) -> float:
    """PCKh@0.1."""
    return scored.pckh.mean(0.1)


def people_pckh_50(scored: Scored) -> NDArray[np.int64]:
    """PCKh@0.5 by person."""
    return scored.people(scored.head_size_px, 0.5)


def people_pckh_10(scored: Scored) -> NDArray[np.int64]:
    """PCKh@0.1 by person."""
    return scored.people(scored.head_size_px, 0.1)


def people_pck_bbox_20(scored: Scored) -> NDArray[np.int64]:
    """PCK@0.2 of the box's longer side, by person (Yang and Ramanan, TPAMI 2013)."""
    return scored.people(scored.truth.box_side_px, 0.2)


def people_pck_torso_20(scored: Scored) -> NDArray[np.int64]:
    """PCK@0.2 of the torso, by person (Sapp and Taskar, CVPR 2013)."""
    return scored.people(scored.truth.torso_px, 0.2)


def pck_bbox_20(scored: Scored) -> float:
    """PCK@0.2 of the longer side of the person's box, as a fraction."""
    return _mean(people_pck_bbox_20(scored), why_no_pck_bbox(scored.truth))


def pck_torso_20(scored: Scored) -> float:
    """PCK@0.2 of the torso, as a fraction."""
    return _mean(people_pck_torso_20(scored), why_no_pck_torso(scored.truth))


def why_no_pckh(truth: Truth) -> str | None:
    """Why no PCKh can be computed."""
    missing = (
        "no head size is known, and PCKh divides by it; import it with head_size in its records or with --head-boxes, give other data, or "
        "another metric such as pck_bbox_20"
    )
    return _why_no_pck(truth, truth.head_size_px, missing=missing, named="PCKh", size="the head size")


def why_no_pck_bbox(truth: Truth) -> str | None:
    """Why no PCK by box can be computed."""
    missing = "no person's box is known, and PCK by box divides by it; import the data again with this version, or give another metric"
    return _why_no_pck(truth, truth.box_side_px, missing=missing, named="PCK", size="the box")


def why_no_pck_torso(truth: Truth) -> str | None:
    """Why no PCK by torso can be computed."""
    if truth.skeleton.torso is None:
        return f"the skeleton {truth.skeleton.name} names no torso, and PCK by torso divides by it; give another metric"
    missing = f"nobody has both {' and '.join(truth.skeleton.torso)} labelled, and PCK by torso divides by their distance; give other data"
    return _why_no_pck(truth, truth.torso_px, missing=missing, named="PCK", size="the torso")


def _why_no_pck(truth: Truth, sizes: NDArray[np.floating], *, missing: str, named: str, size: str) -> str | None:
    known = np.isfinite(sizes) & (sizes > 0)
    if not known.any():
        return missing
    if not truth.visible[known][:, truth.skeleton.scored].any():
        return f"no joint that {named} counts is labelled where {size} is known; give other data"
    return None


def _mean(counts: NDArray[np.int64], reason: str | None) -> float:
    hits, counted = (int(total) for total in counts.sum(axis=0))
    if counted == 0:
        raise BadInput(f"there is no score: {reason}")
    return hits / counted
