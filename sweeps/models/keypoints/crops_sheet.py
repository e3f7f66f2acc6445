"""Draws the first crops of a dataset with their labels: the quickest way to see that an import is right.

| data | drawn |
|---|---|
| synthetic, PUBLIC | yes |
| PRIVATE stand-ins | yes, into a file that only its owner can read |
| protected | only with `show_private`, into a file that is named, and that only its owner can read |
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dpcore.config import SplitConfig
from dpcore.data.manifest import Manifest
from dpcore.data.shards import ShardSet
from dpcore.data.views import seen_under
from dpcore.durable import OWNER_ONLY, replace_file
from dpcore.errors import BadInput, Refused
from sweeps.models.keypoints.drawing import draw_people

CROPS = 24
COLUMNS = 6
CELL_PX = 200
Drawn = Callable[[ShardSet, int], Image.Image]
"""Makes the picture of one row of a dataset."""

_CAPTION_PX = 26
_INK, _PAPER = (230, 230, 230), (24, 24, 24)


def check_shown(manifest: Manifest, *, show_private: bool) -> None:
    """Refuses to draw protected people unless that is asked for.

    Raises:
        Refused: says what the option does.
    """
    if manifest.protected and not show_private:
        raise Refused(
            f"{manifest.name} is protected: its pictures are not drawn. --show-private --sheet FILE draws them into FILE, mode 0600; "
            "delete it when you have looked at it"
        )


def save_sheet(dataset: ShardSet, path: Path, *, show_private: bool = False, split: SplitConfig | None = None) -> Path:
    """Draws the first crops into a PNG, mode 0600 for PRIVATE data.

    Args:
        dataset: whose crops.
        path: the PNG; replaced where it exists.
        show_private: also of protected people.
        split: draw what is public of the crops under this split; None: the crops with their labels.

    Raises:
        Refused: the people are protected.
        BadInput: the path is no .png.
    """
    check_shown(dataset.manifest, show_private=show_private)
    if path.suffix.lower() != ".png":
        raise BadInput(f"{path}: a sheet is a PNG; give a name that ends in .png")
    content = io.BytesIO()
    shown = labelled_crop if split is None else lambda dataset, row: seen_crop(dataset, row, split)
    draw_sheet(dataset, shown, of="" if split is None else f" under the split {split.name}").save(content, format="PNG")
    replace_file(path, content.getvalue(), mode=OWNER_ONLY if dataset.manifest.role == "PRIVATE" else None)
    return path


def draw_sheet(dataset: ShardSet, shown: Drawn, *, of: str = "") -> Image.Image:
    """The first crops in rows, under a line that says what they are. `of` is said beside the dataset's name."""
    count = min(CROPS, len(dataset))
    pictures = [shown(dataset, row) for row in range(count)]
    width, height = pictures[0].size
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + 4) + 4, lines * (height + 4) + 4 + _CAPTION_PX), _PAPER)
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (4 + place % columns * (width + 4), 4 + _CAPTION_PX + place // columns * (height + 4)))
    manifest = dataset.manifest
    labels = "" if of else f", {dataset.skeleton.name}; orange: the person's left, blue: right"
    words = f"{manifest.name}{of}: the first {count} of {len(dataset)} people{labels}"
    ImageDraw.Draw(sheet).text((8, 8), words, fill=_INK)
    return sheet


def labelled_crop(dataset: ShardSet, row: int) -> Image.Image:
    """A crop, enlarged to `CELL_PX`, with its labelled joints and the lines between them."""
    picture, scale = enlarged(dataset.images(np.array([row]))[0])
    visible = np.flatnonzero(dataset.visible[row])
    if not len(visible):
        return picture
    # pixel centres lie at integers before and after
    points = (dataset.keypoints[row][visible].astype(np.float64) + 0.5) * scale - 0.5
    places = {int(joint): place for place, joint in enumerate(visible)}
    lines = [(places[start], places[end]) for start, end in dataset.skeleton.line_places if start in places and end in places]
    joints = [dataset.skeleton.joints[joint] for joint in visible]
    return draw_people(picture, [(points, np.ones(len(points)))], joints=joints, lines=lines)


def seen_crop(dataset: ShardSet, row: int, split: SplitConfig) -> Image.Image:
    """What is public of a crop under a split, enlarged to `CELL_PX`."""
    return enlarged(seen_under(split, dataset, np.array([row]))[0])[0]


def enlarged(crop: NDArray[np.uint8]) -> tuple[Image.Image, float]:
    """A crop whose longer side is `CELL_PX`, and by how much it grew."""
    height, width = crop.shape[:2]
    scale = CELL_PX / max(height, width)
    return Image.fromarray(crop).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC), scale
