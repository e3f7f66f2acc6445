"""A second look at a crop, in a square around the person, torso upright, as the first look found them.

Public networks are trained on people who stand and fill the picture; MoveNet follows a person through a film in the same way, in the
square that the last frame's keypoints give. On LSPET with MoveNet Thunder six such views beside 24 are worth 0.3 points of PCKh@0.5,
and six more, in the square that these 30 give, 0.2.

What is seen of a crop is a function of that crop alone. Legend: B crops, K keypoints, H W pixels, h w cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from dpcore.config.model import SecondLookConfig
from dpcore.inference.fusing import UprightMaps
from dpcore.inference.reading import PoseReading
from dpcore.inference.views import BORDER_LEVEL, summing_to_one
from dpcore.pose.skeleton import COCO_17

SMALLEST_SQUARE_FRAC = 1 / 8
"""Of the crop's longer side: keypoints that fell together would be enlarged without end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonSquare:
    """A turned square in each crop, in px from the crop's middle.

    Attributes:
        axes: (B, 2, 2), the square's right and its down as columns, of length 1.
        middle: (B, 2). half_px: (B,), half the side.
        size_px: (height, width) of the crop.
    """

    axes: Tensor
    middle: Tensor
    half_px: Tensor
    size_px: tuple[int, int]

    @classmethod
    def around(cls, keypoints: Tensor, *, size_px: tuple[int, int], turned_deg: float, margin: float) -> Self:
        """The square around COCO's keypoints (B, 17, 2) px of crops, in which the torso is upright but for a turn counterclockwise.

        `margin` is its side over the longer side of the box around the keypoints. Without a torso (shoulders on the hips) up is the crop's.
        """
        of_crop = keypoints - keypoints.new_tensor([(side - 1) / 2 for side in reversed(size_px)])
        down = _middle(of_crop, "hip") - _middle(of_crop, "shoulder")
        angle = torch.atan2(-down[:, 0], down[:, 1]) + math.radians(turned_deg)
        cos, sin = torch.cos(angle), torch.sin(angle)
        axes = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
        seen = of_crop @ axes
        low, high = seen.amin(dim=1), seen.amax(dim=1)
        side_px = ((high - low).amax(dim=-1) * margin).clamp(min=max(size_px) * SMALLEST_SQUARE_FRAC)
        return cls(axes=axes, middle=((low + high) / 2).unsqueeze(1).matmul(axes.mT).squeeze(1), half_px=side_px / 2, size_px=size_px)

    def of_images(self, images: Tensor, side_px: int) -> Tensor:
        """(B, 3, side, side) of crops (B, 3, H, W) in [-1, 1]; black beyond the crop."""
        inside = _grid((side_px, side_px), images) * self.half_px[:, None, None]
        there = (inside @ self.axes.mT + self.middle[:, None]) / self._halves(images)
        return _read(images - BORDER_LEVEL, there, (side_px, side_px)) + BORDER_LEVEL

    def of_crops(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps (B, K, h, w) over the square as maps on `grid` of the whole crop; 0 beyond the square."""
        inside = _grid(grid, maps) * self._halves(maps)
        there = ((inside - self.middle[:, None]) @ self.axes) / self.half_px[:, None, None]
        return _read(maps, there, grid)

    def _halves(self, like: Tensor) -> Tensor:
        height, width = self.size_px
        return like.new_tensor([width / 2, height / 2])


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """Which squares are looked at, how large the network sees them, and whether it also sees their mirror images."""

    config: SecondLookConfig
    flip: bool

    def upright(
        self, images: Tensor, keypoints: Tensor, network: Callable[[Tensor], Tensor], reading: PoseReading, *, grid: tuple[int, int]
    ) -> Iterator[UprightMaps]:
        """Maps of the upright crops and confidences, for each square and its mirror image.

        Args:
            images: crops (B, 3, H, W) in [-1, 1].
            keypoints: (B, 17, 2) px, of the first look.
            network: gives the outputs that the readout of `reading` reads.
            grid: cells of the result.
        """
        size_px, swapped = (images.shape[2], images.shape[3]), list(reading.readout.mirrored)
        side_px = self.config.side_px
        for turned_deg in self.config.rotations_deg:
            square = PersonSquare.around(keypoints, size_px=size_px, turned_deg=turned_deg, margin=self.config.margin)
            seen = square.of_images(images, side_px)
            for flip in (False, True) if self.flip else (False,):
                said = reading.readout.maps(network(seen.flip(-1) if flip else seen))
                maps, confidence = said.probabilities(reading.temperature), said.confidence
                if flip:
                    maps, confidence = maps[:, swapped].flip(-1), confidence[:, swapped]
                yield summing_to_one(square.of_crops(maps, grid)), confidence


def _middle(keypoints: Tensor, part: str) -> Tensor:
    """(B, 2): between the left and the right one of COCO's keypoints (B, 17, 2)."""
    left, right = (keypoints[:, COCO_17.index[f"{side}_{part}"]] for side in "lr")
    return (left + right) / 2


def _grid(cells: tuple[int, int], like: Tensor) -> Tensor:
    """(h·w, 2): x and y of the middle of each cell, in -1 … 1 from edge to edge."""
    down, across = ((2 * torch.arange(count, dtype=like.dtype, device=like.device) + 1) / count - 1 for count in cells)
    return torch.stack([across.expand(cells), down[:, None].expand(cells)], dim=-1).flatten(0, 1)


def _read(maps: Tensor, there: Tensor, cells: tuple[int, int]) -> Tensor:
    """Maps (B, C, H, W) at places (B, h·w, 2) in -1 … 1, bilinear, 0 beyond the edges: (B, C, h, w)."""
    places = there.view(-1, *cells, 2)
    return functional.grid_sample(maps, places, mode="bilinear", padding_mode="zeros", align_corners=False)
