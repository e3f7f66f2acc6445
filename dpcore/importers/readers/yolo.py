"""Reads YOLO-pose datasets: data.yaml, and for each picture a text file with fractions of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.data.photographs import PICTURE_SUFFIXES, size_as_seen
from dpcore.errors import BadInput
from dpcore.importers.documents import read_content
from dpcore.importers.foreign import refuse_foreign_file
from dpcore.importers.label_checks import placed
from dpcore.importers.names import PEOPLE, JointOrder, joint_order, order_of
from dpcore.importers.people import LabelledPerson, LabelSource, PeopleFile, frame_of_box
from dpcore.pose.skeleton import COCO_17, Skeleton


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the rows of the text files are read.

    Attributes:
        person: the number of the class that is people.
        values: numbers for each joint: x and y, or x, y and visibility.
        order: the joints.
    """

    person: int
    values: int
    order: JointOrder

    @property
    def columns(self) -> int:
        """Numbers in a row: class, box, joints."""
        return 5 + len(self.order.places) * self.values


def read_yolo(source: LabelSource, *, labels: Path | None = None, category: str | None = None) -> PeopleFile:
    """The people of a YOLO-pose dataset.

    The joints are named by `kpt_names`. Without it, 17 joints are COCO's if `flip_idx` says nothing else, and any other number needs
    `source.order`.

    Args:
        source: data.yaml, and the folder of one part's pictures.
        labels: the folder of the text files; None: the pictures' folder with `labels` in the place of its last `images`.
        category: the class of the people; None: the one that is named like people, or the only one.

    Raises:
        BadInput: names file and line.
    """
    document = _yaml(source.annotations)
    layout = _layout(source, document, category)
    folder = labels or _labels_beside(source.images)
    if not folder.is_dir():
        raise BadInput(f"labels {folder}: no such folder; give the folder of the text files with --labels")
    people = []
    for picture, file in _pairs(source, folder):
        with source.record():
            people += _people(source, layout, picture, file)
    return PeopleFile(skeleton=layout.order.skeleton, people=tuple(people), origin=f"yolo {source.annotations.name}, {folder.name}")


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    content = read_content(path)
    refuse_foreign_file(path, content, wanted="yolo")
    try:
        document = YAML(typ="safe", pure=True).load(content.decode("utf-8-sig"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"annotations {path}: not readable as YAML ({error})") from None
    if not isinstance(document, dict) or "kpt_shape" not in document:
        raise BadInput(f"annotations {path}: no kpt_shape in it; expected the data.yaml of a YOLO-pose dataset")
    return document


def _layout(source: LabelSource, document: dict[str, Any], category: str | None) -> _Layout:
    where = f"annotations {source.annotations}"
    shape = document["kpt_shape"]
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape) and shape[1] in (2, 3)):
        raise BadInput(f"{where}: kpt_shape must be [joints, 2 or 3], given {shape!r}")
    given = document.get("names", {})
    classes = dict(enumerate(given)) if isinstance(given, list) else dict(given)
    people = [number for number, name in classes.items() if (str(name) == category if category else str(name).lower() in PEOPLE)]
    if not people and category is None and len(classes) == 1:
        people = list(classes)
    if len(people) != 1:
        raise BadInput(
            f"{where}: classes {', '.join(map(str, classes.values())) or 'none'}; name the one that holds people with --category"
        )
    order = _order(source, document, shape[0], people[0], title=str(classes[people[0]]))
    return _Layout(person=int(people[0]), values=shape[1], order=order)


def _order(source: LabelSource, document: dict[str, Any], count: int, person: Any, *, title: str) -> JointOrder:
    where = f"annotations {source.annotations}"
    flips = document.get("flip_idx")
    if flips is not None and sorted(flips) != list(range(count)):
        raise BadInput(f"{where}: flip_idx must hold each of 0 … {count - 1} once, given {flips!r:.80}")
    given = document.get("kpt_names")
    names = given.get(person) if isinstance(given, dict) else given
    if names is not None:
        if len(names) != count:
            raise BadInput(f"{where}: {len(names)} kpt_names for {count} joints of kpt_shape; mend one of the two")
        return _with_pairs(joint_order(names, title=title, where=where), flips, where=where)
    skeleton = source.order or COCO_17
    if skeleton.count != count or (flips is not None and tuple(flips) != skeleton.mirrored):
        raise BadInput(
            f"{where}: {count} joints without names, and they are not in the order of {skeleton.name}; add kpt_names to the file, "
            "or name their order with --order"
        )
    if source.order is None:
        source.tally.noticed["class of 17 keypoints without names: read as coco_17"] += 1
    return order_of(skeleton)


