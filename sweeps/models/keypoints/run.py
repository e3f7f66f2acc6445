"""From a model and pictures to keypoints: finds, crops, predicts in batches, draws, and writes nothing before all of it is done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.data.crops import CropBox
from dpcore.data.folders import new_folder
from dpcore.errors import BadInput, Refused
from sweeps.models.claims import warning_about
from sweeps.models.keypoints.boxes import PersonBox, PictureBoxes, read_boxes
from sweeps.models.keypoints.drawing import draw_people
from sweeps.models.keypoints.estimator import Keypoints, PoseEstimator, placed
from sweeps.models.keypoints.people import PredictedPeople, PredictedPerson, check_out
from sweeps.models.keypoints.pictures import FoundPictures, Picture, broken_text, find_pictures

READERS = 2
"""Threads that decode pictures: the decoders release the interpreter."""
AT_ONCE = 32
"""People that go through the network at once."""


def _silent(done: int, count: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """A checked request.

    Attributes:
        pictures: files, folders, patterns.
        boxes: file of people's boxes; None: each whole picture is one crop.
        out: new file of the keypoints; None writes none.
        draw: new folder of drawn pictures; None draws none.
        skip_broken: leave out pictures that do not read, with a count.
        at_once: people that go through the network at once.
        device: cpu or cuda.
        box_scale: margin around a box; None: that of the training.
        on_progress: hears how many of how many pictures are done.
    """

    pictures: Sequence[str | Path]
    boxes: Path | None = None
    out: Path | None = None
    draw: Path | None = None
    skip_broken: bool = False
    at_once: int = AT_ONCE
    device: str = "cpu"
    box_scale: float | None = None
    on_progress: Callable[[int, int], None] = field(default=_silent)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One picture and the people on it."""

    picture: Picture
    people: tuple[PersonBox | None, ...]
    frame_px: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut:
    """The crops of one picture, or why there are none."""

    job: _Job
    crops: NDArray[np.uint8]
    boxes: tuple[CropBox, ...]
    broken: str | None = None


