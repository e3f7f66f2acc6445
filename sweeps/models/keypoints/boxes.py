"""Reads where people stand on pictures: a file of `--boxes`, checked against the pictures before the first is used.

| file | what it holds |
|---|---|
| COCO's form | `{"images": [{id, file_name, width, height}], "annotations": [{image_id, bbox}]}` |
| detections | `[{"image": file name, "bbox": [x, y, w, h], "score": s}]`; or `file_name`; or an `image_id`, the number in the name |
| CSV | a header `image,x,y,w,h`, with `score` if there is one |

A box is its left and top edge, width and height, in px of the picture. A name in the file means the one given picture whose path ends
with it.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dpcore.errors import BadInput
from dpcore.importers.documents import array_of, entry_of, id_of, list_of, load_json, number_of, text_of
from dpcore.importers.names import PEOPLE
from sweeps.models.keypoints.pictures import Picture

COLUMNS = ("image", "x", "y", "w", "h")
NAME_KEYS = ("image", "file_name")
BEYOND = 1.1
"""A box may reach over the edge, as detectors' boxes do. Corners in place of sizes reach far over it."""


@dataclass(frozen=True, kw_only=True)
class PersonBox:
    """Where one person stands.

    Attributes:
        left, top, width, height: px of the picture.
        score: of the detector; None where the file says none.
        image_id: of the picture, as the file writes it; None where it names files.
    """

    left: float
    top: float
    width: float
    height: float
    score: float | None = None
    image_id: int | str | None = None

    @property
    def values(self) -> tuple[float, float, float, float]:
        """x, y, w, h."""
        return self.left, self.top, self.width, self.height


@dataclass(frozen=True, kw_only=True)
class PictureBoxes:
    """The people of the given pictures.

    Attributes:
        of: name of a picture → its people.
        frame_px: name → width and height in which its boxes are meant, where the file states them.
        elsewhere: boxes of pictures that were not given.
        left_out: other boxes that were not taken, by reason.
    """

    of: Mapping[str, tuple[PersonBox, ...]]
    frame_px: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    elsewhere: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Of all people."""
        return sum(map(len, self.of.values()))


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One line of a file: the picture's name (or the number in it), the person, and the words that name the line."""

    where: str
    name: str | None
    person: PersonBox
    frame_px: tuple[int, int] | None = None


def read_boxes(path: Path, pictures: Sequence[Picture]) -> PictureBoxes:
    """The people that a file places on `pictures`.

    Raises:
        BadInput: the file is of another form, a box is empty, beside its picture, or reads as two corners or as fractions, or none
            belongs to a picture that was given.
    """
    left_out: Counter[str] = Counter()
    entries = list(_read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path, left_out))
    if not entries:
        raise BadInput(f"boxes {path}: no box in it; without --boxes each whole picture is one person's crop")
    found = _Names(pictures)
    people: dict[str, list[PersonBox]] = defaultdict(list)
    frames: dict[str, tuple[int, int]] = {}
    placed: list[tuple[_Entry, tuple[int, int]]] = []
    elsewhere = 0
    for entry in entries:
        picture = found.find(entry)
        if picture is None:
            elsewhere += 1
            continue
        frame = _frame(entry, picture)
        if entry.frame_px is not None:
            frames[picture.name] = frame
        people[picture.name].append(entry.person)
        placed.append((entry, frame))
    if not placed:
        first = entries[0]
        raise BadInput(
            f"boxes {path}: none of its {len(entries)} boxes belongs to a picture that was given (the first is of "
            f"{first.name or first.person.image_id}, the first picture is {pictures[0].name}); give the pictures that the file names"
        )
    _check(placed)
    return PictureBoxes(of={name: tuple(boxes) for name, boxes in people.items()}, frame_px=frames, elsewhere=elsewhere, left_out=left_out)


