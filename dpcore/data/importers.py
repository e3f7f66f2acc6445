"""Turns annotated photographs into datasets.

HRNet's JSON serves LSPET and MPII: centre, scale, joints. MPII's files are MATLAB's, 1-based, and its evaluation wants
head boxes; LSPET's are 0-based and carry a head size. COCO-17 is mapped to MPII-16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import parse_config
from dpcore.data.annotations import array_of, entry_of, load_head_sizes, load_json, number_of, text_of
from dpcore.data.crops import PIXEL_STD, CropBox, load_photograph
from dpcore.data.manifest import JOINT_COUNT, Crops, DatasetHeader, Manifest, Record, Role
from dpcore.data.shards import write_shards
from dpcore.errors import BadInput
from dpcore.pose.pckh import head_size_of_box
from dpcore.pose.skeleton import COCO_17, COCO_TO_MPII

MPII_CENTRE_SHIFT = 15.0
"""HRNet moves MPII's centre down by 15 px · scale, so that legs are not cut off."""


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How the fields of one HRNet-style file are meant."""

    annotations: Path
    images: Path
    header: DatasetHeader
    one_based: bool
    box_scale: float
    mpii_centre_shift: bool


def import_hrnet(
    annotations: Path,
    images: Path,
    out: Path,
    *,
    name: str,
    role: Role,
    protected: bool,
    cohort: str | None = None,
    height_px: int,
    width_px: int,
    one_based: bool,
    head_boxes: Path | None = None,
    box_scale: float = 1.25,
    mpii_centre_shift: bool = False,
    crops: Crops = "labels",
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

    Raises:
        BadInput: names file and record.
        Refused: `out` exists.
    """
    records = load_json(annotations)
    if not isinstance(records, list):
        raise BadInput(f"annotations {annotations}: expected a list of records, given {type(records).__name__}")
    origin = f"hrnet {annotations.name}, box_scale {box_scale}"
    size = {"height_px": height_px, "width_px": width_px}
    header = _header(name=name, role=role, protected=protected, cohort=cohort, origin=origin, crops=crops, **size)
    _check_source(annotations, images, count=len(records), box_scale=box_scale)
    sizes = None if head_boxes is None else load_head_sizes(head_boxes, len(records))
    reading = _Reading(
        annotations=annotations,
        images=images,
        header=header,
        one_based=one_based,
        box_scale=box_scale,
        mpii_centre_shift=mpii_centre_shift,
    )
    rows = (_hrnet_record(reading, record, row, None if sizes is None else float(sizes[row])) for row, record in enumerate(records))
    return write_shards(out, rows, header=header)


def import_coco(
    annotations: Path,
    images: Path,
    out: Path,
    *,
    name: str,
    role: Role,
    protected: bool,
    cohort: str | None = None,
    height_px: int,
    width_px: int,
    box_scale: float = 1.25,
    min_keypoints: int = 10,
) -> Manifest:
    """Imports COCO person keypoints as MPII-16.

    Pelvis and thorax are derived and labelled when both their parents are; upper neck and head top are not labelled, and
    there is no head size, so that PCKh cannot be counted on such a dataset. Crowds and people with fewer than
    `min_keypoints` labelled COCO keypoints are left out: boxes and the choice of people come from labels.

    Args:
        annotations: the JSON file with `images` and `annotations`.
        images: folder of the photographs.
        out: folder of the new dataset.
        name, role, protected, cohort, height_px, width_px: see `DatasetHeader`.
        box_scale: margin around the square hull of the person's box.
        min_keypoints: fewest labelled keypoints, of 17.

    Raises:
        BadInput: names file and record.
        Refused: `out` exists.
    """
    document = load_json(annotations)
    files = _coco_files(annotations, document)
    people = entry_of(document, "annotations", where=f"annotations {annotations}")
    origin = f"coco {annotations.name}, box_scale {box_scale}, at least {min_keypoints} keypoints"
    size = {"height_px": height_px, "width_px": width_px}
    header = _header(name=name, role=role, protected=protected, cohort=cohort, origin=origin, crops="labels", **size)
    _check_source(annotations, images, count=len(people), box_scale=box_scale)
    chosen = _coco_people(annotations, people, least=min_keypoints)
    rows = (_coco_record(images, person, files, header=header, box_scale=box_scale, where=where) for where, person in chosen)
    return write_shards(out, rows, header=header)


