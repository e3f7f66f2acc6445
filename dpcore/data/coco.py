"""Imports keypoints in COCO's form, by the names of the keypoints and not by their order."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.data.annotations import array_of, id_of, list_of, load_json, number_of, text_of
from dpcore.data.crops import CropBox
from dpcore.data.importers import check_source, dataset_header
from dpcore.data.label_checks import ImportTally, check_box, check_keypoints, check_labels, placed
from dpcore.data.manifest import DatasetHeader, DatasetRole, Manifest, Record
from dpcore.data.photographs import PhotographFolder, load_photograph
from dpcore.data.shards import write_shards
from dpcore.errors import BadInput
from dpcore.pose.skeleton import COCO_17, MPII_16, mapped

PEOPLE = frozenset({"person", "people", "human", "pedestrian", "man", "woman", "child", "athlete", "player", "patient"})
"""Names of categories that are people without being asked for."""

_NAMED = (*COCO_17.joints, "pelvis", "thorax", "upper_neck", "head_top")
_SIDES = {"l": "l", "left": "l", "r": "r", "right": "r"}
_LIMBS = tuple(name for name in COCO_17.joints if name.partition("_")[2] in {"shoulder", "elbow", "wrist", "hip", "knee", "ankle"})


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An entry of `images`: its file, and its size where the file states one."""

    file_name: str
    labelled_px: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What one COCO file says of all its people."""

    annotations: Path
    pictures: dict[str, _Picture]
    orders: dict[str, tuple[str, ...]]
    folder: PhotographFolder
    header: DatasetHeader
    box_scale: float
    tally: ImportTally


def import_coco(
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
    box_scale: float = 1.25,
    min_keypoints: int = 10,
    category: str | None = None,
    tally: ImportTally | None = None,
) -> Manifest:
    """Imports people from a file in COCO's form, mapped to MPII-16 by the names in `categories[].keypoints`.

    Names may be written `left_shoulder`, `l_shoulder` or `LShoulder`. All twelve limb joints must be there, and no name may be
    unknown. A file without names is read in COCO's own order of 17. Pelvis and thorax are derived, and labelled where both
    parents are; upper neck and head top are taken where the file names them. There is no head size, so PCKh cannot be counted.

    A person without a bbox is cropped around the labelled keypoints.

    Crowds, people with fewer than `min_keypoints` labelled keypoints and annotations of other categories are left out and
    counted.

    Args:
        annotations: the JSON file with `images`, `annotations` and, as a rule, `categories`.
        images: folder of the photographs.
        out: folder of the new dataset.
        name, role, protected, cohort, height_px, width_px: see `DatasetHeader`.
        box_scale: margin around the square hull of the person's box, or of the keypoints where there is none.
        min_keypoints: fewest labelled keypoints.
        category: the category of the people; None: the one that is named like people.
        tally: counts what was noticed and left out.

    Raises:
        BadInput: names file and record.
        Refused: `out` exists.
    """
    document = load_json(annotations)
    where = f"annotations {annotations}"
    _refuse_other_forms(document, where=where)
    people = list_of(document, "annotations", where=where)
    check_source(annotations, images, count=len(people), box_scale=box_scale)
    size = {"height_px": height_px, "width_px": width_px}
    origin = f"coco {annotations.name}, box_scale {box_scale}, at least {min_keypoints} keypoints"
    reading = _Reading(
        annotations=annotations,
        pictures=_pictures(document, where=where),
        orders=_orders(document, category, where=where),
        folder=PhotographFolder(images),
        header=dataset_header(name=name, role=role, protected=protected, cohort=cohort, origin=origin, crops="labels", **size),
        box_scale=box_scale,
        tally=tally or ImportTally(),
    )
    rows = (_record(reading, person, where) for where, person in _chosen(reading, people, least=min_keypoints))
    return write_shards(out, rows, header=reading.header)


def keypoint_name(name: str) -> str:
    """A keypoint's name as it is known here: `Left-Shoulder`, `LShoulder` and `left_shoulder` are `l_shoulder`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name.strip())
    lower = [word.lower() for word in words]
    if lower and lower[-1] in _SIDES and len(lower) > 1:
        lower = [lower[-1], *lower[:-1]]
    if lower and lower[0] in _SIDES:
        lower[0] = _SIDES[lower[0]]
    return "_".join(lower)


