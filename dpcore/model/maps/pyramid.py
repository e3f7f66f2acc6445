"""Maps of several strides in one tensor, so that what is cached, cut into batches and handed on is one tensor whatever a head reads.

A map of stride s becomes (t/s)² times as many channels on the grid of the coarsest stride t: no number is lost, and the tensor has one
shape for one picture size. Legend: B examples, C channels, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dpcore.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Which maps are packed together, in this order.

    Attributes:
        channels: C of each map.
        strides_px: of each map, in pixels of the picture; whole, and each divides the coarsest.

    Raises:
        BadInput: a stride does not divide the coarsest.
    """

    channels: tuple[int, ...]
    strides_px: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(self.coarsest_px % stride for stride in self.strides_px):
            raise BadInput(f"maps of strides {self.strides_px} cannot be packed: each must divide the coarsest; give other feature_layers")

    @property
    def coarsest_px(self) -> int:
        """The stride of the packed tensor."""
        return max(self.strides_px)

    @property
    def packed_channels(self) -> int:
        """Channels of the packed tensor."""
        pairs = zip(self.channels, self.strides_px, strict=True)
        return sum(channels * (self.coarsest_px // stride) ** 2 for channels, stride in pairs)

    def pack(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H/s, W/s) as (B, packed channels, H/t, W/t).

        Raises:
            BadInput: the picture's sides are no multiples of t, so that a map does not tile the coarsest grid.
        """
        folded = [functional.pixel_unshuffle(one, self._ratio(index)) for index, one in enumerate(maps) if self._tiles(index, maps)]
        return torch.cat(folded, dim=1)

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """The maps again, bit for bit."""
        sizes = [channels * self._ratio(index) ** 2 for index, channels in enumerate(self.channels)]
        parts = torch.split(packed, sizes, dim=1)
        return [functional.pixel_shuffle(part, self._ratio(index)) for index, part in enumerate(parts)]

    def _ratio(self, index: int) -> int:
        return self.coarsest_px // self.strides_px[index]

    def _tiles(self, index: int, maps: Sequence[Tensor]) -> bool:
        coarsest = maps[self.strides_px.index(self.coarsest_px)].shape[2:]
        expected = tuple(self._ratio(index) * cells for cells in coarsest)
        if tuple(maps[index].shape[2:]) != expected:
            raise BadInput(
                f"a map of stride {self.strides_px[index]} has {tuple(maps[index].shape[2:])} cells, expected {expected}: "
                f"give a picture whose sides are multiples of {self.coarsest_px} px"
            )
        return True
