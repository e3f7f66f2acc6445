"""Reads, checks and scores predictions in a file, for `dpsweep score`.

The file is a NumPy archive, loaded without pickle, so a file from elsewhere cannot run code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcore.errors import BadInput
from dpcore.pose.pckh import PckhState, head_size_of_box
from dpcore.pose.skeleton import MPII_16

JOINTS = MPII_16.count
ARRAYS = ("predictions", "keypoints", "visible", "head_boxes")

_OTHERS = ((b"MATLAB", "a MATLAB file"), (b"\x89HDF", "a MATLAB 7.3 or HDF5 file"), (b"{", "a JSON file"), (b"[", "a JSON file"))
"""First bytes of what people give in place of an .npz archive."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predicted and true keypoints of N people.

    Attributes:
        predictions: (N, 16, 2) px, MPII joint order. NaN means no prediction and counts as a miss.
        keypoints: (N, 16, 2) px.
        visible: (N, 16) bool. A joint that is not visible does not count.
        head_boxes: (N, 2, 2) px, two opposite corners. PCKh divides by 0.6 of the diagonal.
    """

    predictions: npt.NDArray[np.float64]
    keypoints: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    head_boxes: npt.NDArray[np.float64]


def load_predictions(path: Path) -> Predictions:
    """The predictions in `path`.

    Raises:
        BadInput: the file is missing or not an .npz, an array is missing or has a wrong shape, or a label that counts is not finite.
    """
    return check_predictions(_read_arrays(path), str(path))


def check_predictions(given: Mapping[str, Any], where: str) -> Predictions:
    """The predictions in arrays by name.

    Args:
        given: the arrays of `ARRAYS`, or what NumPy makes arrays of.
        where: what a message calls them.

    Raises:
        BadInput: an array is missing, of another shape, or a label is not finite where it counts.
    """
    missing = [name for name in ARRAYS if name not in given]
    if missing:
        raise BadInput(f"{where}: missing {', '.join(missing)}; it holds {', '.join(given) or 'nothing'}")
    arrays = {name: np.asarray(given[name]) for name in ARRAYS}
    count = len(arrays["predictions"]) if arrays["predictions"].ndim else 0
    if count == 0:
        raise BadInput(f"{where}: predictions must be (N, {JOINTS}, 2) with N of at least 1, given {arrays['predictions'].shape}")
    expected = {"predictions": (count, JOINTS, 2), "keypoints": (count, JOINTS, 2), "visible": (count, JOINTS), "head_boxes": (count, 2, 2)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise BadInput(f"{where}: {name} must be {shape}, given {arrays[name].shape}")
        if arrays[name].dtype.kind not in "biuf":
            raise BadInput(f"{where}: {name} must hold numbers, given {arrays[name].dtype}")
    if not np.isin(arrays["visible"], (0, 1)).all():
        raise BadInput(f"{where}: visible must hold only 0 and 1 (or False and True)")
    loaded = Predictions(
        predictions=arrays["predictions"].astype(np.float64),
        keypoints=arrays["keypoints"].astype(np.float64),
        visible=arrays["visible"].astype(bool),
        head_boxes=arrays["head_boxes"].astype(np.float64),
    )
    _check_values(loaded, where)
    return loaded


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected an .npz with the arrays {', '.join(ARRAYS)}")
    kind = next((kind for start, kind in _OTHERS if path.read_bytes()[:16].lstrip().startswith(start)), None)
    if kind is not None:
        raise BadInput(f"{path}: this is {kind}; save {', '.join(ARRAYS)} with numpy.savez and score that")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise BadInput(f"{path}: expected an .npz archive with the arrays {', '.join(ARRAYS)}, given a single array")
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                raise BadInput(f"{path}: missing {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}")
            return {name: archive[name] for name in ARRAYS}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: cannot be read as an .npz archive without pickle ({error})") from None


def _check_values(loaded: Predictions, where: str) -> None:
    unknown = loaded.visible & ~np.isfinite(loaded.keypoints).all(axis=-1)
    if unknown.any():
        row, joint = np.argwhere(unknown)[0]
        raise BadInput(f"{where}: keypoints[{row}, {joint}] is not finite though the joint is visible ({int(unknown.sum())} such)")
    diagonal = np.linalg.norm(loaded.head_boxes[:, 1] - loaded.head_boxes[:, 0], axis=-1)
    without_head = ~(np.isfinite(diagonal) & (diagonal > 0))
    if without_head.any():
        raise BadInput(
            f"{where}: head_boxes[{int(np.argmax(without_head))}] has no size; PCKh needs each head box ({int(without_head.sum())} such)"
        )
    if not loaded.visible[:, MPII_16.scored].any():
        raise BadInput(f"{where}: no joint that PCKh counts is visible, so there is nothing to score")


def score_predictions(loaded: Predictions) -> dict[str, Any]:
    """Mean PCKh@0.5 and @0.1, per joint and per group, in percent; NaN for a joint that is never visible."""
    state = PckhState.of(loaded.predictions, loaded.keypoints, loaded.visible, head_size_of_box(loaded.head_boxes))
    return {
        "mean": 100 * state.mean(0.5),
        "mean_at_01": 100 * state.mean(0.1),
        "per_joint": {joint: 100 * fraction for joint, fraction in state.per_joint(0.5).items()},
        "groups": {group: 100 * fraction for group, fraction in state.groups(0.5).items()},
    }
