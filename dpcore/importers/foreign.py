"""Recognises files of formats that were not asked for, and says what to do with them.

Two tables: files by their first bytes or their name, JSON documents by their keys. A format that has an importer names its command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.errors import BadInput

_HEAD_BYTES = 4096
_TO_COCO = "export COCO keypoints there, and import that with `dpsweep data import coco`"


@dataclass(frozen=True, kw_only=True)
class ForeignFile:
    """A kind of file.

    Attributes:
        kind: what it is, for a message.
        remedy: what to do with it.
        begins: its first bytes, any of them.
        holds: bytes that must stand near its start, any of them.
        suffixes: endings of its name, any of them; empty: any name.
        formats: the importers that read it.
    """

    kind: str
    remedy: str
    begins: tuple[bytes, ...] = ()
    holds: tuple[bytes, ...] = ()
    suffixes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    def is_this(self, name: str, head: bytes) -> bool:
        """Whether a file of that name and with these first bytes is of this kind."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        return (
            (not self.begins or head.startswith(self.begins) or text.startswith(self.begins))
            and (not self.holds or any(part in head for part in self.holds))
            and (not self.suffixes or name.lower().endswith(self.suffixes))
        )


@dataclass(frozen=True, kw_only=True)
class ForeignDocument:
    """A kind of JSON document. Attributes as in `ForeignFile`; `is_this` takes the document and its first entry, if it is a list."""

    kind: str
    remedy: str
    is_this: Callable[[Any, dict[str, Any]], bool]
    formats: tuple[str, ...] = ()


def _has(*keys: str) -> Callable[[Any, dict[str, Any]], bool]:
    return lambda document, first: isinstance(document, dict) and all(key in document for key in keys)


def _lists(*keys: str) -> Callable[[Any, dict[str, Any]], bool]:
    return lambda document, first: isinstance(document, list) and all(key in first for key in keys)


