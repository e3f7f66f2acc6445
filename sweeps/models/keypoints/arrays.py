"""Pictures as programs hold them: arrays, nested lists, paths, and tables of them with boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpcore.errors import BadInput
from sweeps.models.keypoints.boxes import PersonBox
from sweeps.models.keypoints.pictures import find_pictures

BOX_COLUMNS = ("x", "y", "w", "h")
EXPECTED = "expected pictures as uint8 arrays (H, W, 3), a batch (N, H, W, 3), or paths"


@dataclass(frozen=True, kw_only=True)
class GivenPicture:
    """One RGB picture, and the person on it; None: the whole picture is the crop."""

    picture: Image.Image
    person: PersonBox | None = None


def pictures_of(given: Any) -> list[GivenPicture]:
    """The pictures in what a program gives.

    | given | read as |
    |---|---|
    | a path, a list of paths | the files, upright |
    | an array (H, W, 3), nested lists of that form | one picture |
    | an array (N, H, W, 3), a list of arrays | a batch; a list may mix sizes and paths |
    | a table or mapping with a column `image` | its cells; with columns x, y, w, h one person's box per row |

    Raises:
        BadInput: values that are no bytes, another shape, a file that does not read, or half a box.
    """
    if _is_table(given):
        rows = list(given["image"])
        return [GivenPicture(picture=_picture(one), person=box) for one, box in zip(rows, _boxes(given, len(rows)), strict=True)]
    return [GivenPicture(picture=_picture(one)) for one in _rows(given)]


def _is_table(given: Any) -> bool:
    named = list(given) if isinstance(given, Mapping) else list(getattr(given, "columns", ()))
    if named and "image" not in named:
        raise BadInput(f"expected a column image (and x, y, w, h for boxes), given {', '.join(map(str, named))}")
    return bool(named)


def _boxes(table: Any, count: int) -> list[PersonBox | None]:
    named = set(table) if isinstance(table, Mapping) else set(table.columns)
    there = [name for name in BOX_COLUMNS if name in named]
    if not there:
        return [None] * count
    if len(there) < len(BOX_COLUMNS):
        raise BadInput(f"a box needs the columns {', '.join(BOX_COLUMNS)}, given {', '.join(there)}")
    values = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in BOX_COLUMNS])
    if len(values) != count or not np.isfinite(values).all() or (values[:, 2:] <= 0).any():
        raise BadInput("each box must be finite, with a width and a height above 0, one for each picture")
    return [PersonBox(left=x, top=y, width=w, height=h) for x, y, w, h in values.tolist()]


def _rows(given: Any) -> Sequence[Any]:
    """One entry a picture."""
    if isinstance(given, str | Path):
        return [given]
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU":
        return [given] if given.ndim == 3 else list(given) if given.ndim == 4 else [given]
    rows = list(given)
    # nested lists of one picture: rows of pixels
    return [given] if rows and not isinstance(rows[0], str | Path) and _depth(rows[0]) == 2 else rows


def _depth(given: Any) -> int:
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU":
        return given.ndim
    return 1 + _depth(given[0]) if isinstance(given, list | tuple) and given else 0


def _picture(given: Any) -> Image.Image:
    if isinstance(given, str | Path):
        (found,) = find_pictures([Path(given)]).pictures
        return found.load()
    try:
        pixels = np.asarray(given)
    except ValueError:
        raise BadInput(f"{EXPECTED}; given rows of unlike lengths") from None
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise BadInput(f"{EXPECTED}; given the shape {pixels.shape}")
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise BadInput(f"{EXPECTED}; given {pixels.dtype} from {pixels.min()} to {pixels.max()}")
    return Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
