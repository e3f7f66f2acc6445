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
LEAST_HEAD, MOST_HEAD = 0.35, 1.5
"""Head sizes within these shares of the labelled head are plausible."""
_FEW = 4
"""With fewer labelled joints a swap or a fraction could be chance."""
SHOWN = 10
"""Messages on broken records that are shown. The others are counted."""


@dataclass(kw_only=True)
class ImportTally:
    """What an import counted.

    Attributes:
        labels: labelled joints of the people that were imported.
        noticed: what is odd and was imported, by sentence.
        left_out: people who were not imported, by reason.
        broken: records that could not be imported and were left out, because `skip_broken` asked for it.
        examples: the first messages on broken records.
    """

    labels: int = 0
    noticed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    examples: list[str] = field(default_factory=list)

    def broke(self, message: str) -> None:
        """Counts a broken record."""
        self.broken += 1
        self.examples = [*self.examples, message][:SHOWN]

    def add(self, other: ImportTally) -> None:
        """Adds what another part of the same import counted."""
        self.labels += other.labels
        self.noticed += other.noticed
        self.left_out += other.left_out
        self.broken += other.broken
        self.examples = [*self.examples, *other.examples][:SHOWN]

    def lines(self) -> list[str]:
        """One line for each thing that was noticed or left out."""
        lines = [f"{count} {what}" for what, count in self.noticed.items() if count]
        lines += [f"{count} left out: {reason}" for reason, count in sorted(self.left_out.items()) if count]
        if self.broken:
            lines += [f"{self.broken} left out: broken", *(f"  {message}" for message in self.examples)]
            lines += [f"  and {self.broken - len(self.examples)} more"] if self.broken > len(self.examples) else []
        return lines


def placed(joints: NDArray[np.float64], visible: NDArray[np.bool_], tally: ImportTally) -> NDArray[np.bool_]:
    """Which joints (K,) are labelled: those that are said to be and have a place. (0, 0) and (-1, -1) are no places in any format."""
    nowhere = visible & ((joints == 0).all(axis=-1) | (joints == -1).all(axis=-1))
    tally.noticed["joints marked as labelled at (0, 0) or (-1, -1): taken as not labelled"] += int(nowhere.sum())
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
        tally.noticed["people without any labelled joint"] += not visible.any()
        return
    if len(finite) >= _FEW and (finite >= 0).all() and (finite <= 1).all() and min(size_px) > 2 * _FEW:
        raise BadInput(f"{where}: all joints lie between 0 and 1; give pixels, not fractions of the picture")
    inside = _inside(finite, size_px)
    if len(finite) >= _FEW and inside.mean() < 0.5:
        swapped = _inside(finite[:, ::-1], size_px).mean() > 0.9
        hint = "x and y seem to be swapped" if swapped else "is it another picture, or one that was resized?"
        counted = f"{int((~inside).sum())} of {len(finite)} labelled joints"
        raise BadInput(f"{where}: {counted} lie outside the picture of {size_px[0]} × {size_px[1]} px; {hint}")
    tally.noticed["labelled joints outside their photograph"] += int((~inside).sum())


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


def check_form(bbox: NDArray[np.float64], labelled: NDArray[np.float64], *, size_px: tuple[int, int], where: str) -> None:
    """Refuses a box of two corners, and one beside all of its person's keypoints.

    Args:
        bbox: left, top, width, height, px.
        labelled: (n, 2) px, the labelled joints.
        size_px: the photograph's width and height.
        where: names the record in messages.

    Raises:
        BadInput: the box is of another form, or of another person.
    """
    start, extent = bbox[:2], bbox[2:]
    beyond = (start + extent > 1.1 * np.array(size_px)).any()
    as_corners = (extent > start).all() and (extent <= size_px).all()
    if beyond and as_corners and ((labelled >= start - 1) & (labelled <= extent + 1)).all():
        raise BadInput(f"{where}: bbox {bbox.tolist()} reads as x1 y1 x2 y2; COCO's form is x, y, width, height")
    if len(labelled) and not ((labelled >= start - 1) & (labelled <= start + extent + 1)).all(axis=-1).any():
        raise BadInput(f"{where}: no labelled keypoint lies in bbox {bbox.tolist()} (x, y, width, height in px); mend one of the two")


def check_head(
    head_size_px: float, joints: NDArray[np.float64], visible: NDArray[np.bool_], names: tuple[str, ...], tally: ImportTally
) -> None:
    """Counts a head size that does not fit the person's labelled head: a wrong one changes PCKh without a word.

    MPII's head sizes are 0.73 to 0.77 of the segment from upper neck to head top.
    """
    ends = [names.index(name) for name in ("head_top", "upper_neck", "neck", "head_bottom") if name in names][:2]
    if head_size_px > 0 and len(ends) == 2 and visible[ends].all():
        segment = float(np.linalg.norm(joints[ends[0]] - joints[ends[1]]))
        fits = LEAST_HEAD * segment <= head_size_px <= MOST_HEAD * segment
        tally.noticed["head sizes far from the labelled head: less than 0.35 or more than 1.5 of it"] += not fits


def check_keypoints(keypoints: NDArray[np.float64], visible: NDArray[np.bool_], joints: tuple[str, ...], *, where: str) -> None:
    """Refuses labelled keypoints (K, 2) px in the crop that a dataset cannot hold. `joints` are their names.

    Raises:
        BadInput: a coordinate is not finite, or is infinite as float32.
    """
    unplaced = visible & ~np.isfinite(keypoints).all(axis=-1)
    if unplaced.any():
        joint = joints[int(np.argmax(unplaced))]
        raise BadInput(f"{where}: joint {joint} is labelled but its coordinates are not finite; correct or unlabel it")
    largest = float(np.abs(np.where(visible[:, None], keypoints, 0.0)).max(initial=0.0))
    if largest > float(np.finfo(np.float32).max):
        raise BadInput(f"{where}: a labelled joint lies {largest:.3g} px away, which no dataset can hold; mend or unlabel it")


def _inside(points: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.asarray(((points >= -0.5) & (points <= np.array(size_px) - 0.5)).all(axis=-1))
    return inside
