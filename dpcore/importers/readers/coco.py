"""Reads keypoints in COCO's form, by the names of the keypoints and not by their order.

COCO, Human-Art, CrowdPose, AI Challenger (converted), OCHuman, PoseTrack 2018, Halpe, MHP, ExLPose, J-HMDB, and what CVAT, Roboflow and
others export as COCO keypoints.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.importers.documents import array_of, entry_of, id_of, list_of, load_json, number_of, text_of
from dpcore.importers.label_checks import placed
from dpcore.importers.names import PEOPLE, JointOrder, joint_order, order_of
from dpcore.importers.people import LabelledPerson, LabelSource, PeopleFile, frame_of_box, frame_of_joints
from dpcore.pose.pckh import head_size_of_box
from dpcore.pose.skeleton import COCO_17, HALPE_26, Skeleton

NAMELESS: dict[int, Skeleton] = {17: COCO_17, 26: HALPE_26, 133: COCO_17, 136: HALPE_26}
"""Number of keypoints in a file that does not name them → the skeleton of the first ones. 133: COCO-WholeBody, 136: Halpe-FullBody."""

_LARGEST_CODE = 2
"""Visibility: 0 not labelled, 1 labelled and hidden, 2 labelled and seen."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An entry of `images`: its file, its size where the file states one, and its video."""

    file_name: str
    labelled_px: tuple[int, int] | None
    video: str


@dataclass(frozen=True, kw_only=True)
class _Category:
    """A category of people: how many keypoints its people have in the file, and which of them are read."""

    stored: int
    order: JointOrder


def read_coco(source: LabelSource, *, min_keypoints: int = 10, category: str | None = None) -> PeopleFile:
    """The people of a file in COCO's form.

    Crowds, people with fewer than `min_keypoints` labelled keypoints and annotations of other categories are left out and counted.

    | keypoints of a category | how they are read |
    |---|---|
    | named | by their names (`left_shoulder`, `l_shoulder` and `LShoulder` are one) |
    | 17, no names | COCO's |
    | 26 or 136, no names | Halpe's body: the first 26 |
    | 133, for 17 names or none | COCO-WholeBody's body: the first 17 |
    | another number without names | refused, unless `source.order` has that number |
    | fewer than names, the others in `keypoints_N` | Human-Art's body: the first ones |

    Args:
        source: the file and its pictures.
        min_keypoints: fewest labelled keypoints.
        category: the category of the people; None: the one that is named like people.

    Raises:
        BadInput: names file and record.
    """
    document = load_json(source.annotations, wanted="coco")
    where = f"annotations {source.annotations}"
    people = list_of(document, "annotations", where=where)
    if not people:
        return PeopleFile(skeleton=COCO_17, people=(), origin=f"coco {source.annotations.name}")
    pictures = _pictures(document, where=where)
    categories = _categories(source, document, people, category=category)
    reading = _Reading(source=source, pictures=pictures, categories=categories, least=min_keypoints)
    found = []
    for row, person in enumerate(people):
        with source.record():
            found += reading.person(row, person)
    origin = f"coco {source.annotations.name}, at least {min_keypoints} keypoints"
    return PeopleFile(skeleton=reading.skeleton, people=tuple(found), origin=origin)


def _pictures(document: Any, *, where: str) -> dict[str, _Picture]:
    found: dict[str, _Picture] = {}
    for row, image in enumerate(list_of(document, "images", where=where)):
        here = f"{where}, image {row}"
        key, name = id_of(image, "id", where=here), text_of(image, "file_name", where=here)
        if key in found and found[key].file_name != name:
            raise BadInput(f"{here}: id {key} stands for {found[key].file_name} and for {name}; give each picture its own id")
        stated = tuple(int(number_of(image, side, where=here)) for side in ("width", "height")) if "width" in image else None
        video = next((id_of(image, name, where=here) for name in ("vid_id", "video_id") if image.get(name) not in (None, "")), "")
        found[key] = _Picture(file_name=name, labelled_px=None if stated is None else (stated[0], stated[1]), video=video)
    return found


