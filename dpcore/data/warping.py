"""Maps a batch of images by one affine map each, in one call, on the device where they lie.

On a CPU Pillow, image by image, is as fast or faster (192 px: 1.5 ms an image against 1.7 to 2.1; 64 px: about equal), and stays.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcore.devices import on_device

_FLOAT32_ERROR = 2.0**-10
"""Added before the fraction is dropped: without it an even area of 255 would come out as 254 here and there."""


def warped(pixels: Tensor, affine: NDArray[np.float64], *, border: float) -> Tensor:
    """Images (B, 3, H, W) uint8 under their affine maps, bilinear, `border` beyond their edges. On their device.

    As in Pillow, a value loses its fraction. A pixel of the result lies beyond an edge if its centre comes from outside the image's
    area. Half a pixel inside the edge, the edge's own pixels are repeated.

    Args:
        pixels: in any memory format, which the result keeps.
        affine: (B, 2, 3) from centred input px to centred output px.
        border: 0 to 255.
    """
    grid, outside = _sources(affine, pixels)
    moved = torch.nn.functional.grid_sample(pixels.to(torch.float32), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.add_(_FLOAT32_ERROR).masked_fill_(outside[:, None], border).to(torch.uint8)


def _sources(affine: NDArray[np.float64], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W, 2) float32: where each pixel of the result comes from, as `grid_sample` counts, with edges at -1 and 1.
    And (B, H, W) bool: whether that is outside. Only B · (H + W) numbers for each coordinate go to the device."""
    height, width = pixels.shape[2:]
    inverse = np.linalg.inv(affine[:, :, :2])
    offset = -np.einsum("bij,bj->bi", inverse, affine[:, :, 2])
    half = np.array([width, height]) / 2
    across, down, offset = (value / half for value in (inverse[:, :, 0], inverse[:, :, 1], offset))
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height) - (height - 1) / 2
    places = []
    for axis in (0, 1):
        rows, columns = np.outer(down[:, axis], y) + offset[:, axis, None], np.outer(across[:, axis], x)
        places.append(_on_device_of(pixels, rows)[:, :, None] + _on_device_of(pixels, columns)[:, None, :])
    grid = torch.stack(places, dim=-1)
    return grid, ((grid < -1.0) | (grid >= 1.0)).any(dim=-1)


def _on_device_of(pixels: Tensor, numbers: NDArray[np.float64]) -> Tensor:
    return on_device(torch.from_numpy(numbers.astype(np.float32)), pixels.device)
