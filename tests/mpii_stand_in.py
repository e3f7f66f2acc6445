"""A tiny stand-in of MPII: synthetic people on pictures, labelled in the structure of mpii_human_pose_v1_u12_1.mat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from dpcore.data.manifest import Record
from dpcore.data.synthetic import draw_record

PIXEL_STD = 200.0
"""A scale of 1 is a person of so many px."""


def structs(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.void]:
    """A MATLAB struct array of the rows, which share their fields."""
    array = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        for name, value in row.items():
            array[0, place][name] = value
    return array


def write_mpii(folder: Path, *, count: int, seed: int) -> tuple[Path, Path]:
    """Writes `count` pictures of one person each and their labels; returns the .mat file and the folder of the pictures."""
    images = folder / "images"
    images.mkdir(parents=True)
    frames = [_frame(images, draw_record("private", seed=seed, index=index), index) for index in range(count)]
    release = {
        "annolist": structs(frames),
        "img_train": np.ones((1, count)),
        "single_person": _cells([np.array([[1.0]])] * count),
        "video_list": _cells([f"video_{index}" for index in range(count)]),
    }
    savemat(folder / "mpii.mat", {"RELEASE": structs([release])})
    return folder / "mpii.mat", images


def _cells(values: Sequence[Any]) -> NDArray[np.object_]:
    cells = np.empty((1, len(values)), dtype=object)
    cells[0, :] = list(values)
    return cells


def _frame(images: Path, record: Record, index: int) -> dict[str, Any]:
    """One picture with its person: coordinates are 1-based, the head box has the size that PCKh divides by."""
    name = f"{index:09d}.png"
    Image.fromarray(record.image).save(images / name)
    points = [
        {"x": float(x) + 1, "y": float(y) + 1, "id": float(joint), "is_visible": 1.0}
        for joint, (x, y) in enumerate(record.keypoints)
        if record.visible[joint]
    ]
    size_px = record.image.shape[0]
    scale, head = size_px / PIXEL_STD / 1.25, record.head_size_px / 0.6 / np.sqrt(2)
    person = {
        "x1": 1.0,
        "y1": 1.0,
        "x2": 1.0 + head,
        "y2": 1.0 + head,
        "annopoints": structs([{"point": structs(points)}]),
        "scale": scale,
        "objpos": structs([{"x": (size_px + 1) / 2, "y": (size_px + 1) / 2 - 15 * scale}]),
    }
    return {"image": structs([{"name": name}]), "annorect": structs([person]), "frame_sec": 0.0, "vididx": float(index + 1)}
