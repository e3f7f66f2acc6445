"""Reads XML of `CVAT for images 1.1`: skeletons, or single points whose labels are the joints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from dpcore.errors import BadInput
from dpcore.importers.documents import read_content
from dpcore.importers.foreign import refuse_foreign_file
from dpcore.importers.grouping import MarkedBox, MarkedPicture, MarkedPoint, people_of
from dpcore.importers.names import PEOPLE
from dpcore.importers.people import LabelSource, PeopleFile


def read_cvat(source: LabelSource, *, category: str | None = None) -> PeopleFile:
    """The people of a CVAT file.

    | element | what it is |
    |---|---|
    | `skeleton` | one person; a sub-point that is `outside` is not labelled |
    | `points` with one place | a joint, named by its label; joints of one `group_id` are one person |
    | `points` with several places | one person, its joints in the order of `source.order` |
    | `box` of a person | frames the person of its `group_id`, or the one whose points it holds |
    | any other shape | left out, counted |

    Args:
        source: the file and its pictures.
        category: the label of the people's skeletons; None: the one that is named like people, or the only one.

    Raises:
        BadInput: names file, picture and shape.
    """
    root = _root(source)
    label = category or _label_of_people(root, where=f"annotations {source.annotations}")
    reading = _Reading(source=source, label=label)
    pictures = []
    for image in root.iter("image"):
        with source.record():
            pictures.append(reading.picture(image))
    return people_of(source, pictures, names=_names(root, label), origin=f"cvat {source.annotations.name}")


def _root(source: LabelSource) -> ElementTree.Element:
    content = read_content(source.annotations)
    refuse_foreign_file(source.annotations, content, wanted="cvat")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise BadInput(f"annotations {source.annotations}: not readable as XML ({error})") from None
    if root.tag != "annotations" or root.find("image") is None:
        raise BadInput(f"annotations {source.annotations}: no image in it; export the task as `CVAT for images 1.1`")
    return root


def _label_of_people(root: ElementTree.Element, *, where: str) -> str | None:
    """The label of the skeletons that are people; None if there is no skeleton."""
    labels = sorted({element.get("label", "") for element in root.iter("skeleton")})
    people = [label for label in labels if label.lower() in PEOPLE]
    if len(labels) > 1 and len(people) != 1:
        raise BadInput(f"{where}: skeletons of {', '.join(labels)}; name the one that holds people with --category")
    return next(iter(people or labels), None)


def _names(root: ElementTree.Element, label: str | None) -> tuple[str, ...]:
    """The joints in the order of the task's labels, where the file tells it."""
    entries = [(entry.findtext("name", ""), entry.findtext("parent", "")) for entry in root.iterfind("meta//labels/label")]
    if label is not None:
        return tuple(name for name, parent in entries if parent == label)
    used = {element.get("label", "") for element in root.iter("points")}
    return tuple(name for name, _ in entries if name in used)


class _Reading:
    """One CVAT file while its pictures are read."""

    def __init__(self, *, source: LabelSource, label: str | None) -> None:
        self._source, self._label = source, label

    def picture(self, image: ElementTree.Element) -> MarkedPicture:
        """What was marked on a picture."""
        name = image.get("name", "")
        where = f"{self._source.annotations}, image {image.get('id', '?')} ({name})"
        if not name:
            raise BadInput(f"{where}: the image has no name")
        width, height = (int(_number(image, side, where=where)) for side in ("width", "height"))
        return MarkedPicture(
            where=where,
            source_id=f"{self._source.annotations.name}, image {image.get('id', '?')}",
            picture=name,
            labelled_px=(width, height),
            points=tuple(self._points(image, where)),
            boxes=tuple(self._boxes(image, where)),
        )

    def _points(self, image: ElementTree.Element, where: str) -> Iterator[MarkedPoint]:
        skeletons = [element for element in image if element.tag == "skeleton"]
        groups = Counter(_group(element) for element in skeletons)
        for number, element in enumerate(skeletons, 1):
            if element.get("label") != self._label:
                self._source.tally.left_out["a skeleton of another label"] += 1
                continue
            group = _group(element) if groups[_group(element)] == 1 else ""
            for point in element.iter("points"):
                ((x, y),) = _places(point, where=where, count=1)
                outside = point.get("outside", "0") == "1"
                yield MarkedPoint(name=point.get("label", ""), x=x, y=y, group=group or f"skeleton {number}", labelled=not outside)
        for number, element in enumerate((element for element in image if element.tag == "points"), 1):
            yield from self._row(element, number, where)

    def _row(self, element: ElementTree.Element, number: int, where: str) -> Iterator[MarkedPoint]:
        places = _places(element, where=where)
        if len(places) == 1:
            yield MarkedPoint(name=element.get("label", ""), x=places[0][0], y=places[0][1], group=_group(element))
            return
        order = self._source.order
        if order is None or order.count != len(places):
            has = "nothing names them" if order is None else f"{order.name} has {order.count}"
            raise BadInput(
                f"{where}: {len(places)} points under the label {element.get('label')}, and {has}; name their order with --order"
            )
        for joint, (x, y) in zip(order.joints, places, strict=True):
            yield MarkedPoint(name=joint, x=x, y=y, group=_group(element) or f"points {number}")

    def _boxes(self, image: ElementTree.Element, where: str) -> Iterator[MarkedBox]:
        for element in image:
            if element.tag in ("skeleton", "points"):
                continue
            if element.tag != "box" or not (_group(element) or element.get("label", "").lower() in PEOPLE):
                self._source.tally.left_out["a shape that is no keypoint"] += 1
                continue
            if float(element.get("rotation", "0")) != 0:
                raise BadInput(f"{where}: a box is rotated; crops stand upright, draw the box without rotation")
            left, top, right, bottom = (_number(element, side, where=where) for side in ("xtl", "ytl", "xbr", "ybr"))
            yield MarkedBox(bbox=(left, top, right - left, bottom - top), group=_group(element))


def _group(element: ElementTree.Element) -> str:
    group = element.get("group_id", "0")
    return "" if group in ("", "0") else f"group {group}"


def _places(element: ElementTree.Element, *, where: str, count: int | None = None) -> list[tuple[float, float]]:
    text = element.get("points", "")
    try:
        places = [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";"))]
    except ValueError:
        raise BadInput(f"{where}: points of {element.get('label')} must be x,y;x,y;..., given {text!r:.80}") from None
    if count is not None and len(places) != count:
        raise BadInput(f"{where}: {len(places)} places for the joint {element.get('label')}; expected {count}")
    return places


def _number(element: ElementTree.Element, name: str, *, where: str) -> float:
    try:
        return float(element.get(name, ""))
    except ValueError:
        raise BadInput(f"{where}: {name} of {element.tag} must be a number, given {element.get(name)!r}") from None
