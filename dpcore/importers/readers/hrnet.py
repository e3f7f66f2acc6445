"""Reads HRNet-style JSON: a list of {image, center, scale, joints, joints_vis} in MPII's joint order.

MPII's files are MATLAB's, 1-based, and its evaluation wants head boxes. LSPET's are 0-based and carry a head size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.data.crops import PIXEL_STD
from dpcore.data.manifest import Crops
from dpcore.errors import BadInput
from dpcore.importers.documents import array_of, load_json, number_of, text_of
from dpcore.importers.head_boxes import check_head_box, load_head_sizes
from dpcore.importers.label_checks import placed
from dpcore.importers.people import Frame, LabelledPerson, LabelSource, PeopleFile
from dpcore.pose.pckh import head_size_of_box
from dpcore.pose.skeleton import MPII_16, Skeleton

MPII_CENTRE_SHIFT = 15.0
"""HRNet moves MPII's centre down by 15 px · scale, so that legs are not cut off."""


def read_hrnet(
    source: LabelSource, *, one_based: bool, head_boxes: Path | None = None, mpii_centre_shift: bool = False, crops: Crops = "labels"
) -> PeopleFile:
    """The people of an HRNet-style list.

    The head size comes from `head_boxes`, else from the record's `head_box` (0.6 · diagonal) or `head_size`; 0 or absent is unknown.
    A record's `video`, where it has one, names the video that its picture is a frame of.

    Args:
        source: the files. `order` takes the place of MPII's joint order.
        one_based: coordinates count from 1, as in MPII's files.
        head_boxes: gt_valid.mat or an npz, see `load_head_sizes`.
        mpii_centre_shift: add 15 · scale to the centre's y, as HRNet does for MPII.
        crops: where the records' centre and scale come from: annotation (`labels`), or a public `detector`.

    Raises:
        BadInput: names file and record.
    """
    records = load_json(source.annotations, wanted="hrnet")
    if not isinstance(records, list):
        raise BadInput(f"annotations {source.annotations}: expected a list of records, given {type(records).__name__}")
    sizes = None if head_boxes is None else load_head_sizes(head_boxes, len(records))
    skeleton = source.order or MPII_16
    people = []
    for row, record in enumerate(records):
        with source.record():
            person = _Record(source=source, record=record, row=row, first=1.0 if one_based else 0.0, skeleton=skeleton)
            head = person.own_head_size() if sizes is None else float(sizes[row])
            people.append(person.labelled(head_size_px=head, shift=MPII_CENTRE_SHIFT if mpii_centre_shift else 0.0))
    return PeopleFile(skeleton=skeleton, people=tuple(people), origin=f"hrnet {source.annotations.name}", crops=crops)


class _Record:
    """One record of the list while it is read."""

    def __init__(self, *, source: LabelSource, record: Any, row: int, first: float, skeleton: Skeleton) -> None:
        self._source, self._record, self._row, self._first, self._skeleton = source, record, row, first, skeleton
        self._file_name = text_of(record, "image", where=f"{source.annotations}, record {row}")
        self._where = f"{source.annotations}, record {row} ({self._file_name})"

    def labelled(self, *, head_size_px: float, shift: float) -> LabelledPerson:
        """The person. `shift` moves the centre down, in px per unit of scale."""
        frame = self._frame(shift)
        joints, labelled = self._joints()
        video = text_of(self._record, "video", where=self._where) if "video" in self._record else ""
        return LabelledPerson(
            where=self._where,
            source_id=f"{self._source.annotations.name}, record {self._row}",
            picture=self._file_name,
            person=str(self._row),
            joints=joints,
            labelled=labelled,
            frame=frame,
            head_size_px=head_size_px,
            video=video,
        )

    def own_head_size(self) -> float:
        """In px of the picture; 0 where the record does not know it."""
        if self._record.get("head_box") is not None:
            corners = array_of(self._record, "head_box", (4,), where=self._where).reshape(2, 2)
            check_head_box(corners, where=self._where)
            return float(head_size_of_box(corners[None])[0])
        return number_of(self._record, "head_size", where=self._where) if self._record.get("head_size") is not None else 0.0

    def _frame(self, shift: float) -> Frame:
        scale = number_of(self._record, "scale", where=self._where)
        if scale <= 0:
            raise BadInput(f"{self._where}: scale must be above 0, given {scale}")
        centre = array_of(self._record, "center", (2,), where=self._where)
        if not np.isfinite(centre).all():
            raise BadInput(f"{self._where}: center must be finite, given {centre.tolist()}")
        x, y = (float(value) - self._first for value in centre)
        return Frame(centre=(x, y + shift * scale), side_px=scale * PIXEL_STD)

    def _joints(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        if isinstance(self._record, dict) and "joints" not in self._record:
            raise BadInput(f"{self._where}: no joints: a test set such as HRNet's test.json has no labels; import a labelled part")
        count = self._skeleton.count
        joints = array_of(self._record, "joints", (count, 2), where=self._where)
        said = array_of(self._record, "joints_vis", (count,), where=self._where) > 0
        return joints - self._first, placed(joints, said, self._source.tally)