def predict_pictures(folder: Path, request: PredictRequest) -> PredictedPeople:
    """Keypoints of all people on all pictures, by the model in `folder`.

    Raises:
        BadInput: no model, no picture, a picture that does not read, or boxes of another form.
        Refused: `out` or `draw` exists. Corrupt: the weights are not those that were written. Unavailable: no such device.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder of a model, a trial or a training, or models:/NAME@ALIAS")
    if request.out is not None:
        check_out(request.out)
    if request.draw is not None and request.draw.exists():
        raise Refused(f"--draw {request.draw}: exists already and is not overwritten; give a new folder")
    found = find_pictures(request.pictures, skip_broken=request.skip_broken)
    boxes = None if request.boxes is None else read_boxes(request.boxes, found.pictures)
    estimator = PoseEstimator.load(folder, device=request.device, box_scale=request.box_scale)
    jobs = [_job(picture, boxes) for picture in found.pictures]
    with ExitStack() as stack:
        drawn = None if request.draw is None else stack.enter_context(new_folder(request.draw, private=False))
        pool = stack.enter_context(ThreadPoolExecutor(READERS))
        people, broken = _predicted(estimator, [job for job in jobs if job.people], request, pool=pool, drawn=drawn)
        result = PredictedPeople(
            joints=estimator.joints,
            people=tuple(people),
            pictures=len(found.pictures) - len(broken),
            left_out=_left_out(found, boxes, broken, jobs),
            warning=warning_about(folder),
            drawn=request.draw,
        )
    if request.out is not None:
        result.write(request.out)
    return result


def _job(picture: Picture, boxes: PictureBoxes | None) -> _Job:
    if boxes is None:
        return _Job(picture=picture, people=(None,), frame_px=None)
    return _Job(picture=picture, people=boxes.of.get(picture.name, ()), frame_px=boxes.frame_px.get(picture.name))


def _left_out(found: FoundPictures, boxes: PictureBoxes | None, broken: Sequence[str], jobs: Sequence[_Job]) -> dict[str, int]:
    """What was not used, by reason, without the zeros."""
    counts = {
        "pictures that cannot be read": len(found.broken) + len(broken),
        "files that are no pictures by their suffix": found.other_files,
        "pictures without a box": sum(not job.people for job in jobs),
        "boxes of pictures that were not given": 0 if boxes is None else boxes.elsewhere,
        **({} if boxes is None else {f"boxes {reason}": count for reason, count in boxes.left_out.items()}),
    }
    return {reason: count for reason, count in counts.items() if count}


def _predicted(
    estimator: PoseEstimator, jobs: Sequence[_Job], request: PredictRequest, *, pool: ThreadPoolExecutor, drawn: Path | None
) -> tuple[list[PredictedPerson], list[str]]:
    """The people, and the pictures that turned out to be damaged behind a sound header."""
    people: list[PredictedPerson] = []
    broken: list[str] = []
    done = 0
    names = _DrawnNames()
    for some in _chunks(jobs, max(1, min(request.at_once, AT_ONCE))):
        cuts = list(pool.map(lambda job: _cut(estimator, job), some))
        broken += [cut.broken for cut in cuts if cut.broken is not None]
        if broken and not request.skip_broken:
            raise BadInput(f"{broken_text(broken, len(jobs))}; mend them, or leave them out with --skip-broken. Nothing was written")
        whole = [cut for cut in cuts if cut.broken is None]
        found = _keypoints(estimator, whole, request.at_once)
        people += [person for one in found for person in one]
        if drawn is not None:
            targets = [drawn / names.of(cut.job.picture) for cut in whole]
            list(pool.map(lambda one: _draw(estimator, *one), zip(whole, found, targets, strict=True)))
        done += len(some)
        request.on_progress(done, len(jobs))
    return people, broken


def _chunks(jobs: Sequence[_Job], size: int) -> Iterator[tuple[_Job, ...]]:
    rest = iter(jobs)
    while some := tuple(itertools.islice(rest, size)):
        yield some


def _cut(estimator: PoseEstimator, job: _Job) -> _Cut:
    try:
        pixels = job.picture.load(job.frame_px)
    except BadInput as error:
        return _Cut(job=job, crops=np.empty(0, dtype=np.uint8), boxes=(), broken=str(error).removeprefix("pictures: "))
    boxes = tuple(estimator.crop_of(person, pixels.size) for person in job.people)
    return _Cut(job=job, crops=np.stack([box.cut(pixels) for box in boxes]), boxes=boxes)


def _keypoints(estimator: PoseEstimator, cuts: Sequence[_Cut], at_once: int) -> list[list[PredictedPerson]]:
    """The people of each picture, all crops of the chunk in batches."""
    if not cuts:
        return []
    found = estimator.in_batches(np.concatenate([cut.crops for cut in cuts]), at_once=at_once)
    ends = np.cumsum([len(cut.boxes) for cut in cuts]).tolist()
    return [_people(cut, found[end - len(cut.boxes) : end]) for cut, end in zip(cuts, ends, strict=True)]


def _people(cut: _Cut, found: Keypoints) -> list[PredictedPerson]:
    on_picture = placed(found, cut.boxes)
    rows = zip(cut.job.people, on_picture.points, on_picture.scores, strict=True)
    return [PredictedPerson(image=cut.job.picture.name, box=box, keypoints=points, scores=scores) for box, points, scores in rows]


class _DrawnNames:
    """Names of drawn pictures: those of the pictures, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, picture: Picture) -> str:
        """A name that no other picture has."""
        stem = picture.path.stem
        free = (f"{stem}.png" if not number else f"{stem}-{number}.png" for number in itertools.count())
        name = next(one for one in free if one not in self._taken)
        self._taken.add(name)
        return name


def _draw(estimator: PoseEstimator, cut: _Cut, people: Sequence[PredictedPerson], target: Path) -> None:
    shown = [(person.keypoints, person.scores) for person in people]
    pixels = cut.job.picture.load(cut.job.frame_px)
    draw_people(pixels, shown, joints=estimator.joints, lines=estimator.lines).save(target)
