"""Cuts the people of pictures out: reads each picture once, holds labels against it, makes the records of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dpcore.data.crops import CropBox
from dpcore.data.manifest import Record
from dpcore.data.photographs import FoundPhotograph, load_photograph
from dpcore.errors import BadInput
from dpcore.importers.label_checks import ImportTally, check_box, check_form, check_head, check_keypoints, check_labels
from dpcore.importers.people import LabelledPerson
from dpcore.pose.skeleton import Skeleton, mapped


@dataclass(frozen=True, kw_only=True)
class FoundPerson:
    """A labelled person and the picture that is meant."""

    person: LabelledPerson
    photograph: FoundPhotograph


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How people become crops.

    Attributes:
        height_px, width_px: of the crops.
        box_scale: margin around a person's frame.
        source: the skeleton of the labels.
        target: the skeleton of the dataset; joints are mapped by name.
    """

    height_px: int
    width_px: int
    box_scale: float
    source: Skeleton
    target: Skeleton


@dataclass(kw_only=True)
class CutPeople:
    """What was cut.

    Attributes:
        records: in the order of the people; those that are wrong are missing.
        problems: the messages on people who are wrong.
        tally: what was noticed.
    """

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tally: ImportTally = field(default_factory=ImportTally)


def cut_people(people: Iterable[FoundPerson], cut: Cut) -> CutPeople:
    """The records of people, with what is wrong. The people of one picture are cut together, so that it is read once."""
    found = list(people)
    made: dict[int, Record | str] = {}
    tally = ImportTally()
    by_picture: dict[tuple[Path, tuple[int, int] | None], list[int]] = {}
    for place, one in enumerate(found):
        by_picture.setdefault((one.photograph.path, one.person.labelled_px), []).append(place)
    for (path, labelled_px), places in by_picture.items():
        picture: Image.Image | None = None
        for place in places:
            try:
                picture = picture or load_photograph(path, record=found[place].person.where, labelled_px=labelled_px)
                made[place] = _record(found[place], picture, cut, tally)
            except BadInput as error:
                made[place] = str(error)
    ordered = [made[place] for place in range(len(found))]
    records = [one for one in ordered if isinstance(one, Record)]
    tally.labels += sum(int(record.visible.sum()) for record in records)
    return CutPeople(records=records, problems=[one for one in ordered if isinstance(one, str)], tally=tally)


def _record(found: FoundPerson, picture: Image.Image, cut: Cut, tally: ImportTally) -> Record:
    person, frame = found.person, found.person.frame
    check_labels(person.joints, person.labelled, size_px=picture.size, where=person.where, tally=tally)
    if frame.bbox is not None:
        check_form(np.array(frame.bbox), person.joints[person.labelled], size_px=picture.size, where=person.where)
    check_head(person.head_size_px, person.joints, person.labelled, cut.source.joints, tally=tally)
    side_px = frame.side_px * cut.box_scale
    box = CropBox(centre=frame.centre, box_px=side_px, height_px=cut.height_px, width_px=cut.width_px)
    check_box(box, person.joints, person.labelled, size_px=picture.size, where=person.where)
    keypoints, visible = box.to_crop(person.joints), person.labelled
    if cut.source.joints != cut.target.joints:
        keypoints, visible = mapped(np.where(visible[:, None], keypoints, 0.0), visible, source=cut.source, target=cut.target)
    check_keypoints(keypoints, visible, cut.target.joints, where=person.where)
    image_id = found.photograph.image_id
    return Record(
        image=box.cut(picture),
        keypoints=keypoints,
        visible=visible,
        head_size_px=person.head_size_px * box.zoom if person.head_size_px > 0 else math.nan,
        person_id=f"{image_id}#{person.person}",
        image_id=image_id,
        video_id=person.video,
        source_id=f"{person.source_id} ({image_id})",
        box_px=box.reach,
        crop=box,
        person_box_px=_corners(frame.bbox) if frame.bbox is not None else box.square(frame.side_px),
        area_px2=person.area_px2,
    )


def _corners(bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, width, height = bbox
    return left, top, left + width, top + height
