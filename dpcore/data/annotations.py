"""Reads annotation files of others, one message per mistake with file and record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.pose.pckh import head_size_of_box

_FOREIGN = (
    (b"MATLAB", "a MATLAB file"),
    (b"\x89HDF", "a MATLAB 7.3 or HDF5 file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"<", "an XML file"),
)
"""First bytes of files that people give in place of JSON."""


def load_json(path: Path) -> Any:
    """The document in a JSON file, with or without a byte order mark.

    Raises:
        BadInput: the file is missing, not UTF-8, or no JSON; a file of another known kind is named as such.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"annotations {path}: no such file") from None
    except OSError as error:
        raise BadInput(f"annotations {path}: not readable as JSON ({error})") from None
    for start, kind in _FOREIGN:
        if content.lstrip().startswith(start):
            raise BadInput(f"annotations {path}: this is {kind}; expected JSON. Export COCO keypoints, or HRNet's JSON for MPII and LSP")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadInput(f"annotations {path}: not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise BadInput(f"annotations {path}: nested too deeply for a list of annotations") from None
    except ValueError as error:
        raise BadInput(f"annotations {path}: not readable as JSON ({error})") from None


def entry_of(record: Any, key: str, *, where: str) -> Any:
    """`record[key]`, or `BadInput` naming file, record and key."""
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected an object with keys, given {type(record).__name__}")
    if key not in record:
        raise BadInput(f"{where}: key {key!r} is missing; it has {', '.join(sorted(record)) or 'none'}")
    return record[key]


def array_of(record: Any, key: str, shape: tuple[int, ...], *, where: str) -> NDArray[np.float64]:
    """`record[key]` as numbers of that shape. NaN passes: whether it may stand there depends on its label."""
    value = entry_of(record, key, where=where)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {key} must be numbers of shape {shape}, given {value!r:.80}") from None
    if array.shape != shape:
        raise BadInput(f"{where}: {key} must have the shape {shape}, given {array.shape}")
    return array


def number_of(record: Any, key: str, *, where: str) -> float:
    """`record[key]` as a finite number."""
    number = float(array_of(record, key, (), where=where))
    if not math.isfinite(number):
        raise BadInput(f"{where}: {key} must be finite, given {number}")
    return number


def list_of(record: Any, key: str, *, where: str) -> list[Any]:
    """`record[key]` as a list."""
    value = entry_of(record, key, where=where)
    if not isinstance(value, list):
        raise BadInput(f"{where}: {key} must be a list, given {value!r:.80}")
    return value


def id_of(record: Any, key: str, *, where: str) -> str:
    """`record[key]` as text: ids join as they are written, whatever their size."""
    value = entry_of(record, key, where=where)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise BadInput(f"{where}: {key} must be a whole number or a name, given {value!r:.80}")
    return str(value)


def text_of(record: Any, key: str, *, where: str) -> str:
    """`record[key]` as a non-empty string."""
    value = entry_of(record, key, where=where)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}: {key} must be a name, given {value!r:.80}")
    return value


def load_head_sizes(path: Path, count: int) -> NDArray[np.float64]:
    """PCKh denominators (N,) px of head boxes in a file: 0.6 · diagonal.

    Args:
        path: MPII's gt_valid.mat (`headboxes_src`, 2 × 2 × N), or an npz with `head_box`, (N, 4) as x1 y1 x2 y2 or
            (N, 2, 2), in the order of the annotations.
        count: N.

    Raises:
        BadInput: no such file, no boxes in it, or another number of them.
    """
    if not path.is_file():
        raise BadInput(f"head boxes {path}: no such file")
    boxes = _boxes_of_mat(path) if path.suffix == ".mat" else _boxes_of_npz(path)
    if len(boxes) != count:
        raise BadInput(f"head boxes {path}: {len(boxes)} boxes for {count} annotations; they must belong to the same split")
    for row, corners in enumerate(boxes):
        check_head_box(corners, where=f"head boxes {path}, box {row}")
    return head_size_of_box(boxes)


def check_head_box(corners: NDArray[np.float64], *, where: str) -> None:
    """Refuses a head box (2, 2) px, [[x1, y1], [x2, y2]], whose second corner lies before its first one.

    Raises:
        BadInput: it does, as boxes of x, y, width and height do.
    """
    if (corners[1] < corners[0]).any():
        raise BadInput(f"{where}: the head box {corners.ravel().tolist()} ends before it begins; give x1 y1 x2 y2 (is this x y w h?)")


def _boxes_of_mat(path: Path) -> NDArray[np.float64]:
    from scipy.io import loadmat  # only here: importing it takes longer than reading the file

    try:
        content = loadmat(str(path))
    except (ValueError, NotImplementedError, OSError) as error:
        raise BadInput(f"head boxes {path}: not readable as a MATLAB file ({error})") from None
    boxes = np.asarray(content.get("headboxes_src", np.empty(0)), dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[:2] != (2, 2):
        raise BadInput(f"head boxes {path}: expected headboxes_src of shape (2, 2, N), found {boxes.shape}")
    return np.transpose(boxes, (2, 0, 1))


def _boxes_of_npz(path: Path) -> NDArray[np.float64]:
    try:
        with np.load(path, allow_pickle=False) as content:
            boxes = np.asarray(content["head_box"], dtype=np.float64)
    except (KeyError, ValueError, OSError) as error:
        raise BadInput(f"head boxes {path}: expected an npz file with head_box ({error})") from None
    if boxes.ndim not in (2, 3) or boxes[:1].size != 4:
        raise BadInput(f"head boxes {path}: head_box must have the shape (N, 4) or (N, 2, 2), given {boxes.shape}")
    return boxes.reshape(-1, 2, 2)