def mpii_of_coco(points: NDArray[np.floating], labelled: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """COCO-17 keypoints (17, 2) as MPII-16: (16, 2) and which are labelled (16,)."""
    return mapped(points, labelled, source=COCO_17, target=MPII_16)


def _refuse_other_forms(document: Any, *, where: str) -> None:
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        if "joints" in first:
            raise BadInput(f"{where}: this is a list as HRNet's; import it with `dpsweep data import hrnet`")
        if "data" in first and "annotations" in first:
            raise BadInput(f"{where}: this is an export of Label Studio; export COCO keypoints there and import that")
    if isinstance(document, dict) and "shapes" in document and "imagePath" in document:
        raise BadInput(f"{where}: this is a file of labelme; convert its points to COCO keypoints and import that")


def _pictures(document: Any, *, where: str) -> dict[str, _Picture]:
    found: dict[str, _Picture] = {}
    for row, image in enumerate(list_of(document, "images", where=where)):
        here = f"{where}, image {row}"
        key, name = id_of(image, "id", where=here), text_of(image, "file_name", where=here)
        if key in found and found[key].file_name != name:
            raise BadInput(f"{here}: id {key} stands for {found[key].file_name} and for {name}; give each picture its own id")
        stated = tuple(int(number_of(image, side, where=here)) for side in ("width", "height")) if "width" in image else None
        found[key] = _Picture(file_name=name, labelled_px=None if stated is None else (stated[0], stated[1]))
    return found


def _orders(document: Any, category: str | None, *, where: str) -> dict[str, tuple[str, ...]]:
    """Category id → the names of its keypoints in order, of the categories that are people."""
    if "categories" not in document:
        return {}
    orders, others = {}, []
    for row, entry in enumerate(list_of(document, "categories", where=where)):
        here = f"{where}, category {row}"
        title = text_of(entry, "name", where=here)
        named = entry.get("keypoints") or []
        if title != category and (category is not None or title.lower() not in PEOPLE):
            others.append(title)
            continue
        orders[id_of(entry, "id", where=here)] = _known_order(named, where=f"{here} ({title})") if named else COCO_17.joints
    if not orders:
        given = f"no category {category}" if category is not None else "no category of people"
        raise BadInput(f"{where}: {given}; it has {', '.join(others) or 'none'}. Name the one that holds people with --category")
    return orders


def _known_order(names: Any, *, where: str) -> tuple[str, ...]:
    order = tuple(keypoint_name(str(name)) for name in names)
    unknown = [str(name) for name, known in zip(names, order, strict=True) if known not in _NAMED]
    missing = [name for name in _LIMBS if name not in order]
    if unknown or missing or len(set(order)) != len(order):
        raise BadInput(
            f"{where}: unknown keypoints {', '.join(unknown) or 'none'}, missing {', '.join(missing) or 'none'}; expected each of "
            f"{', '.join(_LIMBS)} once, and perhaps {', '.join(name for name in _NAMED if name not in _LIMBS)}"
        )
    return order


def _chosen(reading: _Reading, people: list[Any], *, least: int) -> Iterator[tuple[str, Any]]:
    """The people that are imported, each with the words that name it in a message."""
    seen: Counter[str] = Counter()
    for row, person in enumerate(people):
        where = f"{reading.annotations}, annotation {row}"
        if reading.orders and id_of(person, "category_id", where=where) not in reading.orders:
            reading.tally.left_out["of another category"] += 1
            continue
        labels = array_of(person, "keypoints", (3 * len(_order_of(reading, person, where)),), where=where)[2::3]
        if "id" in person:
            seen[id_of(person, "id", where=where)] += 1
            if seen[id_of(person, "id", where=where)] > 1:
                raise BadInput(f"{where}: id {person['id']} is given twice; give each annotation its own id")
        if _is_crowd(person, where=where):
            reading.tally.left_out["a crowd"] += 1
        elif int((labels > 0).sum()) < least:
            reading.tally.left_out[f"fewer than {least} labelled keypoints"] += 1
        else:
            yield where, person


def _is_crowd(person: Any, *, where: str) -> bool:
    given = person.get("iscrowd", 0)
    if given not in (0, 1, "0", "1", None):
        raise BadInput(f"{where}: iscrowd must be 0 or 1, given {given!r}")
    return given in (1, "1")


def _order_of(reading: _Reading, person: Any, where: str) -> tuple[str, ...]:
    return reading.orders[id_of(person, "category_id", where=where)] if reading.orders else COCO_17.joints


def _record(reading: _Reading, person: Any, where: str) -> Record:
    key = id_of(person, "image_id", where=where)
    if key not in reading.pictures:
        raise BadInput(f"{where}: image_id {key} is not among the file's images")
    picture = reading.pictures[key]
    found = reading.folder.find(picture.file_name, record=where)
    photograph = load_photograph(found.path, record=where, labelled_px=picture.labelled_px)
    order = _order_of(reading, person, where)
    points = array_of(person, "keypoints", (3 * len(order),), where=where).reshape(-1, 3)
    labelled = placed(points[:, :2], points[:, 2] > 0, reading.tally)
    check_labels(points[:, :2], labelled, size_px=photograph.size, where=where, tally=reading.tally)
    joints, visible = _mapped(order, points[:, :2], labelled)
    hull = _hull_of(reading, person, points[labelled, :2], size_px=photograph.size, where=where)
    left, top, width, height = hull
    box = CropBox(
        # a box covers whole pixels: its middle lies half a pixel before the mean of its edges
        centre=(left + width / 2 - 0.5, top + height / 2 - 0.5),
        box_px=max(width, height) * reading.box_scale,
        height_px=reading.header.height_px,
        width_px=reading.header.width_px,
    )
    check_box(box, joints, visible, size_px=photograph.size, where=where)
    keypoints = box.to_crop(joints)
    check_keypoints(keypoints, visible, where=where)
    return Record(
        image=box.cut(photograph),
        keypoints=keypoints,
        visible=visible,
        head_size_px=math.nan,
        person_id=f"{found.image_id}#{person.get('id', where)}",
        image_id=found.image_id,
        video_id="",
        source_id=f"{Path(where).name} ({found.image_id})",
        box_px=box.reach,
        crop=box,
        person_box_px=(left, top, left + width, top + height),
        area_px2=number_of(person, "area", where=where) if person.get("area") is not None else math.nan,
    )


def _mapped(
    order: tuple[str, ...], points: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Keypoints (n, 2) in the file's order as MPII-16."""
    coco, there = np.zeros((COCO_17.count, 2)), np.zeros(COCO_17.count, dtype=bool)
    for index, name in enumerate(COCO_17.joints):
        if name in order:
            coco[index], there[index] = points[order.index(name)], labelled[order.index(name)]
    joints, visible = mpii_of_coco(coco, there)
    for name in order:
        if name in MPII_16.index and name not in COCO_17.index:
            joints[MPII_16.index[name]], visible[MPII_16.index[name]] = points[order.index(name)], labelled[order.index(name)]
    return joints, visible


def _hull_of(
    reading: _Reading, person: Any, labelled: NDArray[np.float64], *, size_px: tuple[int, int], where: str
) -> tuple[float, float, float, float]:
    """The person's box as left, top, width and height."""
    if person.get("bbox") is None and len(labelled):
        reading.tally.unboxed += 1
        low, high = labelled.min(axis=0), labelled.max(axis=0)
        left, top, width, height = (float(v) for v in (*low, *(high - low + 1)))  # whole pixels, the first and the last included
    else:
        left, top, width, height = (float(v) for v in array_of(person, "bbox", (4,), where=where))
    if not (math.isfinite(left) and math.isfinite(top) and 0 < max(width, height) < math.inf):
        raise BadInput(f"{where}: bbox must be finite and not empty, given {[left, top, width, height]}")
    _check_form(np.array([left, top, width, height]), labelled, size_px=size_px, where=where)
    return left, top, width, height


def _check_form(bbox: NDArray[np.float64], labelled: NDArray[np.float64], *, size_px: tuple[int, int], where: str) -> None:
    """Refuses a box of two corners, and one beside all of its person's keypoints."""
    start, extent = bbox[:2], bbox[2:]
    beyond = (start + extent > 1.1 * np.array(size_px)).any()
    as_corners = (extent > start).all() and (extent <= size_px).all()
    if beyond and as_corners and ((labelled >= start - 1) & (labelled <= extent + 1)).all():
        raise BadInput(f"{where}: bbox {bbox.tolist()} reads as x1 y1 x2 y2; COCO's form is x, y, width, height")
    if len(labelled) and not ((labelled >= start - 1) & (labelled <= start + extent + 1)).all(axis=-1).any():
        raise BadInput(f"{where}: no labelled keypoint lies in bbox {bbox.tolist()} (x, y, width, height in px); mend one of the two")
