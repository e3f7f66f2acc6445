"""Holds labels against their photograph: what is surely wrong is refused, what may be right is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dpcore.data.crops import CropBox
from dpcore.errors import BadInput

LARGEST_CROP = 20.0
"""A crop of more than this many times its photograph's larger side shows next to nothing of it."""
SMALLEST_BOX_PX = 4.0
_FEW = 4
"""With fewer labelled joints a swap or a fraction could be chance."""


@dataclass(kw_only=True)
class ImportTally:
    """What an import noticed and went on with, by count.

    Attributes:
        unplaced: joints said to be labelled at (0, 0) or (-1, -1); they are taken as not labelled.
        outside: labelled joints outside their photograph.
        unlabelled: people without any labelled joint.
        unboxed: people whose file gives no box: theirs is the hull of their keypoints.
        left_out: people who were not imported, by reason.
    """

    unplaced: int = 0
    outside: int = 0
    unlabelled: int = 0
    unboxed: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """One line for each thing that was noticed."""
        counted = (
            (self.unplaced, "joints marked as labelled at (0, 0) or (-1, -1): taken as not labelled"),
            (self.outside, "labelled joints outside their photograph"),
            (self.unlabelled, "people without any labelled joint"),
            (self.unboxed, "people without a bbox: cropped around their labelled keypoints"),
        )
        noticed = [f"{count} {what}" for count, what in counted if count]
        return noticed + [f"{count} left out: {reason}" for reason, count in sorted(self.left_out.items())]


def placed(joints: NDArray[np.float64], visible: NDArray[np.bool_], tally: ImportTally) -> NDArray[np.bool_]:
    """Which joints (K,) are labelled: those that are said to be and have a place. (0, 0) and (-1, -1) are no places in any format."""
    nowhere = visible & ((joints == 0).all(axis=-1) | (joints == -1).all(axis=-1))
    tally.unplaced += int(nowhere.sum())
    labelled: NDArray[np.bool_] = np.asarray(visible & ~nowhere)
    return labelled


def check_labels(
    joints: NDArray[np.float64], visible: NDArray[np.bool_], *, size_px: tuple[int, int], where: str, tally: ImportTally
) -> None:
    """Holds joints against the photograph that they were drawn on.

    Args:
        joints: (K, 2) px of the photograph, 0-based.
        visible: (K,) which are labelled.
        size_px: the photograph's width and height.
        where: names the record in messages.
        tally: counts what is odd and may be right.

    Raises:
        BadInput: most labelled joints lie outside the photograph, or all are fractions of it.
    """
    seen = joints[visible]
    finite = seen[np.isfinite(seen).all(axis=-1)]
    if not len(finite):
        tally.unlabelled += not visible.any()
        return
    if len(finite) >= _FEW and (finite >= 0).all() and (finite <= 1).all() and min(size_px) > 2 * _FEW:
        raise BadInput(f"{where}: all joints lie between 0 and 1; give pixels, not fractions of the picture")
    inside = _inside(finite, size_px)
    if len(finite) >= _FEW and inside.mean() < 0.5:
        swapped = _inside(finite[:, ::-1], size_px).mean() > 0.9
        hint = "x and y seem to be swapped" if swapped else "is it another picture, or one that was resized?"
        counted = f"{int((~inside).sum())} of {len(finite)} labelled joints"
        raise BadInput(f"{where}: {counted} lie outside the picture of {size_px[0]} × {size_px[1]} px; {hint}")
    tally.outside += int((~inside).sum())


def check_box(box: CropBox, joints: NDArray[np.float64], visible: NDArray[np.bool_], *, size_px: tuple[int, int], where: str) -> None:
    """Holds the box of a crop against its photograph and its joints.

    Raises:
        BadInput: the box is far larger than the photograph, too small for a person, beside the photograph, or fits the joints only
            with x and y swapped.
    """
    left, top, right, bottom = box.reach
    if max(right - left, bottom - top) > LARGEST_CROP * max(size_px):
        raise BadInput(
            f"{where}: the person's box has {box.box_px:.6g} px in a picture of {size_px[0]} × {size_px[1]} px; "
            "is scale in units of 200 px, and are coordinates in pixels?"
        )
    if box.box_px < SMALLEST_BOX_PX:
        raise BadInput(f"{where}: the person's box has {box.box_px:.3g} px; is scale in units of 200 px, and are coordinates in pixels?")
    if right <= 0 or bottom <= 0 or left >= size_px[0] or top >= size_px[1]:
        raise BadInput(f"{where}: the person's box lies outside the picture of {size_px[0]} × {size_px[1]} px; is it another picture?")
    seen = joints[visible & np.isfinite(joints).all(axis=-1)]
    if len(seen) >= _FEW:
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
        given = float(np.hypot(*(middle - box.centre)))
        swapped = float(np.hypot(*(middle[::-1] - box.centre)))
        if given > 0.1 * box.box_px and swapped < 0.25 * given:
            raise BadInput(f"{where}: the joints fit the person's box only with x and y swapped; give x before y")


def check_keypoints(keypoints: NDArray[np.float64], visible: NDArray[np.bool_], *, where: str) -> None:
    """Refuses labelled keypoints (K, 2) px in the crop that a dataset cannot hold.

    Raises:
        BadInput: a finite coordinate is infinite as float32.
    """
    largest = float(np.abs(np.where(visible[:, None] & np.isfinite(keypoints), keypoints, 0.0)).max(initial=0.0))
    if largest > float(np.finfo(np.float32).max):
        raise BadInput(f"{where}: a labelled joint lies {largest:.3g} px away, which no dataset can hold; mend or unlabel it")


def _inside(points: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.asarray(((points >= -0.5) & (points <= np.array(size_px) - 0.5)).all(axis=-1))
    return inside
