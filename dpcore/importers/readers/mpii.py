"""Reads MPII's own MATLAB file, mpii_human_pose_v1_u12_1.mat: RELEASE.annolist.

Coordinates are MATLAB's, 1-based. Each person has a head box, a centre and a scale. The frames of one video share `vididx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.data.crops import PIXEL_STD
from dpcore.errors import BadInput
from dpcore.importers.head_boxes import check_head_box
from dpcore.importers.label_checks import placed
from dpcore.importers.mat_files import load_mat
from dpcore.importers.people import Frame, LabelledPerson, LabelSource, PeopleFile, frame_of_joints
from dpcore.importers.readers.hrnet import MPII_CENTRE_SHIFT
from dpcore.pose.pckh import head_size_of_box
from dpcore.pose.skeleton import MPII_16

_FIRST = 1.0
"""MATLAB's first pixel."""


@dataclass(frozen=True, kw_only=True)
class _Release:
    """RELEASE, its parts as lists of one length."""

    images: list[Any]
    is_train: NDArray[np.bool_]
    single: list[frozenset[int]]
    videos: list[str]


def read_mpii(source: LabelSource, *, single_person: bool = False) -> PeopleFile:
    """The labelled people of MPII's training images.

    A joint is labelled if it has an annotation point, also where the point says that it is hidden. The frame is HRNet's: centre and
    scale, the centre moved down by 15 px · scale. The head size is 0.6 · the diagonal of the head box.

    Args:
        source: the .mat file and the images.
        single_person: only people who stand apart from others, as MPII's evaluation counts.

    Raises:
        BadInput: names file and person.
    """
    released = load_mat(source.annotations, "RELEASE", wanted="mpii", struct_as_record=False, squeeze_me=True)
    release = _release_of(released, where=f"annotations {source.annotations}")
    people = []
    for place, image in enumerate(release.images):
        for number, rect in enumerate(_listed(_part(image, "annorect")), 1):
            reason = _reason_to_leave_out(release, place, number, rect, single_person=single_person)
            if reason is not None:
                source.tally.left_out[reason] += 1
                continue
            with source.record():
                people.append(_person(source, image, place, number, rect, release.videos[place]))
    chosen = ", people who stand apart" if single_person else ""
    return PeopleFile(skeleton=MPII_16, people=tuple(people), origin=f"mpii {source.annotations.name}{chosen}")


def _release_of(released: Any, *, where: str) -> _Release:
    images = _listed(_part(released, "annolist"))
    if not images:
        raise BadInput(f"{where}: RELEASE has no annolist; expected mpii_human_pose_v1_u12_1.mat, or a part of it")
    train, single = _listed(_part(released, "img_train")), _listed(_part(released, "single_person"), of=len(images))
    if len(train) != len(images) or len(single) not in (0, len(images)):
        raise BadInput(f"{where}: {len(images)} images, {len(train)} values of img_train, {len(single)} of single_person; expected as many")
    names = [str(name) for name in _listed(_part(released, "video_list"))]
    return _Release(
        images=images,
        is_train=np.array([int(value) == 1 for value in train]),
        single=[frozenset(int(value) for value in np.atleast_1d(chosen).ravel()) for chosen in single] or [frozenset()] * len(images),
        videos=[_video(image, names) for image in images],
    )


def _reason_to_leave_out(release: _Release, place: int, number: int, rect: Any, *, single_person: bool) -> str | None:
    if not release.is_train[place]:
        return "on a test image, whose labels are not published"
    if not _points(rect):
        return "without joints"
    if single_person and number not in release.single[place]:
        return "too near to somebody else (single_person)"
    return None


def _person(source: LabelSource, image: Any, place: int, number: int, rect: Any, video: str) -> LabelledPerson:
    name = str(_part(_part(image, "image"), "name"))
    where = f"{source.annotations}, image {place + 1}, person {number} ({name})"
    joints, said = _joints(rect, where=where)
    labelled = placed(joints, said, source.tally)
    joints = joints - _FIRST
    return LabelledPerson(
        where=where,
        source_id=f"{source.annotations.name}, image {place + 1}, person {number}",
        picture=name,
        person=str(number),
        joints=joints,
        labelled=labelled,
        frame=_frame(rect, joints[labelled], source, where=where),
        head_size_px=_head_size(rect, where=where),
        video=video,
    )


def _joints(rect: Any, *, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    joints, said = np.zeros((MPII_16.count, 2)), np.zeros(MPII_16.count, dtype=bool)
    for point in _points(rect):
        joint = int(_number(point, "id", where=where))
        if not 0 <= joint < MPII_16.count:
            raise BadInput(f"{where}: point of joint {joint}; MPII's joints are 0 to {MPII_16.count - 1}")
        if said[joint]:
            raise BadInput(f"{where}: two points of joint {joint} ({MPII_16.joints[joint]}); leave one of them out")
        joints[joint], said[joint] = (_number(point, "x", where=where), _number(point, "y", where=where)), True
    return joints, said


def _frame(rect: Any, labelled: NDArray[np.float64], source: LabelSource, *, where: str) -> Frame:
    position = _part(rect, "objpos")
    if _part(position, "x") is None or _part(rect, "scale") is None:
        return frame_of_joints(labelled, source.tally, where=where)
    scale = _number(rect, "scale", where=where)
    if scale <= 0:
        raise BadInput(f"{where}: scale must be above 0, given {scale}")
    x, y = (_number(position, axis, where=where) - _FIRST for axis in ("x", "y"))
    return Frame(centre=(x, y + MPII_CENTRE_SHIFT * scale), side_px=scale * PIXEL_STD)


def _head_size(rect: Any, *, where: str) -> float:
    if any(_part(rect, name) is None for name in ("x1", "y1", "x2", "y2")):
        return 0.0
    corners = np.array([_number(rect, name, where=where) for name in ("x1", "y1", "x2", "y2")]).reshape(2, 2)
    check_head_box(corners, where=where)
    return float(head_size_of_box(corners[None])[0])


def _video(image: Any, names: list[str]) -> str:
    index = _part(image, "vididx")
    if index is None:
        return ""
    return names[int(index) - 1] if 0 < int(index) <= len(names) else f"video {int(index)}"


def _points(rect: Any) -> list[Any]:
    return _listed(_part(_part(rect, "annopoints"), "point"))


def _number(struct: Any, name: str, *, where: str) -> float:
    value = _part(struct, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {name} must be a number, given {value!r:.80}") from None
    if not np.isfinite(number):
        raise BadInput(f"{where}: {name} must be finite, given {number}")
    return number


def _part(struct: Any, name: str) -> Any:
    """A field of a MATLAB struct; None where it is missing or empty."""
    value = getattr(struct, name, None)
    return None if isinstance(value, np.ndarray) and value.size == 0 else value


def _listed(value: Any, *, of: int | None = None) -> list[Any]:
    """A MATLAB array as a list. `squeeze_me` gives the single element of an array without the array around it.

    Args:
        value: the array.
        of: its length, where its elements may be arrays themselves.
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray) and value.ndim and not (of == 1 and value.dtype != object):
        return list(value.ravel()) if of is None or len(value.ravel()) == of else [value]
    return [value]
