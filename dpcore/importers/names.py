"""Finds the skeleton that an annotation file means, by the names of its joints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpcore.config.parsing import parse_config
from dpcore.errors import BadInput
from dpcore.pose.skeleton import SKELETONS, Skeleton, mirrored_pairs

PEOPLE = frozenset({"person", "people", "human", "pedestrian", "man", "woman", "child", "athlete", "player", "patient"})
"""Names of categories that are people without being asked for."""

_SIDES = {"l": "l", "left": "l", "r": "r", "right": "r"}

SAME_PLACE: tuple[frozenset[str], ...] = (
    frozenset({"head_top", "head", "top_head", "top_of_head"}),
    frozenset({"neck", "upper_neck", "head_bottom"}),
    frozenset({"pelvis", "hip", "root", "root_pelvis", "mid_hip", "hips"}),
    frozenset({"thorax", "mid_shoulder"}),
)
"""Joints of one place, as datasets call them."""


def keypoint_name(name: str) -> str:
    """A keypoint's name as it is known here: `Left-Shoulder`, `LShoulder` and `left_shoulder` are `l_shoulder`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name.strip())
    lower = [word.lower() for word in words]
    if lower and lower[-1] in _SIDES and len(lower) > 1:
        lower = [lower[-1], *lower[:-1]]
    if lower and lower[0] in _SIDES and len(lower) > 1:
        lower[0] = _SIDES[lower[0]]
    return _joined(lower)


@dataclass(frozen=True, kw_only=True)
class JointOrder:
    """The joints of a file.

    Attributes:
        skeleton: its joints.
        places: for each joint of `skeleton` its place in the file.
    """

    skeleton: Skeleton
    places: tuple[int, ...]


def order_of(skeleton: Skeleton) -> JointOrder:
    """The joints of a file that has them in a skeleton's own order."""
    return JointOrder(skeleton=skeleton, places=tuple(range(skeleton.count)))


def joint_order(names: Iterable[str], *, title: str, where: str, lines: Sequence[tuple[int, int]] = ()) -> JointOrder:
    """The joints that these names mean.

    If they are all the joints of one of `SKELETONS`, in whatever order and spelling, it is that skeleton. Otherwise the skeleton is the
    file's own: the pairs `left …` and `right …` are mirror images, and `lines` are drawn.

    Args:
        names: of the joints, as the file spells them.
        title: what the joints belong to (`person`, `hand`): begins the name of a skeleton of the file's own.
        where: names the place in messages.
        lines: pairs of places among the names, from 0.

    Raises:
        BadInput: there is no name, a name without Latin letters or digits, or two that mean one joint.
    """
    given = tuple(str(name) for name in names)
    joints = tuple(keypoint_name(name) for name in given)
    nameless = [name for name, joint in zip(given, joints, strict=True) if not joint]
    twice = sorted({joint for joint in joints if joints.count(joint) > 1})
    if not joints or nameless or twice:
        wrong = f"no name for {', '.join(map(repr, nameless))}" if nameless else f"{', '.join(twice)} stands twice" if twice else "no joint"
        raise BadInput(
            f"{where}: {wrong} among the joints {', '.join(given) or 'none'}; give each joint a name of its own in Latin letters"
        )
    known = _known(joints)
    if known is not None:
        return known
    drawn = tuple((joints[a], joints[b]) for a, b in lines)
    values = {"name": _own_name(title, joints), "joints": joints, "flip_pairs": mirrored_pairs(joints), "lines": drawn}
    return order_of(parse_config(Skeleton, values, where=where))


def _known(joints: tuple[str, ...]) -> JointOrder | None:
    """The order in a skeleton of the table that has these joints, under its own names or those of `SAME_PLACE`; the nearest one."""
    every = [SKELETONS.get(name) for name in SKELETONS.own]
    places = tuple(map(_place, joints))
    found = [(skeleton, tuple(map(_place, skeleton.joints))) for skeleton in every if skeleton.count == len(joints)]
    alike = [(skeleton, theirs) for skeleton, theirs in found if len(set(places)) == len(places) and set(theirs) == set(places)]
    if not alike:
        return None
    nearest, theirs = min(alike, key=lambda one: (one[0].joints != joints, one[1] != places, set(one[0].joints) != set(joints)))
    return JointOrder(skeleton=nearest, places=tuple(places.index(place) for place in theirs))


def renamed(source: Skeleton, target: Skeleton) -> Skeleton:
    """`source` with the names of `target`, where the two have different names for one place."""
    names = dict(zip(source.joints, source.joints, strict=True))
    for joint in source.joints:
        same = [other for other in target.joints if other not in source.joints and _place(other) == _place(joint)]
        if joint not in target.joints and len(same) == 1 and same[0] not in names.values():
            names[joint] = same[0]
    return Skeleton(name=source.name, joints=tuple(names.values()))


def _place(joint: str) -> str:
    return next((min(names) for names in SAME_PLACE if joint in names), joint)


def _joined(words: list[str]) -> str:
    """Words joined by `_`; a number belongs to the word before it (`forefinger1`)."""
    joined = ""
    for word in words:
        joined += word if not joined or word.isdigit() else f"_{word}"
    return joined


def _own_name(title: str, joints: tuple[str, ...]) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "file"
    name = f"{words[:40]}_{len(joints)}"
    return f"own_{name}" if name in SKELETONS.own else name
