"""Head boxes of MPII and others: the denominators of PCKh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.pose.pckh import head_size_of_box


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
