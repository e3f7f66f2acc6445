"""Puts marked points together to people, for tools whose files hold points, boxes and perhaps groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.importers.label_checks import ImportTally, placed
from dpcore.importers.names import JointOrder, joint_order, keypoint_name
from dpcore.importers.people import Frame, LabelledPerson, LabelSource, PeopleFile, frame_of_box, frame_of_joints
from dpcore.pose.skeleton import COCO_17


@dataclass(frozen=True, kw_only=True)
class MarkedPoint:
    """A point that somebody marked on a picture.

    Attributes:
        name: the joint, as the tool spells it.
        x, y: px of the picture, 0-based.
        group: which points belong together; empty where the tool does not say.
        labelled: False: the tool says that the joint is not to be seen and its place means nothing.
    """

    name: str
    x: float
    y: float
    group: str = ""
    labelled: bool = True


@dataclass(frozen=True, kw_only=True)
class MarkedBox:
    """A box that somebody drew around a person: left, top, width, height, px. Its `group` as for points."""

    bbox: tuple[float, float, float, float]
    group: str = ""

    def holds(self, point: MarkedPoint) -> bool:
        """Whether a point lies in the box."""
        left, top, width, height = self.bbox
        return left <= point.x <= left + width and top <= point.y <= top + height


@dataclass(frozen=True, kw_only=True)
class MarkedPicture:
    """What was marked on one picture. Attributes as in `LabelledPerson`; `points` and `boxes` are of all its people."""

    where: str
    source_id: str
    picture: str
    labelled_px: tuple[int, int]
    points: tuple[MarkedPoint, ...]
    boxes: tuple[MarkedBox, ...] = ()


@dataclass(kw_only=True)
class _Group:
    """One person while the points are put together."""

    name: str
    points: list[MarkedPoint] = field(default_factory=list)
    box: MarkedBox | None = None


def people_of(source: LabelSource, pictures: Iterable[MarkedPicture], *, names: tuple[str, ...] = (), origin: str) -> PeopleFile:
    """The people of marked pictures.

    Points of one group are one person. Points without a group belong to the one box that holds them. On a picture without boxes and
    groups they are one person, if no joint stands there twice.

    Args:
        source: counts what is noticed.
        pictures: in the order of the files.
        names: the joints in the tool's own order; empty: in the order in which they come.
        origin: see `PeopleFile`.

    Raises:
        BadInput: names picture and point.
    """
    marked = list(pictures)
    spelled: dict[str, str] = {}
    for name in (*names, *(point.name for picture in marked for point in picture.points)):
        spelled.setdefault(keypoint_name(name) or name, name)
    if not spelled:
        return PeopleFile(skeleton=COCO_17, people=(), origin=origin)
    order = joint_order(spelled.values(), title="person", where=f"annotations {source.annotations}")
    places = {joint: place for place, joint in enumerate(spelled)}
    people = []
    for picture in marked:
        with source.record():
            people += [_person(source, picture, group, order, places) for group in _groups(picture, source.tally)]
    return PeopleFile(skeleton=order.skeleton, people=tuple(people), origin=origin)


def _groups(picture: MarkedPicture, tally: ImportTally) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for point in picture.points:
        key = point.group or _group_by_box(picture, point)
        groups.setdefault(key, _Group(name=key)).points.append(point)
    for place, box in enumerate(picture.boxes):
        key = box.group if box.group in groups else f"box {place}"
        if key not in groups:
            tally.left_out["a box without keypoints"] += 1
        elif groups[key].box is not None:
            raise BadInput(f"{picture.where}: two boxes in {key}; give each person a group of its own in the tool")
        else:
            groups[key].box = box
    return list(groups.values())


def _group_by_box(picture: MarkedPicture, point: MarkedPoint) -> str:
    if not picture.boxes:
        return ""
    holding = [place for place, box in enumerate(picture.boxes) if box.holds(point)]
    if len(holding) != 1:
        raise BadInput(
            f"{picture.where}: {point.name} at ({point.x:.1f}, {point.y:.1f}) lies in {len(holding)} boxes, so nothing says whose it is; "
            "group the points of each person in the tool"
        )
    return picture.boxes[holding[0]].group or f"box {holding[0]}"


def _person(source: LabelSource, picture: MarkedPicture, group: _Group, order: JointOrder, places: dict[str, int]) -> LabelledPerson:
    where = f"{picture.where}, person {group.name}" if group.name else picture.where
    points, said = _arrays(group, places, where=where)
    joints, said = points[list(order.places)], said[list(order.places)]
    labelled = placed(joints, said, source.tally)
    return LabelledPerson(
        where=where,
        source_id=f"{picture.source_id}, person {group.name}" if group.name else picture.source_id,
        picture=picture.picture,
        labelled_px=picture.labelled_px,
        person=group.name or "0",
        joints=joints,
        labelled=labelled,
        frame=_frame(source, group, joints[labelled], where=where),
    )


def _arrays(group: _Group, places: dict[str, int], *, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    joints, said, seen = np.zeros((len(places), 2)), np.zeros(len(places), dtype=bool), set()
    for point in group.points:
        place = places[keypoint_name(point.name)]
        if place in seen:
            raise BadInput(f"{where}: two points {point.name}; if they are of two people, group each person's points in the tool")
        seen.add(place)
        joints[place], said[place] = (point.x, point.y), point.labelled
    return joints, said


def _frame(source: LabelSource, group: _Group, labelled: NDArray[np.float64], *, where: str) -> Frame:
    return frame_of_joints(labelled, source.tally, where=where) if group.box is None else frame_of_box(group.box.bbox, where=where)
