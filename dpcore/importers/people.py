"""The form between annotation files and datasets: people with named joints, each on a picture.

A reader turns the files of one format into a `PeopleFile`. All that follows (pictures, crops, checks, shards) is the same for every format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.data.manifest import Crops
from dpcore.errors import BadInput
from dpcore.importers.label_checks import SHOWN, ImportTally
from dpcore.pose.skeleton import Skeleton


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """What a reader is given.

    Attributes:
        annotations: the file, or the folder, of the annotations.
        images: the folder of the pictures.
        order: whose order the joints have in a file that does not name them; None: the format's own.
        skip_broken: whether a record that is wrong is left out and counted, instead of ending the import.
        tally: counts what is noticed and left out.
        problems: messages on records that are wrong and end the import, once all were read.
    """

    annotations: Path
    images: Path
    order: Skeleton | None = None
    skip_broken: bool = False
    tally: ImportTally = field(default_factory=ImportTally)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Around the reading of one record: what is wrong with it is kept, and the next one follows."""
        try:
            yield
        except BadInput as error:
            self.wrong([str(error)], what="records are wrong", now=False)

    def wrong(self, messages: list[str], *, what: str, now: bool = True) -> None:
        """Counts broken records with `skip_broken`; without it, refuses them together.

        Args:
            messages: one for each record.
            what: is wrong with them, in a few words.
            now: False: they are refused with the next call.

        Raises:
            BadInput: counts them and shows the first ones.
        """
        if self.skip_broken:
            for message in messages:
                self.tally.broke(message)
            return
        self.problems.extend(messages)
        if not now or not self.problems:
            return
        if len(self.problems) == 1:
            raise BadInput(self.problems[0])
        shown = "\n".join(f"  {message}" for message in self.problems[:SHOWN])
        more = f"\n  and {len(self.problems) - SHOWN} more" if len(self.problems) > SHOWN else ""
        raise BadInput(f"{len(self.problems)} {what}; mend them, or leave them out with --skip-broken\n{shown}{more}")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a person is in the picture, px, 0-based.

    Attributes:
        centre: (x, y) of the middle.
        side_px: of the square around the person, before any margin.
        bbox: left, top, width, height, if the file gives such a box. It is held against the joints.
    """

    centre: tuple[float, float]
    side_px: float
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPerson:
    """One person of an annotation file.

    Attributes:
        where: names the record in messages, with its file.
        source_id: names it in the dataset, without folders of this machine. The picture's id is added.
        picture: the picture's file name as the annotations spell it.
        labelled_px: width and height of the picture that was labelled; None where the file does not say.
        person: tells the person from others on the same picture.
        joints: (K, 2) px of the picture as it was labelled, 0-based.
        labelled: (K,) which joints have a label.
        frame: where the person is.
        head_size_px: the PCKh denominator, px of the picture; 0 where unknown.
        area_px2: of the person, as OKS takes it, px² of the picture; NaN where unknown.
        video: names the video that the picture is a frame of; empty where unknown.
    """

    where: str
    source_id: str
    picture: str
    labelled_px: tuple[int, int] | None = None
    person: str
    joints: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    frame: Frame
    head_size_px: float = 0.0
    area_px2: float = math.nan
    video: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PeopleFile:
    """What a reader found.

    Attributes:
        skeleton: the joints, in the order of every person's `joints`.
        people: in the file's order.
        origin: the format, the file's name and what was chosen from it, for the manifest.
        crops: who placed the frames.
    """

    skeleton: Skeleton
    people: tuple[LabelledPerson, ...]
    origin: str
    crops: Crops = "labels"


def frame_of_box(bbox: tuple[float, float, float, float], *, where: str) -> Frame:
    """The frame of a box left, top, width, height in px.

    Raises:
        BadInput: it is not finite, or empty.
    """
    left, top, width, height = bbox
    if not (math.isfinite(left) and math.isfinite(top) and 0 < max(width, height) < math.inf):
        raise BadInput(f"{where}: bbox must be finite and not empty, given {[left, top, width, height]}")
    # a box covers whole pixels: its middle lies half a pixel before the mean of its edges
    return Frame(centre=(left + width / 2 - 0.5, top + height / 2 - 0.5), side_px=max(width, height), bbox=bbox)


def frame_of_joints(labelled: NDArray[np.float64], tally: ImportTally, *, where: str) -> Frame:
    """The frame of a person without a box: the hull of the labelled joints (n, 2) px. Counted.

    Raises:
        BadInput: no joint is labelled, or one has no finite place.
    """
    if not len(labelled):
        raise BadInput(f"{where}: neither a box nor a labelled keypoint; nothing says where the person is")
    tally.noticed["people without a bbox: cropped around their labelled keypoints"] += 1
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    left, top, width, height = (float(v) for v in (*low, *(high - low + 1)))  # whole pixels, the first and the last included
    return frame_of_box((left, top, width, height), where=where)


def first_existing(images: Path, names: Iterable[str]) -> str:
    """The first of several spellings of a picture's name that is a file below `images`; the last spelling, if none is.

    Tools rename pictures, and write them with folders of other machines.
    """
    spellings = [name for name in dict.fromkeys(names) if name]
    return next((name for name in spellings if not name.startswith(("/", "..")) and (images / name).is_file()), spellings[-1])
