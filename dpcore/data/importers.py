"""Turns photographs with HRNet's annotations into datasets: LSPET and MPII, by centre, scale and joints.

MPII's files are MATLAB's, 1-based, and its evaluation wants head boxes. LSPET's are 0-based and carry a head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import parse_config
from dpcore.data.annotations import array_of, check_head_box, load_head_sizes, load_json, number_of, text_of
from dpcore.data.crops import PIXEL_STD, CropBox
from dpcore.data.label_checks import ImportTally, check_box, check_keypoints, check_labels, placed
from dpcore.data.manifest import Crops, DatasetHeader, DatasetRole, Manifest, Record
from dpcore.data.photographs import PhotographFolder, load_photograph
from dpcore.data.shards import write_shards
from dpcore.errors import BadInput
from dpcore.pose.pckh import head_size_of_box

MPII_CENTRE_SHIFT = 15.0
"""HRNet moves MPII's centre down by 15 px · scale, so that legs are not cut off."""


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How the fields of one HRNet-style file are meant."""

    annotations: Path
    folder: PhotographFolder
    header: DatasetHeader
    one_based: bool
    box_scale: float
    mpii_centre_shift: bool
    tally: ImportTally


def import_hrnet(
    annotations: Path,
    images: Path,
    out: Path,
    *,
    name: str,
    role: DatasetRole,
    protected: bool,
    cohort: str | None = None,
    height_px: int,
    width_px: int,
    one_based: bool,
    head_boxes: Path | None = None,
    box_scale: float = 1.25,
    mpii_centre_shift: bool = False,
    crops: Crops = "labels",
    tally: ImportTally | None = None,
) -> Manifest:
    """Imports an HRNet-style list of {image, center, scale, joints, joints_vis}.

    The head size comes from `head_boxes`, else from the record's `head_box` (0.6 · diagonal) or `head_size`; 0 or absent
    is unknown. One image is one `image_id`, so that people who share a photograph share a privacy unit; a record's `video`, where
    it has one, names the video that its photograph is a frame of.

    Args:
        annotations: the JSON file.
        images: folder of the photographs.
        out: folder of the new dataset.
        name, role, protected, cohort, height_px, width_px: see `DatasetHeader`.
        one_based: coordinates count from 1, as in MPII's files.
        head_boxes: gt_valid.mat or an npz, see `load_head_sizes`.
        box_scale: margin around the person, 1.25 for MPII.
        mpii_centre_shift: add 15 · scale to the centre's y before the margin, as HRNet does for MPII.
        crops: where the records' centre and scale come from: annotation (`labels`), or a public `detector`.
        tally: counts what was noticed.

    Raises:
        BadInput: names file and record.
        Refused: `out` exists.
    """
    records = load_json(annotations)
    if isinstance(records, dict) and "annotations" in records:
        raise BadInput(f"annotations {annotations}: this is COCO's form; import it with `dpsweep data import coco`")
    if not isinstance(records, list):
        raise BadInput(f"annotations {annotations}: expected a list of records, given {type(records).__name__}")
    origin = f"hrnet {annotations.name}, box_scale {box_scale}"
    size = {"height_px": height_px, "width_px": width_px}
    header = dataset_header(name=name, role=role, protected=protected, cohort=cohort, origin=origin, crops=crops, **size)
    check_source(annotations, images, count=len(records), box_scale=box_scale)
    sizes = None if head_boxes is None else load_head_sizes(head_boxes, len(records))
    reading = _Reading(
        annotations=annotations,
        folder=PhotographFolder(images),
        header=header,
        one_based=one_based,
        box_scale=box_scale,
        mpii_centre_shift=mpii_centre_shift,
        tally=tally or ImportTally(),
    )
    rows = (_hrnet_record(reading, record, row, None if sizes is None else float(sizes[row])) for row, record in enumerate(records))
    return write_shards(out, rows, header=header)


def _hrnet_record(reading: _Reading, record: Any, row: int, head_size: float | None) -> Record:
    where = f"{reading.annotations}, record {row}"
    file_name = text_of(record, "image", where=where)
    where = f"{where} ({file_name})"
    box = _box_of(reading, record, where)
    joints, visible = _joints_of(reading, record, where)
    found = reading.folder.find(file_name, record=where)
    photograph = load_photograph(found.path, record=where)
    check_labels(joints, visible, size_px=photograph.size, where=where, tally=reading.tally)
    check_box(box, joints, visible, size_px=photograph.size, where=where)
    in_photograph = _own_head_size(record, where) if head_size is None else head_size
    keypoints = box.to_crop(joints)
    check_keypoints(keypoints, visible, where=where)
    return Record(
        image=box.cut(photograph),
        keypoints=keypoints,
        visible=visible,
        head_size_px=in_photograph * box.zoom if in_photograph > 0 else math.nan,
        person_id=f"{found.image_id}#{row}",
        image_id=found.image_id,
        video_id=text_of(record, "video", where=where) if "video" in record else "",
        source_id=f"{reading.annotations.name}, record {row} ({found.image_id})",
        box_px=box.reach,
        crop=box,
        person_box_px=box.square(box.box_px / reading.box_scale),
    )


def _box_of(reading: _Reading, record: Any, where: str) -> CropBox:
    scale = number_of(record, "scale", where=where)
    if scale <= 0:
        raise BadInput(f"{where}: scale must be above 0, given {scale}")
    centre = array_of(record, "center", (2,), where=where)
    if not np.isfinite(centre).all():
        raise BadInput(f"{where}: center must be finite, given {centre.tolist()}")
    first = 1.0 if reading.one_based else 0.0
    shift = MPII_CENTRE_SHIFT * scale if reading.mpii_centre_shift else 0.0
    return CropBox(
        centre=(float(centre[0] - first), float(centre[1] - first + shift)),
        box_px=scale * PIXEL_STD * reading.box_scale,
        height_px=reading.header.height_px,
        width_px=reading.header.width_px,
    )


def _joints_of(reading: _Reading, record: Any, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The joints (K, 2) px of the photograph, 0-based, and which are labelled (K,)."""
    count = reading.header.skeleton.count
    if isinstance(record, dict) and "joints" not in record:
        raise BadInput(f"{where}: no joints: a test set such as HRNet's test.json has no labels; import a labelled part")
    joints = array_of(record, "joints", (count, 2), where=where)
    visible = array_of(record, "joints_vis", (count,), where=where) > 0
    return joints - (1.0 if reading.one_based else 0.0), placed(joints, visible, reading.tally)


def _own_head_size(record: Any, where: str) -> float:
    """In px of the photograph; 0 where the record does not know it."""
    if record.get("head_box") is not None:
        corners = array_of(record, "head_box", (4,), where=where).reshape(2, 2)
        check_head_box(corners, where=where)
        return float(head_size_of_box(corners[None])[0])
    return number_of(record, "head_size", where=where) if record.get("head_size") is not None else 0.0


def dataset_header(**values: Any) -> DatasetHeader:
    """The header of a dataset, or `BadInput` with one line per mistake."""
    return parse_config(DatasetHeader, values, where="dataset")


def check_source(annotations: Path, images: Path, *, count: int, box_scale: float) -> None:
    """Refuses an import that can give nothing.

    Raises:
        BadInput: no folder of images, no record, or a margin that is no number.
    """
    if not images.is_dir():
        raise BadInput(f"images {images}: no such folder")
    if count == 0:
        raise BadInput(f"annotations {annotations}: no record in it, nothing to import")
    if not 0 < box_scale < math.inf:
        raise BadInput(f"box_scale must be positive and finite, given {box_scale}")
