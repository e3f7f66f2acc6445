"""Reads JSON exports of Label Studio: keypoints, and rectangles around people, in percent of the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dpcore.errors import BadInput
from dpcore.importers.documents import entry_of, list_of, load_json, number_of, text_of
from dpcore.importers.grouping import MarkedBox, MarkedPicture, MarkedPoint, people_of
from dpcore.importers.names import PEOPLE
from dpcore.importers.people import LabelSource, PeopleFile, first_existing

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts eight digits before the name of an uploaded picture."""


def read_label_studio(source: LabelSource) -> PeopleFile:
    """The people of an export of Label Studio.

    A keypoint belongs to the rectangle that is its parent, or its partner in a relation; without one, to the rectangle that holds it.
    Percentages become px of the size that the tool wrote down.

    A task may have one annotation that was not cancelled. If several people annotated it, the one marked as ground truth is taken.

    Raises:
        BadInput: names file, task and region.
    """
    tasks = load_json(source.annotations, wanted="label_studio")
    if not isinstance(tasks, list):
        raise BadInput(f"annotations {source.annotations}: expected a list of tasks, given {type(tasks).__name__}")
    pictures = []
    for row, task in enumerate(tasks):
        with source.record():
            pictures += _pictures(source, row, task)
    return people_of(source, pictures, origin=f"label_studio {source.annotations.name}")


def _pictures(source: LabelSource, row: int, task: Any) -> list[MarkedPicture]:
    """The task's picture in a list, or nothing where nobody marked anything."""
    where = f"{source.annotations}, task {task.get('id', row) if isinstance(task, dict) else row}"
    name = _picture_name(source, entry_of(task, "data", where=where), where=where)
    regions = _regions(task, where=where)
    sized = [region for region in regions if "original_width" in region]
    if not sized:
        source.tally.left_out["a task without keypoints"] += 1
        return []
    where = f"{where} ({name})"
    sizes = {tuple(int(number_of(region, f"original_{side}", where=where)) for side in ("width", "height")) for region in sized}
    if len(sizes) != 1 or any(region.get("image_rotation", 0) not in (0, None) for region in sized):
        raise BadInput(
            f"{where}: its regions are on pictures of different sizes, or on a turned one; turn the file itself and label it again"
        )
    width, height = next(iter(sizes))
    boxes = {region["id"]: region for region in sized if region.get("type") in ("rectanglelabels", "rectangle") and "id" in region}
    parents = _parents(regions, boxes)
    return [
        MarkedPicture(
            where=where,
            source_id=f"{source.annotations.name}, task {task.get('id', row)}",
            picture=name,
            labelled_px=(width, height),
            points=tuple(_points(sized, parents, (width, height), where=where)),
            boxes=tuple(
                _box(region, key, (width, height), where=where)
                for key, region in boxes.items()
                if key in parents.values() or _is_person(region)
            ),
        )
    ]


def _regions(task: Any, *, where: str) -> list[dict[str, Any]]:
    key = "annotations" if "annotations" in task else "completions"
    kept = [one for one in list_of(task, key, where=where) if isinstance(one, dict) and not one.get("was_cancelled")]
    chosen = [one for one in kept if one.get("ground_truth")] if len(kept) > 1 else kept
    if len(chosen) > 1 or (kept and not chosen):
        raise BadInput(f"{where}: {len(kept)} annotations; mark one as ground truth in the tool, or export one for each task")
    return [region for one in chosen for region in list_of(one, "result", where=where) if isinstance(region, dict)]


def _parents(regions: list[dict[str, Any]], boxes: dict[str, Any]) -> dict[str, str]:
    """Keypoint's id → id of its rectangle, where the export says it."""
    found = {str(region.get("id")): str(region["parentID"]) for region in regions if region.get("parentID")}
    ends = [(str(region.get("from_id")), str(region.get("to_id"))) for region in regions if region.get("type") == "relation"]
    found |= {point: box for a, b in ends for point, box in ((a, b), (b, a)) if box in boxes and point not in boxes}
    return found


def _is_person(rectangle: dict[str, Any]) -> bool:
    labels = (rectangle.get("value") or {}).get("rectanglelabels") or []
    return any(str(label).lower() in PEOPLE for label in labels)


def _points(regions: list[dict[str, Any]], parents: dict[str, str], size_px: tuple[int, int], *, where: str) -> Iterator[MarkedPoint]:
    for region in regions:
        if region.get("type") not in ("keypointlabels", "keypoint"):
            continue
        value = entry_of(region, "value", where=where)
        names = list_of(value, "keypointlabels", where=where)
        if len(names) != 1:
            raise BadInput(f"{where}: a keypoint has the labels {names}; give it one")
        x, y = (number_of(value, axis, where=where) * size / 100 for axis, size in zip(("x", "y"), size_px, strict=True))
        yield MarkedPoint(name=str(names[0]), x=x, y=y, group=parents.get(str(region.get("id")), ""))


def _box(region: dict[str, Any], key: str, size_px: tuple[int, int], *, where: str) -> MarkedBox:
    value = entry_of(region, "value", where=where)
    if value.get("rotation", 0) not in (0, None):
        raise BadInput(f"{where}: a rectangle is rotated; crops stand upright, draw it without rotation")
    (left, width), (top, height) = (
        (number_of(value, start, where=where) * size / 100, number_of(value, extent, where=where) * size / 100)
        for start, extent, size in (("x", "width", size_px[0]), ("y", "height", size_px[1]))
    )
    return MarkedBox(bbox=(left, top, width, height), group=key)


def _picture_name(source: LabelSource, data: Any, *, where: str) -> str:
    """The picture of a task, as it is called below the folder of the pictures."""
    keys = [key for key in ("image", "img", "picture", "photo", "url") if isinstance(data, dict) and isinstance(data.get(key), str)]
    link = text_of(data, keys[0] if keys else "image", where=where)
    parts = urlsplit(link)
    local = parse_qs(parts.query).get("d", [""])[0] or unquote(parts.path)
    path = PurePosixPath(local.lstrip("/"))
    tails = ["/".join(path.parts[start:]) for start in range(len(path.parts))]
    return first_existing(source.images, [*tails, _UPLOAD_PREFIX.sub("", path.name)])