def _with_pairs(order: JointOrder, flips: list[int] | None, *, where: str) -> JointOrder:
    """The order, its mirror images as `flip_idx` says. Names that say their side must agree with it."""
    if flips is None:
        return order
    skeleton, at = order.skeleton, order.places
    theirs = {(name, skeleton.joints[at.index(flips[at[place]])]) for place, name in enumerate(skeleton.joints)}
    pairs = {tuple(sorted(pair)) for pair in theirs if pair[0] != pair[1]}
    ours = {tuple(sorted(pair)) for pair in skeleton.flip_pairs}
    if pairs == ours:
        return order
    if ours:
        odd = ", ".join("-".join(pair) for pair in sorted(pairs ^ ours))
        raise BadInput(f"{where}: flip_idx and the names of the joints differ on the mirror images {odd}; mend one of the two")
    return JointOrder(
        skeleton=Skeleton(name=skeleton.name, joints=skeleton.joints, lines=skeleton.lines, flip_pairs=tuple(sorted(pairs))), places=at
    )


def _labels_beside(images: Path) -> Path:
    parts = list(images.resolve().parts)
    if "images" not in parts:
        raise BadInput(f"images {images}: no folder `images` in this path; give the folder of the text files with --labels")
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _pairs(source: LabelSource, labels: Path) -> Iterator[tuple[str, Path]]:
    """Each picture below the folder, and its text file."""
    files = {path.relative_to(labels).with_suffix("") for path in labels.rglob("*.txt")}
    for path in sorted(path for path in source.images.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES):
        place = path.relative_to(source.images)
        if place.with_suffix("") in files:
            files.discard(place.with_suffix(""))
            yield place.as_posix(), labels / place.with_suffix(".txt")
        else:
            source.tally.left_out["a picture without a text file"] += 1
    source.tally.left_out["a text file without a picture"] += len(files - {Path("classes")})


def _people(source: LabelSource, layout: _Layout, picture: str, file: Path) -> list[LabelledPerson]:
    size_px = size_as_seen(source.images / picture, record=str(file))
    people = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        where = f"{file}, line {number}"
        if line.strip() and (row := _row(line, layout, where=where)) is not None:
            people.append(_person(source, layout, picture, (file, number), row, size_px))
    return people


def _row(line: str, layout: _Layout, *, where: str) -> NDArray[np.float64] | None:
    """The numbers of a line; None if they are of another class."""
    try:
        row = np.array([float(value) for value in line.split()])
    except ValueError:
        raise BadInput(f"{where}: expected numbers, given {line!r:.80}") from None
    if row[0] != layout.person:
        return None
    if len(row) != layout.columns:
        raise BadInput(f"{where}: {len(row)} numbers; class, box and kpt_shape make {layout.columns}")
    if not ((row[1:5] >= 0) & (row[1:5] <= 1)).all():
        raise BadInput(f"{where}: the box {row[1:5].tolist()} must be fractions of the picture: x and y of its middle, width, height")
    return row


def _person(
    source: LabelSource, layout: _Layout, picture: str, place: tuple[Path, int], row: NDArray[np.float64], size_px: tuple[int, int]
) -> LabelledPerson:
    file, number = place
    where = f"{file}, line {number}"
    values = row[5:].reshape(-1, layout.values)[list(layout.order.places)]
    said = values[:, 2] > 0 if layout.values == 3 else np.ones(len(values), dtype=bool)
    x, y, width, height = (float(value) for value in row[1:5] * np.tile(size_px, 2))
    return LabelledPerson(
        where=where,
        source_id=f"{file.name}, line {number}",
        picture=picture,
        labelled_px=size_px,
        person=str(number),
        joints=values[:, :2] * size_px,
        labelled=placed(values[:, :2], said, source.tally),
        frame=frame_of_box((x - width / 2, y - height / 2, width, height), where=where),
    )
