"""Reads labelme: a folder with one JSON file for each picture."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from dpcore.errors import BadInput
from dpcore.importers.documents import array_of, list_of, load_json, number_of, text_of
from dpcore.importers.grouping import MarkedBox, MarkedPicture, MarkedPoint, people_of
from dpcore.importers.names import PEOPLE
from dpcore.importers.people import LabelSource, PeopleFile, first_existing


def read_labelme(source: LabelSource) -> PeopleFile:
    """The people of a folder of labelme files, or of a single file.

    A `point` is a joint, named by its label. Points of one group are one person. A `rectangle` that is labelled like people frames the
    person of its group, or the one whose points it holds. Other shapes are left out and counted.

    Raises:
        BadInput: names file and shape.
    """
    files = sorted(source.annotations.rglob("*.json")) if source.annotations.is_dir() else [source.annotations]
    if not files:
        raise BadInput(f"annotations {source.annotations}: no .json file in this folder; give the folder that labelme wrote to")
    pictures = []
    for file in files:
        with source.record():
            pictures.append(_picture(source, file))
    return people_of(source, pictures, origin=f"labelme {source.annotations.name}")


def _picture(source: LabelSource, file: Path) -> MarkedPicture:
    document = load_json(file, wanted="labelme")
    where = f"annotations {file}"
    shapes = list_of(document, "shapes", where=where)
    width, height = (int(number_of(document, side, where=where)) for side in ("imageWidth", "imageHeight"))
    points, boxes = [], []
    for row, shape in enumerate(shapes):
        here = f"{where}, shape {row}"
        kind, label = text_of(shape, "shape_type", where=here), text_of(shape, "label", where=here)
        group = "" if shape.get("group_id") in (None, "") else f"group {shape['group_id']}"
        if kind == "point":
            ((x, y),) = array_of(shape, "points", (1, 2), where=here).tolist()
            points.append(MarkedPoint(name=label, x=x, y=y, group=group))
        elif kind == "rectangle" and (group or label.lower() in PEOPLE):
            boxes.append(MarkedBox(bbox=_box(shape, here), group=group))
        else:
            source.tally.left_out["a shape that is no keypoint"] += 1
    return MarkedPicture(
        where=where,
        source_id=file.name,
        picture=_picture_name(source, file, text_of(document, "imagePath", where=where)),
        labelled_px=(width, height),
        points=tuple(points),
        boxes=tuple(boxes),
    )


def _box(shape: Any, where: str) -> tuple[float, float, float, float]:
    corners = array_of(shape, "points", (2, 2), where=where)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return left, top, right - left, bottom - top


def _picture_name(source: LabelSource, file: Path, written: str) -> str:
    """The picture below the folder of the pictures. `imagePath` is relative to the JSON file."""
    plain = written.replace("\\", "/")
    beside = os.path.relpath(file.parent.resolve() / plain, source.images.resolve())
    return first_existing(source.images, [beside, plain, PurePosixPath(plain).name])
