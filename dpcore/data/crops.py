"""Cuts one person out of a photograph, HRNet's way: centre, scale, a margin, the aspect of the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXEL_STD = 200.0
"""MPII's `scale` is the person's height in units of 200 px."""


@dataclass(frozen=True, kw_only=True)
class CropBox:
    """A box in a photograph and the size of the crop it becomes.

    A photograph's pixel p lands at (p - centre) · zoom + size / 2, pixel centres at integers: HRNet's
    `get_affine_transform` without rotation.

    Attributes:
        centre: (x, y) px in the photograph, 0-based.
        box_px: side of the square that must fit in; the shorter output side decides the zoom (aspect fixed).
        height_px, width_px: of the crop.
    """

    centre: tuple[float, float]
    box_px: float
    height_px: int
    width_px: int

    @property
    def zoom(self) -> float:
        """Crop px per photograph px."""
        return min(self.width_px, self.height_px) / self.box_px

    def to_crop(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (..., 2) of the photograph in px of the crop."""
        middle = np.array([self.width_px, self.height_px]) / 2
        return np.asarray((np.asarray(points, dtype=np.float64) - np.array(self.centre)) * self.zoom + middle)

    def to_photograph(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (..., 2) of the crop in px of the photograph: the inverse of `to_crop`."""
        middle = np.array([self.width_px, self.height_px]) / 2
        return np.asarray((np.asarray(points, dtype=np.float64) - middle) / self.zoom + np.array(self.centre))

    def square(self, side_px: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a square of that side around the box's centre, in the photograph."""
        half = side_px / 2
        return self.centre[0] - half, self.centre[1] - half, self.centre[0] + half, self.centre[1] + half

    @property
    def reach(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom (exclusive) of all pixels of a photograph that a crop can depend on: averaging looks beyond
        the box itself."""
        margin = int(np.ceil(1 / self.zoom)) + 1
        left, top = self._corner
        right, bottom = left + self.width_px / self.zoom, top + self.height_px / self.zoom
        return int(np.floor(left)) - margin, int(np.floor(top)) - margin, int(np.ceil(right)) + margin, int(np.ceil(bottom)) + margin

    @property
    def _corner(self) -> tuple[float, float]:
        # PIL's pixel centres are at .5, on both sides of the map
        left, top = (self.centre[axis] + 0.5 - (size / 2 + 0.5) / self.zoom for axis, size in enumerate((self.width_px, self.height_px)))
        return left, top

    def cut(self, photograph: Image.Image) -> NDArray[np.uint8]:
        """The crop, (H, W, 3) uint8, black beyond the photograph; averaged where it shrinks, so that nothing aliases."""
        left, top = self._corner
        right, bottom = left + self.width_px / self.zoom, top + self.height_px / self.zoom
        patch = photograph.crop(self.reach)
        x0, y0 = self.reach[:2]
        box = (left - x0, top - y0, right - x0, bottom - y0)
        return np.asarray(patch.resize((self.width_px, self.height_px), Image.Resampling.BILINEAR, box=box))
