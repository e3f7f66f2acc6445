"""A photograph with one bright spot: a crop shows where a coordinate lands."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOT = (60, 45)
FIELDS: dict[str, Any] = {"name": "tiny", "role": "PUBLIC", "protected": False, "height_px": 64, "width_px": 64}


def photograph_with_dot(folder: Path, name: str = "a.png") -> None:
    """A black 120 × 90 photograph with one bright 3 × 3 spot at DOT, 0-based."""
    folder.mkdir(exist_ok=True)
    pixels = np.zeros((90, 120, 3), dtype=np.uint8)
    pixels[DOT[1] - 1 : DOT[1] + 2, DOT[0] - 1 : DOT[0] + 2] = 255
    Image.fromarray(pixels).save(folder / name)
