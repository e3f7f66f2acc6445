"""The importers by name: how a format's options are asked for. What reads the files lies with `builder`. Torch-free."""

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
    """One format of annotations.

    Attributes:
        name: as `dpsweep data import` has it.
        help: one line on what the files are.
        builder: `module:name` of a function, or the function. It is called with the paths annotations, images and out, and with the
            keywords name, role, protected, cohort, height_px, width_px, box_scale, tally (see `dpcore.data.importers.import_hrnet`)
            and `options`. It writes the dataset by `dpcore.data.shards.write_shards` and gives its Manifest.
        add_options: declares the options that this format alone has.
        options: their names, as keywords of the function.
    """

    name: str
    help: str
    builder: str | Callable[..., Any]
    add_options: Callable[[argparse.ArgumentParser], None] = _nothing
    options: tuple[str, ...] = ()


def _hrnet_options(parser: argparse.ArgumentParser) -> None:
    base = parser.add_mutually_exclusive_group(required=True)
    base.add_argument("--one-based", dest="one_based", action="store_true", help="MATLAB coordinates, as in HRNet's MPII files")
    base.add_argument("--zero-based", dest="one_based", action="store_false", help="pixel coordinates from 0, as in LSPET here")
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
    parser.add_argument("--category", metavar="NAME", default=None, help="the category of the people (default: the one named like people)")


def _keypoints(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, given {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, given {text!r}")
    return value


IMPORTERS = Table(
    "importer",
    Importer,
    (
        Importer(
            name="hrnet",
            help="HRNet-style JSON (MPII, LSPET): center, scale, joints, joints_vis",
            builder="dpcore.data.importers:import_hrnet",
            add_options=_hrnet_options,
            options=("one_based", "head_boxes", "mpii_centre_shift", "crops"),
        ),
        Importer(
            name="coco",
            help="keypoints in COCO's form, mapped by their names to MPII-16",
            builder="dpcore.data.coco:import_coco",
            add_options=_coco_options,
            options=("min_keypoints", "category"),
        ),
    ),
)
