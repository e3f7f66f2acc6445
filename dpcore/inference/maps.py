"""Maps of joints over a crop, and keypoints from them.

Legend: B examples, K joints, Hm Wm cells. The cells of a map tile the crop from edge to edge, as the bins of `SimCCCodec` do. So a map of
any number of cells describes the same crop, and a mirrored or turned crop has the mirrored or turned map, without a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class JointMaps:
    """What a network says of one view.

    Attributes:
        logits: (B, K, Hm, Wm); their softmax over all cells of a map is the distribution of the joint.
        confidence: (B, K) in 0 … 1: how sure the network is of its joint in this view.
    """

    logits: Tensor
    confidence: Tensor

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """(B, K, Hm, Wm) that sum to 1 over each map. A higher temperature is flatter; NaN stays NaN."""
        return torch.softmax(self.logits.flatten(2) / temperature, dim=-1).view_as(self.logits)


@dataclass(frozen=True, kw_only=True)
class MapDecoder:
    """Reads keypoints from probability maps.

    Attributes:
        height_px, width_px: of the crop.
        window_px: half the side of the square around a peak whose mean is the keypoint. It is wide enough for one peak, too narrow for
            a second one.
    """

    height_px: int
    width_px: int
    window_px: float

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, K, 2) px and the mass of each map near its peak, (B, K), of maps (B, K, Hm, Wm).

        A keypoint is the mean of the map in the window around its largest cell. At the border the window is cut on both sides alike, so
        that the border does not pull. A constant map gives its first cell, NaN gives NaN.
        """
        height, width = maps.shape[2:]
        peak = maps.flatten(2).argmax(dim=-1)
        row, column = peak // width, peak % width
        near_y, mass_y = self._near(row, cells=height, size_px=self.height_px)
        near_x, mass_x = self._near(column, cells=width, size_px=self.width_px)
        # (B,K,Hm,Wm) is read once by each product; no map of the window is made
        y = _mean_cell(torch.einsum("bkhw,bkw->bkh", maps, near_x) * near_y)
        x = _mean_cell(torch.einsum("bkhw,bkh->bkw", maps, near_y) * near_x)
        # two operands at a time: of three, einsum plans by their sizes, and an exported graph then holds for one batch size alone
        mass = (torch.einsum("bkhw,bkw->bkh", maps, mass_x) * mass_y).sum(dim=-1) / maps.sum(dim=(2, 3))
        return torch.stack([_to_px(x, width, self.width_px), _to_px(y, height, self.height_px)], dim=-1), mass

    def _near(self, peak: Tensor, *, cells: int, size_px: int) -> tuple[Tensor, Tensor]:
        """(B, K, cells) of 0 and 1 around peaks (B, K): with equal reach on both sides, and the whole window."""
        window = max(1, round(self.window_px * cells / size_px))
        distance = (torch.arange(cells, device=peak.device) - peak.unsqueeze(-1)).abs()
        reach = torch.minimum(torch.minimum(peak, cells - 1 - peak), torch.full_like(peak, window))
        return (distance <= reach.unsqueeze(-1)).float(), (distance <= window).float()


def _mean_cell(weights: Tensor) -> Tensor:
    """The mean index of weights (B, K, cells)."""
    return (weights * torch.arange(weights.shape[-1], device=weights.device)).sum(dim=-1) / weights.sum(dim=-1)


def _to_px(cell: Tensor, cells: int, size_px: int) -> Tensor:
    return (cell - (cells - 1) / 2) * (size_px / cells) + (size_px - 1) / 2