def _categories(source: LabelSource, document: Any, people: list[Any], *, category: str | None) -> dict[str, _Category]:
    """Category id → how its people are read, of the categories that are people. The id is empty if the file has no categories."""
    where = f"annotations {source.annotations}"
    if not any(isinstance(person, dict) and person.get("keypoints") for person in people):
        raise BadInput(f"{where}: no annotation has keypoints; of COCO's own files, person_keypoints_*.json has")
    if "categories" not in document:
        return {"": _category({}, people, source=source, where=where)}
    found, others = {}, []
    for row, entry in enumerate(list_of(document, "categories", where=where)):
        here = f"{where}, category {row}"
        title, key = text_of(entry, "name", where=here), id_of(entry, "id", where=here)
        if title != category and (category is not None or title.lower() not in PEOPLE):
            others.append(title)
            continue
        of_it = [person for person in people if isinstance(person, dict) and str(person.get("category_id")) == key]
        if any(person.get("keypoints") for person in of_it):
            found[key] = _category(entry, of_it, source=source, where=f"{here} ({title})")
        elif not entry.get("keypoints"):
            others.append(f"{title} (without keypoints)")
    if not found:
        given = f"no category {category}" if category is not None else "no category of people"
        raise BadInput(
            f"{where}: {given} with keypoints; it has {', '.join(others) or 'none'}. Name the one that holds people with --category"
        )
    skeletons = {one.order.skeleton.name: one.order.skeleton for one in found.values()}
    if len({skeleton.joints for skeleton in skeletons.values()}) > 1:
        raise BadInput(f"{where}: its categories have different skeletons ({', '.join(skeletons)}); choose one category with --category")
    return found


def _category(entry: Any, people: list[Any], *, source: LabelSource, where: str) -> _Category:
    first: dict[str, Any] = next((person for person in people if isinstance(person, dict) and person.get("keypoints")), {})
    stored = _numbers_of(first, where=where).size // 3 if first else 0
    names = [str(name) for name in entry.get("keypoints") or []]
    named = len(names)
    if names and stored < named and f"keypoints_{named}" in first:
        names = names[:stored]
    elif names and stored in (0, named):
        stored = named
    elif names and not (named == COCO_17.count and stored in NAMELESS):
        raise BadInput(f"{where}: {named} keypoints are named, its people have {stored}; mend one of the two")
    if not names:
        return _Category(stored=stored, order=_nameless(stored, source=source, where=where))
    lines = _lines(entry, named=len(names), where=where)
    return _Category(stored=stored, order=joint_order(names, title=str(entry.get("name", "person")), where=where, lines=lines))


def _nameless(stored: int, *, source: LabelSource, where: str) -> JointOrder:
    if source.order is not None and source.order.count == stored:
        return order_of(source.order)
    if stored not in NAMELESS or source.order is not None:
        asked = "" if source.order is None else f", {source.order.name} has {source.order.count}"
        raise BadInput(
            f"{where}: {stored} keypoints without names{asked}; name them in categories[].keypoints, or their order with --order"
        )
    skeleton = NAMELESS[stored]
    source.tally.noticed[f"category of {stored} keypoints without names: its first {skeleton.count} are read as {skeleton.name}"] += 1
    return order_of(skeleton)


def _lines(entry: Any, *, named: int, where: str) -> tuple[tuple[int, int], ...]:
    """The lines of `skeleton`, whose places count from 1; from 0 in files that have a place 0."""
    given = entry.get("skeleton") or []
    try:
        pairs = [(int(a), int(b)) for a, b in given]
    except (TypeError, ValueError):
        raise BadInput(f"{where}: skeleton must be pairs of places among the keypoints, given {given!r:.80}") from None
    first = 0 if any(0 in pair for pair in pairs) else 1
    return tuple((a - first, b - first) for a, b in pairs if first <= min(a, b) and max(a, b) - first < named)


def _numbers_of(person: Any, *, where: str) -> NDArray[np.float64]:
    """The keypoints of a person, (3·n,): flat, or in threes."""
    value = entry_of(person, "keypoints", where=where)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: keypoints must be numbers x, y, visibility; given {value!r:.80}") from None
    if array.size % 3 or array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 3):
        raise BadInput(f"{where}: keypoints must be numbers x, y, visibility of each joint; given the shape {array.shape}")
    return array.ravel()


