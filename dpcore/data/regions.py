"""Computes which pixels of a crop a split hides. The masks come from keypoints and head size, which are labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.pose.skeleton import Skeleton

Region = Literal["all", "head", "person", "background"]
LIMB_RADIUS_HEADS = 0.45
"""Half the width of a limb's mask in head sizes: arms and thighs of MPII people stay inside."""
HEAD_RADIUS_HEADS = 0.9
"""Radius of the head's disc in head sizes; the head box has a diagonal of 1 / 0.6 and so a radius of 0.83."""
TORSO = ("r_shoulder", "l_shoulder", "l_hip", "r_hip")


def hidden_pixels(
    region: Region,
    keypoints: NDArray[np.floating],
    visible: NDArray[np.bool_],
    head_size_px: float,
    *,
    size_px: tuple[int, int],
    skeleton: Skeleton,
) -> NDArray[np.bool_]:
    """The pixels (H, W) that the split's transform replaces. The other pixels stay unchanged.

    Guarantees: if the labels do not define the region, every pixel is hidden. This happens if a joint has no label, a head has no size, or
    the region lies outside the crop. A guessed mask would publish what the split promised to hide, and an empty mask would
    publish the whole crop.

    Args:
        region: `background` hides everything except what `person` hides.
        keypoints: (K, 2) px.
        visible: (K,).
        head_size_px: NaN if unknown; then the labelled neck-to-top distance is used.
        size_px: (H, W).
        skeleton: the joints of `keypoints`.

    Raises:
        BadInput: the skeleton does not have what the region is made of.
    """
    everything = np.ones(size_px, dtype=bool)
    if region == "all":
        return everything
    ends = [skeleton.index[joint] for joint in _head_of(skeleton, region)]
    if not (visible[ends].all() if region == "head" else visible.all()):
        return everything
    neck, top = keypoints[ends[0]], keypoints[ends[1]]
    head = np.nanmax([head_size_px, float(np.linalg.norm(top - neck))])
    if not head > 0.0:
        return everything
    middle = (neck + top) / 2
    mask: NDArray[np.bool_] = _distance_to_segment(size_px, middle, middle) <= HEAD_RADIUS_HEADS * head
    if region == "head":
        return mask if mask.any() else everything
    for start, end in skeleton.line_places:
        mask = mask | (_distance_to_segment(size_px, keypoints[start], keypoints[end]) <= LIMB_RADIUS_HEADS * head)
    corners = keypoints[[skeleton.index[joint] for joint in TORSO]]
    for corner in range(4):
        mask = mask | _triangle(size_px, corners[[corner, (corner + 1) % 4, (corner + 2) % 4]])
    hidden = mask if region == "person" else ~mask
    return hidden if hidden.any() else everything


def _head_of(skeleton: Skeleton, region: Region) -> tuple[str, str]:
    """The two ends of the head; a skeleton that cannot give them, or not the torso that the region needs, is refused."""
    ends = ("upper_neck", "head_top") if {"upper_neck", "head_top"} <= skeleton.index.keys() else skeleton.head
    if ends is None:
        raise BadInput(
            f"a split of region {region} needs a head, and the skeleton {skeleton.name} names none: neither upper_neck and head_top, nor "
            "two joints as its head; use region all"
        )
    missing = [joint for joint in TORSO if joint not in skeleton.index and region != "head"]
    if missing:
        raise BadInput(f"a split of region {region} needs shoulders and hips, and {skeleton.name} has no {missing[0]}; use region all")
    return ends


def _grid(size_px: tuple[int, int]) -> NDArray[np.float64]:
    y, x = np.mgrid[0 : size_px[0], 0 : size_px[1]]
    return np.stack([x, y], axis=-1).astype(np.float64)


def _distance_to_segment(size_px: tuple[int, int], start: NDArray[np.floating], end: NDArray[np.floating]) -> NDArray[np.float64]:
    offset = _grid(size_px) - start
    axis = (end - start).astype(np.float64)
    along = np.clip(offset @ axis / max(float(axis @ axis), 1e-12), 0, 1)
    distance: NDArray[np.float64] = np.linalg.norm(offset - along[..., None] * axis, axis=-1)
    return distance


def _triangle(size_px: tuple[int, int], corners: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The pixels inside a triangle. A triangle without area has none, because otherwise every pixel would count as inside."""
    spread = (corners[1:] - corners[0]).astype(np.float64)
    if spread[0, 0] * spread[1, 1] == spread[0, 1] * spread[1, 0]:
        return np.zeros(size_px, dtype=bool)
    points = _grid(size_px)
    sides = []
    for number in range(3):
        a, b = corners[number].astype(np.float64), corners[(number + 1) % 3].astype(np.float64)
        sides.append((b[0] - a[0]) * (points[..., 1] - a[1]) - (b[1] - a[1]) * (points[..., 0] - a[0]))
    stacked = np.stack(sides)
    return np.asarray((stacked >= 0).all(axis=0) | (stacked <= 0).all(axis=0), dtype=np.bool_)
