"""Views of a crop: turned, scaled, mirrored; and maps of a view brought back to the upright crop.

Legend: B examples, K joints, H W pixels, h w cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dpcore.config import EvaluationConfig
from dpcore.data.transforms import BORDER

SIZE_STEP_PX = 32
"""A network that takes any size takes multiples of this: the largest stride of the networks here."""
BORDER_LEVEL = BORDER / 127.5 - 1.0
"""`BORDER` in pictures of [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to look at a crop: turned counterclockwise about its middle, enlarged, then mirrored.

    Attributes:
        rotation_deg: 0 … 360. Multiples of 90 (180 where the crop is not square) move pixels and interpolate nothing.
        scale: of the person in the network's input. `grows`: the input grows with it, to the next multiple of 32 px. Otherwise the input
            keeps its size, and what no longer fits is cut off.
        flip: the mirror image.
        grows: whether the network takes any size.
        public: of the crop's public view instead of its pixels. Whoever gives the crops gives those (`dpcore.train.sources.SeenThrough`).
    """

    rotation_deg: float = 0.0
    scale: float = 1.0
    flip: bool = False
    grows: bool = False
    public: bool = False

    @property
    def is_upright(self) -> bool:
        """Whether it is the crop itself, or its mirror image."""
        return self.rotation_deg == 0 and self.scale == 1

    @property
    def name(self) -> str:
        """For keys of caches: equal exactly for equal views."""
        return f"r{self.rotation_deg!r}s{self.scale!r}{'m' if self.flip else ''}{'g' if self.grows else ''}{'v' if self.public else ''}"

    def of_images(self, images: Tensor) -> Tensor:
        """The view (B,3,H',W') of crops (B,3,H,W) in [-1, 1]; black beyond the crop."""
        turns, turned = self._quarter_turns(images), images
        if turns:
            turned = torch.rot90(images, turns, dims=(2, 3))
        matrix = self._matrix(turns, zoom=1.0 if self.grows else self.scale)
        if matrix is not None:
            turned = _sampled(turned - BORDER_LEVEL, matrix) + BORDER_LEVEL
        if self.grows and self.scale != 1:
            size = tuple(_grown(side, self.scale) for side in turned.shape[2:])
            turned = functional.interpolate(turned, size=size, mode="bilinear", align_corners=False, antialias=self.scale < 1)
        return turned.flip(-1) if self.flip else turned

    def upright(self, maps: Tensor, *, mirrored: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """Probability maps (B,K,h,w) of the view as maps on `grid` of the upright crop. Each sums to 1 there.

        Mass that lies beyond the crop is left out; a map without any other is uniform.

        Args:
            maps: of the view.
            mirrored: for each map, the one that takes its place on a mirrored person.
            grid: cells of the result.
        """
        back = maps[:, list(mirrored)].flip(-1) if self.flip else maps
        if tuple(back.shape[2:]) != grid:
            back = functional.interpolate(back, size=grid, mode="bilinear", align_corners=False)
        turns = self._quarter_turns(maps)
        matrix = self._matrix(turns, zoom=1.0 if self.grows else self.scale)
        if matrix is not None:
            back = _sampled(back, _inverse(matrix))
        if turns:
            back = torch.rot90(back, -turns, dims=(2, 3))
        if self.is_upright and back.shape == maps.shape:
            return back
        return summing_to_one(back)

    def _quarter_turns(self, maps: Tensor) -> int:
        """How many quarter turns do without interpolation; 0 where there is none."""
        exact = 90 if maps.shape[2] == maps.shape[3] else 180
        return round(self.rotation_deg / 90) if self.rotation_deg % exact == 0 else 0

    def _matrix(self, turns: int, *, zoom: float) -> tuple[float, float, float, float] | None:
        """The rotation and zoom that are left after quarter turns: from centred px of the view to centred px of the crop."""
        angle = 0.0 if turns else math.radians(self.rotation_deg)
        if angle == 0 and zoom == 1:
            return None
        # counterclockwise as seen, y down: what the view shows at v lies in the crop at R v / zoom
        return math.cos(angle) / zoom, -math.sin(angle) / zoom, math.sin(angle) / zoom, math.cos(angle) / zoom


UPRIGHT = View()
"""The crop itself."""
_KINDS = {"sharp": (False,), "view": (True,), "both": (False, True)}


def views_of(evaluation: EvaluationConfig, *, grows: bool) -> tuple[View, ...]:
    """The views of an evaluation, each followed by its mirror image where there is one. `grows`: the network takes any size."""
    sides = (False, True) if evaluation.flip else (False,)
    return tuple(
        View(rotation_deg=angle % 360, scale=scale, flip=side, grows=grows, public=public)
        for public in _KINDS[evaluation.inputs]
        for scale in evaluation.scales
        for angle in evaluation.rotations_deg
        for side in sides
    )


def summing_to_one(maps: Tensor) -> Tensor:
    """Maps (B,K,h,w) of which each sums to 1; one without any mass is uniform."""
    total = maps.sum(dim=(2, 3), keepdim=True)
    return torch.where(total == 0, torch.full_like(maps, 1 / math.prod(maps.shape[2:])), maps / total)


def _grown(side_px: int, scale: float) -> int:
    return max(1, round(side_px * scale / SIZE_STEP_PX)) * SIZE_STEP_PX


def _inverse(matrix: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    a, b, c, d = matrix
    determinant = a * d - b * c
    return d / determinant, -b / determinant, -c / determinant, a / determinant


def _sampled(images: Tensor, matrix: tuple[float, float, float, float]) -> Tensor:
    """Images (B,C,H,W) read at matrix · p for each centred pixel p, bilinear, 0 beyond the border."""
    height, width = images.shape[2:]
    a, b, c, d = matrix
    # grid_sample counts in halves of the picture's sides, so off-diagonal entries carry the aspect
    rows = torch.tensor([[a, b * height / width, 0.0], [c * width / height, d, 0.0]], dtype=images.dtype, device=images.device)
    grid = functional.affine_grid(rows.unsqueeze(0), [1, 1, height, width], align_corners=False)
    everywhere = grid.expand(images.shape[0], height, width, 2)
    return functional.grid_sample(images, everywhere, mode="bilinear", padding_mode="zeros", align_corners=False)
