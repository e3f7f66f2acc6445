"""Varies light, colour and clutter of training images, so that a public model depends less on the look of its domain.

An example and its public view get the same draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FIELD_CELLS = 9
"""Side of the random field behind the clutter: blobs of about a limb's length on a person's crop."""
NUMBERS_PER_EXAMPLE = 5 + 3 * FIELD_CELLS**2


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotometricDraw:
    """Photometry of B examples: contrast about the image's mean, then a smooth field blended in, then gains by channel.

    Attributes:
        contrast: (B,) factors.
        gain: (B, 3) factors.
        blend: (B,) weights in [0, 1] of the field.
        field: (B, 9, 9, 3) values in [0, 255], interpolated bilinearly over the crop.
    """

    contrast: NDArray[np.float64]
    gain: NDArray[np.float64]
    blend: NDArray[np.float64]
    field: NDArray[np.float64]

    @classmethod
    def of(cls, numbers: NDArray[np.float64], strength: float) -> PhotometricDraw:
        """From (B, NUMBERS_PER_EXAMPLE) uniform numbers: factors in 1 ± strength, blend up to half of strength."""
        return cls(
            contrast=1 + strength * (2 * numbers[:, 0] - 1),
            gain=1 + strength * (2 * numbers[:, 1:4] - 1),
            blend=0.5 * strength * numbers[:, 4],
            field=255 * numbers[:, 5:].reshape(len(numbers), FIELD_CELLS, FIELD_CELLS, 3),
        )

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> PhotometricDraw:
        return PhotometricDraw(contrast=self.contrast[rows], gain=self.gain[rows], blend=self.blend[rows], field=self.field[rows])

    def apply_to_images(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images (B, H, W, 3) uint8 under the draw, rounded and cut to [0, 255]."""
        height, width = images.shape[1:3]
        pixels = images.astype(np.float32)
        mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
        pixels = (pixels - mean) * _as_images(self.contrast) + mean
        rows, columns = _interpolation(height), _interpolation(width)
        clutter = np.einsum("hi,bijc,wj->bhwc", rows, self.field.astype(np.float32), columns, optimize=True)
        pixels += _as_images(self.blend) * (clutter - pixels)
        pixels *= self.gain.astype(np.float32)[:, None, None, :]
        seen: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return seen


def _as_images(factors: NDArray[np.float64]) -> NDArray[np.float32]:
    return factors.astype(np.float32)[:, None, None, None]


@lru_cache(maxsize=8)
def _interpolation(size: int) -> NDArray[np.float32]:
    """(size, FIELD_CELLS) weights of linear interpolation, edge to edge."""
    position = np.linspace(0, FIELD_CELLS - 1, size)
    weights: NDArray[np.float32] = np.clip(1 - np.abs(position[:, None] - np.arange(FIELD_CELLS)), 0, 1).astype(np.float32)
    return weights