def _hrnet_record(reading: _Reading, record: Any, row: int, head_size: float | None) -> Record:
    where = f"{reading.annotations}, record {row}"
    file_name = text_of(record, "image", where=where)
    where = f"{where} ({file_name})"
    scale = number_of(record, "scale", where=where)
    if scale <= 0:
        raise BadInput(f"{where}: scale must be above 0, given {scale}")
    centre = array_of(record, "center", (2,), where=where)
    if not np.isfinite(centre).all():
        raise BadInput(f"{where}: center must be finite, given {centre.tolist()}")
    joints = array_of(record, "joints", (JOINT_COUNT, 2), where=where)
    visible = array_of(record, "joints_vis", (JOINT_COUNT,), where=where) > 0
    first = 1.0 if reading.one_based else 0.0
    shift = MPII_CENTRE_SHIFT * scale if reading.mpii_centre_shift else 0.0
    box = CropBox(
        centre=(float(centre[0] - first), float(centre[1] - first + shift)),
        box_px=scale * PIXEL_STD * reading.box_scale,
        height_px=reading.header.height_px,
        width_px=reading.header.width_px,
    )
    in_photograph = _own_head_size(record, where) if head_size is None else head_size
    return Record(
        image=box.cut(load_photograph(reading.images / file_name, record=where)),
        keypoints=box.to_crop(joints - first),
        visible=visible,
        head_size_px=in_photograph * box.zoom if in_photograph > 0 else math.nan,
        person_id=f"{file_name}#{row}",
        image_id=file_name,
        video_id=text_of(record, "video", where=where) if "video" in record else "",
        source_id=f"{reading.annotations.name}, record {row} ({file_name})",
        box_px=box.reach,
    )


def _own_head_size(record: Any, where: str) -> float:
    if "head_box" in record:
        return float(head_size_of_box(array_of(record, "head_box", (4,), where=where).reshape(1, 2, 2))[0])
    return number_of(record, "head_size", where=where) if "head_size" in record else 0.0


def _coco_files(annotations: Path, document: Any) -> dict[int, str]:
    where = f"annotations {annotations}"
    listed = entry_of(document, "images", where=where)
    return {
        int(number_of(image, "id", where=f"{where}, image {row}")): text_of(image, "file_name", where=f"{where}, image {row}")
        for row, image in enumerate(listed)
    }


def _coco_people(annotations: Path, people: list[Any], *, least: int) -> Iterator[tuple[str, Any]]:
    """The people that are imported, each with the words that name it in a message."""
    for row, person in enumerate(people):
        where = f"{annotations}, annotation {row}"
        labels = array_of(person, "keypoints", (3 * len(COCO_17),), where=where)[2::3]
        if not person.get("iscrowd", 0) and int((labels > 0).sum()) >= least:
            yield where, person


def _coco_record(images: Path, person: Any, files: dict[int, str], *, header: DatasetHeader, box_scale: float, where: str) -> Record:
    image_id = int(number_of(person, "image_id", where=where))
    if image_id not in files:
        raise BadInput(f"{where}: image_id {image_id} is not among the file's images")
    file_name = files[image_id]
    points = array_of(person, "keypoints", (3 * len(COCO_17),), where=where).reshape(-1, 3)
    joints, visible = mpii_of_coco(points[:, :2], points[:, 2] > 0)
    left, top, width, height = (float(v) for v in array_of(person, "bbox", (4,), where=where))
    if not (math.isfinite(left) and math.isfinite(top) and 0 < max(width, height) < math.inf):
        raise BadInput(f"{where}: bbox must be finite and not empty, given {[left, top, width, height]}")
    box = CropBox(
        # a box covers whole pixels: its middle lies half a pixel before the mean of its edges
        centre=(left + width / 2 - 0.5, top + height / 2 - 0.5),
        box_px=max(width, height) * box_scale,
        height_px=header.height_px,
        width_px=header.width_px,
    )
    return Record(
        image=box.cut(load_photograph(images / file_name, record=where)),
        keypoints=box.to_crop(joints),
        visible=visible,
        head_size_px=math.nan,
        person_id=f"{file_name}#{person.get('id', where)}",
        image_id=file_name,
        video_id="",
        source_id=f"{Path(where).name} ({file_name})",
        box_px=box.reach,
    )


def mpii_of_coco(points: NDArray[np.floating], labelled: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """COCO-17 keypoints (17, 2) as MPII-16: (16, 2) and which are labelled (16,)."""
    joints, visible = np.zeros((JOINT_COUNT, 2)), np.zeros(JOINT_COUNT, dtype=bool)
    for joint, parents in COCO_TO_MPII.items():
        joints[joint] = points[list(parents)].mean(axis=0)
        visible[joint] = labelled[list(parents)].all()
    return joints, visible


def _header(**values: Any) -> DatasetHeader:
    return parse_config(DatasetHeader, values, where="dataset")


def _check_source(annotations: Path, images: Path, *, count: int, box_scale: float) -> None:
    if not images.is_dir():
        raise BadInput(f"images {images}: no such folder")
    if count == 0:
        raise BadInput(f"annotations {annotations}: no record in it, nothing to import")
    if not 0 < box_scale < math.inf:
        raise BadInput(f"box_scale must be positive and finite, given {box_scale}")
