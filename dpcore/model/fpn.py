"""Heads that give maps: one map of logits per joint, from the maps of a pyramid.

All read maps of any size. `sharpness` β multiplies the logits: the higher, the more of the softmax's mass lies at the peak.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.model.head import HeadShape
from dpcore.model.maps.pyramid import Pyramid


class MixedMaps(nn.Module):
    """Each joint's map as a mixture of a network's own heat maps: a 1x1 convolution of M maps to K, (B,M,h,w) -> (B,K,h,w).

    The layers that make the heat maps belong to this head: they train with it (`BuiltBackbone.head_layers`).
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.to_maps = nn.Conv2d(shape.channels, shape.joints, 1)
        self.sharpness = shape.sharpness

    def start_interpolating(self) -> None:
        """Nothing lies between its maps and its logits."""

    def forward(self, heat: Tensor) -> Tensor:
        maps: Tensor = self.to_maps(heat)
        return self.sharpness * maps


class FreshPyramid(nn.Module):
    """A feature pyramid of its own: 1x1 laterals to F channels, sums from coarse to fine, a depthwise 3x3 and a 1x1 convolution at the
    finest stride, then one map per joint: packed (B,·,H/t,W/t) -> (B,K,H/s,W/s) with the finest stride s.

    Depthwise, because noise grows with the parameters: with F = 32 it has 17 k on EfficientNet-Lite0's four levels.
    Source: feature pyramid networks (Lin et al., CVPR 2017, arXiv:1612.03144).
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        pyramid = _pyramid_of(shape)
        width = shape.pyramid_channels
        self.pyramid = pyramid
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in pyramid.channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mix = nn.Conv2d(width, width, 1)
        self.to_maps = nn.Conv2d(width, shape.joints, 1)
        self.sharpness = shape.sharpness

    def forward(self, packed: Tensor) -> Tensor:
        levels = sorted(zip(self.pyramid.strides_px, self._laterals(packed), strict=True), key=lambda level: -level[0])
        total = levels[0][1]
        for _, finer in levels[1:]:
            total = finer + (total if total.shape[2:] == finer.shape[2:] else _as_large(total, finer))
        features = torch.relu(self.mix(torch.relu(self.smooth(total))))
        maps: Tensor = self.to_maps(features)
        return self.sharpness * maps

    def _laterals(self, packed: Tensor) -> list[Tensor]:
        return [lateral(maps) for lateral, maps in zip(self.laterals, self.pyramid.unpack(packed), strict=True)]


class LinearMaps(nn.Module):
    """A linear probe of every level: a 1x1 convolution to K maps at its own stride, enlarged to the finest one and added up, packed
    (B,·,H/t,W/t) -> (B,K,H/s,W/s).

    It starts at zero, so before any training a position prior alone speaks. On whitened inputs its first gradients are the differences
    between what lies at a joint and what lies elsewhere: each step moves all K maps, and nothing has to be drawn at random first.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.pyramid = _pyramid_of(shape)
        self.levels = nn.ModuleList(nn.Conv2d(channels, shape.joints, 1, bias=False) for channels in self.pyramid.channels)
        self.sharpness = shape.sharpness

    def draw_weights(self, generator: torch.Generator) -> None:
        """Zeros: nothing is drawn."""
        for weight in self.levels.parameters():
            nn.init.zeros_(weight)

    def forward(self, packed: Tensor) -> Tensor:
        found = [level(maps) for level, maps in zip(self.levels, self.pyramid.unpack(packed), strict=True)]
        finest = min(range(len(found)), key=self.pyramid.strides_px.__getitem__)
        total: Tensor = found[finest]
        for index, maps in enumerate(found):
            if index != finest:
                total = total + (maps if maps.shape[2:] == total.shape[2:] else _as_large(maps, total))
        maps_of_joints: Tensor = self.sharpness * total
        return maps_of_joints


def _pyramid_of(shape: HeadShape) -> Pyramid:
    """That of the backbone; of one map on one grid a pyramid of one level."""
    return shape.pyramid or Pyramid(channels=(shape.channels,), strides_px=(shape.height_px // shape.grid_height,))


def _as_large(maps: Tensor, as_maps: Tensor) -> Tensor:
    return functional.interpolate(maps, size=as_maps.shape[2:], mode="bilinear", align_corners=False)


def build_fpn(shape: HeadShape) -> nn.Module:
    """The head `fpn2d`: of a network that brings heat maps and a pyramid of its own, their mixture; of any other a fresh pyramid."""
    return MixedMaps(shape) if shape.has_heat_maps else FreshPyramid(shape)