class _Names:
    """The given pictures by the ends of their paths."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._by_last: dict[str, list[Picture]] = defaultdict(list)
        self._by_number: dict[str, list[Picture]] = defaultdict(list)
        for picture in pictures:
            self._by_last[PurePosixPath(picture.name).name].append(picture)
            if picture.path.stem.isdigit():
                self._by_number[str(int(picture.path.stem))].append(picture)

    def find(self, entry: _Entry) -> Picture | None:
        """The picture of a line; None where it was not given.

        Raises:
            BadInput: two pictures fit.
        """
        if entry.name is None:
            fitting = self._by_number.get(str(entry.person.image_id), [])
        else:
            parts = PurePosixPath(entry.name.replace("\\", "/")).parts
            fitting = [one for one in self._by_last.get(parts[-1], []) if _ends_with(one, parts)]
        if len(fitting) > 1:
            named = " and ".join(one.name for one in fitting[:2])
            raise BadInput(f"{entry.where}: {entry.name or entry.person.image_id} may be {named}; name pictures with their folder")
        return fitting[0] if fitting else None


def _ends_with(picture: Picture, parts: tuple[str, ...]) -> bool:
    """Whether a path ends with these parts, or the parts with the path."""
    own = PurePosixPath(picture.name).parts
    shared = min(len(own), len(parts))
    return own[-shared:] == parts[-shared:] and (len(own) >= len(parts) or not parts[0].startswith("/"))


def _read_json(path: Path, left_out: Counter[str]) -> Iterator[_Entry]:
    document = load_json(path)
    if isinstance(document, dict) and "annotations" in document:
        yield from _read_coco(document, path, left_out)
        return
    if not isinstance(document, list):
        keys = ", ".join(sorted(document)[:6]) if isinstance(document, dict) else type(document).__name__
        raise BadInput(f"boxes {path}: expected COCO's form or a list of detections [{{image, bbox}}], given {keys}")
    for row, one in enumerate(document):
        where = f"boxes {path}, entry {row}"
        if isinstance(one, dict) and "bbox" not in one and {"center", "scale"} <= set(one):
            raise BadInput(f"{where}: this is a list as HRNet's; give boxes as x, y, width, height: [{{image, bbox}}]")
        if id_of(one, "category_id", where=where) != "1" if isinstance(one, dict) and "category_id" in one else False:
            left_out["of another category than people (1)"] += 1
            continue
        name = next((text_of(one, key, where=where) for key in NAME_KEYS if isinstance(one, dict) and key in one), None)
        image_id = entry_of(one, "image_id", where=where) if name is None else one.get("image_id")
        yield _Entry(where=where, name=name, person=_person(one, where=where, image_id=image_id))


def _read_coco(document: dict[str, Any], path: Path, left_out: Counter[str]) -> Iterator[_Entry]:
    images: dict[str, tuple[str, tuple[int, int] | None]] = {}
    for row, image in enumerate(list_of(document, "images", where=f"boxes {path}")):
        where = f"boxes {path}, image {row}"
        size = tuple(int(number_of(image, side, where=where)) for side in ("width", "height")) if "width" in image else None
        images[id_of(image, "id", where=where)] = text_of(image, "file_name", where=where), None if size is None else (size[0], size[1])
    categories = _people_of(document, path)
    for row, one in enumerate(list_of(document, "annotations", where=f"boxes {path}")):
        where = f"boxes {path}, annotation {row}"
        key = id_of(one, "image_id", where=where)
        if key not in images:
            raise BadInput(f"{where}: image_id {key} is not among the file's images")
        if categories is not None and id_of(one, "category_id", where=where) not in categories:
            left_out["of another category than people"] += 1
        elif one.get("iscrowd") in (1, "1"):
            left_out["a crowd"] += 1
        else:
            name, size = images[key]
            yield _Entry(where=where, name=name, person=_person(one, where=where, image_id=one["image_id"]), frame_px=size)


def _people_of(document: dict[str, Any], path: Path) -> frozenset[str] | None:
    """Ids of the categories that are people; None where the file has one category, or none."""
    categories = list_of(document, "categories", where=f"boxes {path}") if "categories" in document else []
    if len(categories) < 2:
        return None
    here = f"boxes {path}, categories"
    named = {text_of(one, "name", where=here): id_of(one, "id", where=here) for one in categories}
    people = frozenset(key for name, key in named.items() if name.lower() in PEOPLE)
    if not people:
        raise BadInput(f"{here}: none is named like people; it has {', '.join(sorted(named)[:6])}")
    return people


def _read_csv(path: Path) -> Iterator[_Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"boxes {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"boxes {path}: not readable as CSV ({error})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [name.strip() for name in reader.fieldnames or ()]
    if not set(COLUMNS) <= set(header):
        given = ", ".join(header) or "nothing"
        raise BadInput(f"boxes {path}: expected a header {','.join(COLUMNS)} (left, top, width, height in px), given {given}")
    reader.fieldnames = header
    for row in reader:
        where = f"boxes {path}, line {reader.line_num}"
        one = {"bbox": [row[name] for name in COLUMNS[1:]], "score": row.get("score") or None}
        yield _Entry(where=where, name=text_of(row, "image", where=where), person=_person(one, where=where, image_id=None))


def _person(one: Any, *, where: str, image_id: Any) -> PersonBox:
    left, top, width, height = (float(value) for value in array_of(one, "bbox", (4,), where=where))
    score = None if one.get("score") is None else number_of(one, "score", where=where)
    if not (math.isfinite(left) and math.isfinite(top) and 0 < width < math.inf and 0 < height < math.inf):
        raise BadInput(f"{where}: bbox must be finite, with a width and a height above 0, given {[left, top, width, height]}")
    return PersonBox(left=left, top=top, width=width, height=height, score=score, image_id=image_id)


def _frame(entry: _Entry, picture: Picture) -> tuple[int, int]:
    """Width and height of the frame in which a box is meant."""
    stated = entry.frame_px
    if stated is not None and stated not in (picture.stored_px, picture.upright_px):
        width, height = picture.upright_px
        raise BadInput(
            f"{entry.where}: {picture.name} has {width} × {height} px, the file says {stated[0]} × {stated[1]}; give the pictures that the "
            "boxes were made for"
        )
    return picture.upright_px if stated is None else stated


def _check(placed: Sequence[tuple[_Entry, tuple[int, int]]]) -> None:
    """Refuses boxes of another form, which would crop beside the people in silence."""
    boxes = np.array([entry.person.values for entry, _ in placed])
    sizes = np.array([frame for _, frame in placed], dtype=np.float64)
    start, extent = boxes[:, :2], boxes[:, 2:]
    where = [entry.where for entry, _ in placed]
    if (boxes <= 1.0).all():
        raise BadInput(f"{where[0]}: bbox {boxes[0].tolist()} reads as fractions of the picture; give px")
    beyond = (start + extent > BEYOND * sizes).any(axis=1)
    if beyond.any() and (extent > start).all() and (extent <= sizes + 1).all():
        row = int(np.argmax(beyond))
        raise BadInput(f"{where[row]}: bbox {boxes[row].tolist()} reads as x1 y1 x2 y2; give x, y, width, height")
    outside = ((start >= sizes) | (start + extent <= 0)).any(axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        width, height = placed[row][1]
        raise BadInput(f"{where[row]}: bbox {boxes[row].tolist()} lies beside its picture of {width} × {height} px")