FOREIGN_FILES = (
    ForeignFile(
        kind="a MATLAB 7.3 file",
        remedy="open it in MATLAB and save it with `save(file, '-v7')`",
        begins=(b"MATLAB 7.3",),
        suffixes=(".mat",),
    ),
    ForeignFile(
        kind="a MATLAB file",
        remedy="import MPII's release with `dpsweep data import mpii`, LSP's joints.mat with `dpsweep data import lsp`",
        begins=(b"MATLAB",),
        formats=("mpii", "lsp"),
    ),
    ForeignFile(
        kind="an HDF5 file (as DeepLabCut and SLEAP write)",
        remedy="convert its keypoints to COCO's form (for DeepLabCut: CollectedData_*.csv to COCO) and import that with "
        "`dpsweep data import coco`; a MATLAB 7.3 file can be saved with -v7",
        begins=(b"\x89HDF",),
    ),
    ForeignFile(kind="a NumPy archive", remedy="write its joints as JSON in COCO's form", begins=(b"PK\x03\x04",), suffixes=(".npz",)),
    ForeignFile(kind="a zip archive", remedy="unpack it and import the annotations inside", begins=(b"PK\x03\x04",)),
    ForeignFile(
        kind="a packed archive",
        remedy="unpack it and import the annotations inside",
        begins=(b"\x1f\x8b", b"BZh", b"7z\xbc\xaf", b"\xfd7zXZ", b"Rar!"),
    ),
    ForeignFile(kind="a NumPy array", remedy="write its joints as JSON in COCO's form", begins=(b"\x93NUMPY",)),
    ForeignFile(kind="a Parquet table", remedy="write its joints as JSON in COCO's form", begins=(b"PAR1",)),
    ForeignFile(kind="an SQLite database", remedy="export its keypoints as JSON in COCO's form", begins=(b"SQLite format 3",)),
    ForeignFile(
        kind="a TFRecord file", remedy="write its examples as JSON in COCO's form", suffixes=(".tfrecord", ".tfrecords", ".record")
    ),
    ForeignFile(
        kind="a pickle",
        remedy="nothing is unpickled here, because a pickle can run code; write its joints as JSON in COCO's form",
        suffixes=(".pkl", ".pickle", ".pth", ".pt"),
    ),
    ForeignFile(kind="a picture", remedy="give the annotations", begins=(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*")),
    ForeignFile(kind="a Git LFS pointer", remedy="fetch the file itself with `git lfs pull`", begins=(b"version https://git-lfs",)),
    ForeignFile(
        kind="an annotation of CVAT for video",
        remedy="export the task as `CVAT for images 1.1` or as COCO Keypoints, with its frames",
        begins=(b"<",),
        holds=(b"<track ", b"<mode>interpolation</mode>"),
    ),
    ForeignFile(
        kind="an XML file of CVAT",
        remedy="import it with `dpsweep data import cvat`",
        begins=(b"<",),
        holds=(b"<annotations",),
        formats=("cvat",),
    ),
    ForeignFile(
        kind="an XML file of Pascal VOC",
        remedy="it holds boxes; keypoints are needed, in COCO's form",
        begins=(b"<",),
        holds=(b"<annotation>",),
    ),
    ForeignFile(kind="a web page", remedy="download the file itself", begins=(b"<!DOCTYPE html", b"<!doctype html", b"<html")),
    ForeignFile(kind="an XML file", remedy=_TO_COCO, begins=(b"<",)),
    ForeignFile(
        kind="a CSV file of the VGG Image Annotator (VIA)",
        remedy=f"in VIA: Annotation, {_TO_COCO}",
        holds=(b"region_shape_attributes",),
        suffixes=(".csv",),
    ),
    ForeignFile(
        kind="a CSV file of DeepLabCut",
        remedy="convert its keypoints to COCO's form and import that",
        holds=(b"bodyparts",),
        suffixes=(".csv",),
    ),
    ForeignFile(kind="a table", remedy="write its joints as JSON in COCO's form", suffixes=(".csv", ".tsv", ".xlsx", ".xls")),
    ForeignFile(kind="a file of points (.pts)", remedy="write its joints as JSON in COCO's form", suffixes=(".pts",)),
    ForeignFile(
        kind="a label file of YOLO",
        remedy="give the data.yaml beside it to `dpsweep data import yolo`",
        suffixes=(".txt",),
    ),
    ForeignFile(
        kind="a YAML file",
        remedy="if it is the data.yaml of a YOLO-pose dataset, import it with `dpsweep data import yolo`",
        suffixes=(".yaml", ".yml"),
        formats=("yolo",),
    ),
)
"""The first that fits is named."""

FOREIGN_DOCUMENTS = (
    ForeignDocument(
        kind="a list as HRNet's",
        remedy="import it with `dpsweep data import hrnet`",
        is_this=lambda document, first: isinstance(document, list) and ("joints" in first or {"center", "scale"} <= set(first)),
        formats=("hrnet",),
    ),
    ForeignDocument(
        kind="COCO's form",
        remedy="import it with `dpsweep data import coco`",
        is_this=lambda document, first: (
            _has("images", "annotations")(document, first) or _has("annotations", "categories")(document, first)
        ),
        formats=("coco",),
    ),
    ForeignDocument(
        kind="an export of Label Studio",
        remedy="import it with `dpsweep data import label_studio`",
        is_this=lambda document, first: _lists("data", "annotations")(document, first) or _lists("data", "completions")(document, first),
        formats=("label_studio",),
    ),
    ForeignDocument(
        kind="a short export of Label Studio (JSON-MIN)",
        remedy="export JSON there, and import that with `dpsweep data import label_studio`",
        is_this=lambda document, first: any(
            isinstance(value, list) and value and isinstance(value[0], dict) and "keypointlabels" in value[0] for value in first.values()
        ),
    ),
    ForeignDocument(
        kind="a file of labelme",
        remedy="import its folder with `dpsweep data import labelme`",
        is_this=_has("shapes", "imagePath"),
        formats=("labelme",),
    ),
    ForeignDocument(
        kind="a project of the VGG Image Annotator (VIA)", remedy=f"in VIA: Annotation, {_TO_COCO}", is_this=_has("_via_img_metadata")
    ),
    ForeignDocument(
        kind="an annotation of the VGG Image Annotator (VIA)",
        remedy=f"in VIA: Annotation, {_TO_COCO}",
        is_this=lambda document, first: (
            isinstance(document, dict)
            and any(isinstance(value, dict) and {"filename", "regions"} <= set(value) for value in document.values())
        ),
    ),
    ForeignDocument(
        kind="an estimate of OpenPose",
        remedy="labels that people drew are needed; joints that a network guessed are no ground truth",
        is_this=lambda document, first: _has("people")(document, first) and isinstance(document["people"], list),
    ),
    ForeignDocument(
        kind="AI Challenger's own form",
        remedy="convert it to COCO's form (its visibility 3 is 0 there) and import that",
        is_this=_lists("keypoint_annotations"),
    ),
    ForeignDocument(
        kind="a list of estimated keypoints (COCO results, AlphaPose)",
        remedy="labels that people drew are needed; score estimates with `dpsweep score`",
        is_this=_lists("keypoints", "score"),
    ),
    ForeignDocument(kind="a list of detected boxes", remedy="labelled keypoints are needed", is_this=_lists("bbox", "score", "image_id")),
    ForeignDocument(
        kind="an annotation of PoseTrack 2017",
        remedy="download the annotations of PoseTrack 2018, which are in COCO's form",
        is_this=_has("annolist"),
    ),
    ForeignDocument(kind="an annotation of Supervisely", remedy=_TO_COCO, is_this=_has("objects", "size")),
    ForeignDocument(kind="an export of Datumaro", remedy=_TO_COCO, is_this=_has("items", "categories")),
    ForeignDocument(kind="an export of V7 Darwin", remedy=_TO_COCO, is_this=_has("item", "annotations")),
    ForeignDocument(kind="an export of Labelbox", remedy=_TO_COCO, is_this=_lists("data_row")),
)
"""The first that fits is named."""


def refuse_foreign_file(path: Path, content: bytes, *, wanted: str | None) -> None:
    """Refuses a file that is surely of another format than `wanted`.

    Raises:
        BadInput: says what the file is and what to do.
    """
    head = content[:_HEAD_BYTES]
    for entry in FOREIGN_FILES:
        if entry.is_this(path.name, head):
            if wanted in entry.formats:
                return
            raise BadInput(f"annotations {path}: this is {entry.kind}; {entry.remedy}")


def refuse_foreign_document(path: Path, document: Any, *, wanted: str) -> None:
    """Refuses a JSON document that is surely of another format than `wanted`.

    Raises:
        BadInput: says what the document is and what to do.
    """
    first = document[0] if isinstance(document, list) and document and isinstance(document[0], dict) else {}
    for entry in FOREIGN_DOCUMENTS:
        if entry.is_this(document, first):
            if wanted in entry.formats:
                return
            raise BadInput(f"annotations {path}: this is {entry.kind}; {entry.remedy}")
