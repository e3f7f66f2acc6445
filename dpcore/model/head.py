"""Heads: feature maps to SimCC logits over x bins and y bins, shared over joints.

Legend: B examples, C channels, K joints, h w grid cells, Wx Wy bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config.networks import HEADS
from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from dpcore.model.maps.pyramid import Pyramid
from dpcore.pose.skeleton import MPII_16, Skeleton

_FLAT_STRIDE_PX = 8


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """What a head connects: C channels on an h x w grid over a crop, and bins for K joints.

    `pyramid`: how the maps of several strides are packed into these channels, where they are. `has_heat_maps`: the maps are a network's own
    heat maps. `pyramid_channels`: F of a pyramid that the head makes itself.
    """

    channels: int
    grid_height: int
    grid_width: int
    height_px: int
    width_px: int
    bins_x: int
    bins_y: int
    joints: int = 16
    sharpness: float = 1.0
    pyramid: Pyramid | None = None
    has_heat_maps: bool = False
    pyramid_channels: int = 32
    skeleton: Skeleton = MPII_16


class MarginalHead(nn.Module):
    """1x1 convolution to one map per joint, log-mean-exp marginals over rows and columns, one linear map cells -> bins
    per axis, shared over joints: (B,C,h,w) -> (B,K,Wx), (B,K,Wy).

    A marginal is (1/β)·log mean exp(β·map): β = `sharpness` goes from the mean (0) to the maximum (∞). With many faint cells
    in a row the mean outweighs a peak; on LSPET β = 4 is worth 0.8 points against 1.

    A low-parameter head (8.3 k for 218 channels, 24 cells and 96 bins), worth about 20 points at equal ε
    against the flat head: noise grows with the parameters, and a marginal needs few. The linear maps start as interpolation
    from cells to bins, so that a map with a peak decodes to that peak before any training.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.to_maps = nn.Conv2d(shape.channels, shape.joints, 1)
        self.to_x = nn.Linear(shape.grid_width, shape.bins_x)
        self.to_y = nn.Linear(shape.grid_height, shape.bins_y)
        self.shape = shape

    def start_interpolating(self) -> None:
        """Sets both linear maps to the interpolation between grid cells."""
        with torch.no_grad():
            self.to_x.weight.copy_(interpolation(self.shape.bins_x, self.shape.grid_width))
            self.to_y.weight.copy_(interpolation(self.shape.bins_y, self.shape.grid_height))
            self.to_x.bias.zero_()
            self.to_y.bias.zero_()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.to_maps(features)
        return self.to_x(self._marginal(maps, dim=2)), self.to_y(self._marginal(maps, dim=3))

    def _marginal(self, maps: Tensor, *, dim: int) -> Tensor:
        sharpness = self.shape.sharpness
        return (torch.logsumexp(sharpness * maps, dim=dim) - math.log(maps.shape[dim])) / sharpness


class FlatHead(nn.Module):
    """The paper's head: 1x1 convolution, bilinear upsampling to stride 8 where the grid is coarser, flattened cells,
    one linear map to the bins of each axis, shared over joints: (B,C,h,w) -> (B,K,Wx), (B,K,Wy)."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.grid = (max(shape.grid_height, shape.height_px // _FLAT_STRIDE_PX), max(shape.grid_width, shape.width_px // _FLAT_STRIDE_PX))
        self.to_maps = nn.Conv2d(shape.channels, shape.joints, 1)
        self.to_x = nn.Linear(self.grid[0] * self.grid[1], shape.bins_x)
        self.to_y = nn.Linear(self.grid[0] * self.grid[1], shape.bins_y)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.to_maps(features)
        if maps.shape[2:] != self.grid:
            maps = functional.interpolate(maps, size=self.grid, mode="bilinear", align_corners=False)
        cells = maps.flatten(2)
        return self.to_x(cells), self.to_y(cells)


def build_head(name: str, shape: HeadShape) -> nn.Module:
    """The head of that name.

    Raises:
        BadInput: there is none, or it does not load.
    """
    module = loaded(HEADS.get(name).builder, what=f"head {name}")(shape)
    if not isinstance(module, nn.Module):
        raise BadInput(f"head {name}: its builder must give a torch module, it gave {type(module).__name__}")
    return module


def interpolation(bins: int, cells: int) -> Tensor:
    """(bins, cells) weights of linear interpolation between cells; beyond the outermost cells' centres those hold.

    Bins and cells both tile the crop from edge to edge, as `SimCCCodec` lays its bins. Rows sum to 1.
    """
    cell_of_bin = ((torch.arange(bins, dtype=torch.float64) + 0.5) * (cells / bins) - 0.5).clamp(0, cells - 1)
    distance = (cell_of_bin[:, None] - torch.arange(cells, dtype=torch.float64)[None, :]).abs()
    return (1.0 - distance).clamp(min=0.0).float()