class _Reading:
    """One COCO file while its people are read."""

    def __init__(self, *, source: LabelSource, pictures: dict[str, _Picture], categories: dict[str, _Category], least: int) -> None:
        self._source, self._pictures, self._categories, self._least = source, pictures, categories, least
        self._seen: Counter[str] = Counter()

    @property
    def skeleton(self) -> Skeleton:
        """Of all its people."""
        return next(iter(self._categories.values())).order.skeleton

    def person(self, row: int, person: Any) -> list[LabelledPerson]:
        """The person in a list, or nothing, with the reason counted."""
        where = f"{self._source.annotations}, annotation {row}"
        key = "" if "" in self._categories else id_of(person, "category_id", where=where)
        if key not in self._categories:
            return self._left_out("of another category")
        if not person.get("keypoints"):
            return self._left_out("without keypoints")
        joints, labelled = self._joints(person, self._categories[key], where)
        self._refuse_twice(person, where)
        if _is_crowd(person, where=where):
            return self._left_out("a crowd")
        if int(labelled.sum()) < self._least:
            return self._left_out(f"fewer than {self._least} labelled keypoints")
        return [self._labelled(row, person, joints, placed(joints, labelled, self._source.tally))]

    def _labelled(self, row: int, person: Any, joints: NDArray[np.float64], labelled: NDArray[np.bool_]) -> LabelledPerson:
        where = f"{self._source.annotations}, annotation {row}"
        image = id_of(person, "image_id", where=where)
        if image not in self._pictures:
            raise BadInput(f"{where}: image_id {image} is not among the file's images")
        picture = self._pictures[image]
        if person.get("bbox") is None and labelled.any():
            frame = frame_of_joints(joints[labelled], self._source.tally, where=where)
        else:
            left, top, width, height = (float(value) for value in array_of(person, "bbox", (4,), where=where))
            frame = frame_of_box((left, top, width, height), where=where)
        return LabelledPerson(
            where=where,
            source_id=f"{self._source.annotations.name}, annotation {row}",
            picture=picture.file_name,
            labelled_px=picture.labelled_px,
            person=str(person.get("id", f"annotation {row}")),
            joints=joints,
            labelled=labelled,
            frame=frame,
            head_size_px=_head_size(person, where=where),
            area_px2=number_of(person, "area", where=where) if person.get("area") is not None else math.nan,
            video=picture.video,
        )

    def _joints(self, person: Any, category: _Category, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        values = _numbers_of(person, where=where)
        if values.shape != (3 * category.stored,):
            raise BadInput(f"{where}: keypoints must have the shape {(3 * category.stored,)}, given {values.shape}")
        points = values.reshape(-1, 3)[list(category.order.places)]
        if (points[:, 2] > _LARGEST_CODE).any():
            raise BadInput(
                f"{where}: visibility {points[:, 2].max():g}; COCO's codes are 0 (not labelled), 1 and 2. In AI Challenger's own form "
                "3 means not labelled: write 0 there"
            )
        return points[:, :2], points[:, 2] > 0

    def _refuse_twice(self, person: Any, where: str) -> None:
        if "id" in person:
            key = id_of(person, "id", where=where)
            self._seen[key] += 1
            if self._seen[key] > 1:
                raise BadInput(f"{where}: id {person['id']} is given twice; give each annotation its own id")

    def _left_out(self, reason: str) -> list[LabelledPerson]:
        self._source.tally.left_out[reason] += 1
        return []


def _is_crowd(person: Any, *, where: str) -> bool:
    given = person.get("iscrowd", 0)
    if given not in (0, 1, "0", "1", None):
        raise BadInput(f"{where}: iscrowd must be 0 or 1, given {given!r}")
    return given in (1, "1")


def _head_size(person: Any, *, where: str) -> float:
    """Of PoseTrack's head box x, y, width, height: 0.6 · diagonal, px; 0 where there is none."""
    if not person.get("bbox_head"):
        return 0.0
    x, y, width, height = (float(value) for value in array_of(person, "bbox_head", (4,), where=where))
    if not (width >= 0 and height >= 0 and math.isfinite(x + y + width + height)):
        raise BadInput(f"{where}: bbox_head must be x, y, width, height, given {[x, y, width, height]}")
    return float(head_size_of_box(np.array([[[x, y], [x + width, y + height]]]))[0])
