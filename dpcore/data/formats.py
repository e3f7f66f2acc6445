"""The importers by name: how a format's options are asked for. What reads the files lies with `reader`. Torch-free."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.config.registry import Table


def _nothing(parser: argparse.ArgumentParser) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One format of annotations. It has a `reader`, or a `builder` that does everything itself.

    Attributes:
        name: as `dpsweep data import` has it.
        help: one line on what the files are.
        reader: `module:name` of a function, or the function. It is called with a `dpcore.importers.people.LabelSource` and with
            `options`, and gives a `PeopleFile`. dpsweep finds the pictures, cuts the people out and writes the dataset.
        builder: `module:name` of a function, or the function. It is called with the paths annotations, images and out, and with the
            keywords name, role, protected, cohort, height_px, width_px, box_scale, tally and `options`. It writes the dataset by
            `dpcore.data.shards.write_shards` and gives its Manifest.
        add_options: declares the options that this format alone has.
        options: their names, as keywords of the function.
        folder: whether the annotations may be a folder.
    """

    name: str
    help: str
    reader: str | Callable[..., Any] | None = None
    builder: str | Callable[..., Any] | None = None
    add_options: Callable[[argparse.ArgumentParser], None] = _nothing
    options: tuple[str, ...] = ()
    folder: bool = False

    def __post_init__(self) -> None:
        if (self.reader is None) == (self.builder is None):
            raise ValueError(f"importer {self.name}: give it a reader or a builder, and not both")


def _add_base(parser: argparse.ArgumentParser) -> None:
    base = parser.add_mutually_exclusive_group(required=True)
    base.add_argument("--one-based", dest="one_based", action="store_true", help="MATLAB coordinates: the first pixel is 1")
    base.add_argument("--zero-based", dest="one_based", action="store_false", help="the first pixel is 0")


def _hrnet_options(parser: argparse.ArgumentParser) -> None:
    _add_base(parser)
    parser.add_argument("--head-boxes", metavar="FILE", type=Path, default=None, help="gt_valid.mat, or .npz with head_box")
    parser.add_argument("--mpii-centre-shift", action="store_true", help="centre_y += 15·scale, as MPII's evaluation crops")
    parser.add_argument(
        "--crops",
        choices=("labels", "detector"),
        default="labels",
        help="whose center and scale these are: an annotator's (default), or a public detector's, as labels: private needs",
    )


def _coco_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--min-keypoints", metavar="N", type=_keypoints, default=10, help="fewer labelled: left out (default 10)")
    _add_category(parser)


def _add_category(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--category", metavar="NAME", default=None, help="what people are called there (default: the name like people)")


def _mpii_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--single-person", action="store_true", help="only people who stand apart from others, as MPII's evaluation")


def _yolo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", metavar="DIR", type=Path, default=None, help="folder of the text files (default: labels beside images)")
    _add_category(parser)


def _keypoints(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, given {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, given {text!r}")
    return value


_READERS = "dpcore.importers.readers"

IMPORTERS = Table(
    "importer",
    Importer,
    (
        Importer(
            name="hrnet",
            help="HRNet-style JSON (MPII, LSPET): center, scale, joints, joints_vis",
            reader=f"{_READERS}.hrnet:read_hrnet",
            add_options=_hrnet_options,
            options=("one_based", "head_boxes", "mpii_centre_shift", "crops"),
        ),
        Importer(
            name="coco",
            help="keypoints in COCO's form, by their names: COCO, CrowdPose, AIC, PoseTrack, Halpe, exports of CVAT and Roboflow",
            reader=f"{_READERS}.coco:read_coco",
            add_options=_coco_options,
            options=("min_keypoints", "category"),
        ),
        Importer(
            name="mpii",
            help="MPII's own MATLAB file, mpii_human_pose_v1_u12_1.mat",
            reader=f"{_READERS}.mpii:read_mpii",
            add_options=_mpii_options,
            options=("single_person",),
        ),
        Importer(
            name="lsp",
            help="joints.mat of Leeds Sports Pose or its extension",
            reader=f"{_READERS}.lsp:read_lsp",
            add_options=_add_base,
            options=("one_based",),
        ),
        Importer(
            name="cvat",
            help="CVAT for images 1.1 (XML): skeletons, or points",
            reader=f"{_READERS}.cvat:read_cvat",
            add_options=_add_category,
            options=("category",),
        ),
        Importer(
            name="label_studio", help="JSON of Label Studio: keypoints and rectangles", reader=f"{_READERS}.label_studio:read_label_studio"
        ),
        Importer(name="labelme", help="a folder of labelme's JSON files", reader=f"{_READERS}.labelme:read_labelme", folder=True),
        Importer(
            name="yolo",
            help="a YOLO-pose dataset: data.yaml and text files",
            reader=f"{_READERS}.yolo:read_yolo",
            add_options=_yolo_options,
            options=("labels", "category"),
        ),
    ),
)
