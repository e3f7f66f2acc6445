"""Training losses: one number per example, so that its gradient can be clipped per example.

Legend: B examples, K joints, Wx Wy bins, Hm Wm cells of a map. Bins and cells tile the crop from edge to edge. A joint that is not visible
or lies outside the crop adds nothing. The divisor is K, so an example with few labels has little weight.

Each loss takes what a head gives: logits of both axes (B,K,Wx), (B,K,Wy), or maps of logits (B,K,Hm,Wm), whose softmax over all cells is
the joint's distribution. Element b depends on row b alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.config.losses import LOSSES, PckMassConfig
from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.loss import simcc_loss

Outputs = tuple[Tensor, Tensor] | Tensor
"""Logits of both axes, or maps."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the outputs are held against.

    Attributes:
        keypoints: (B, K, 2) px; NaN is allowed where not visible.
        visible: (B, K) bool.
        head_px: (B,) head sizes of the labels, NaN where unknown.
        codec: the crop, and the width of SimCC targets.
        pck_mass: what counts as a hit.
    """

    keypoints: Tensor
    visible: Tensor
    head_px: Tensor
    codec: SimCCCodec
    pck_mass: PckMassConfig = field(default_factory=PckMassConfig)

    @property
    def counted(self) -> Tensor:
        """(B, K) bool: the joints that have a loss."""
        return self.visible.bool() & self.codec.contains(self.keypoints)

    @property
    def placed(self) -> Tensor:
        """(B, K, 2): keypoints, zero where they have no loss. 0 · NaN is NaN, in a loss and in its gradient."""
        return torch.where(self.counted.unsqueeze(-1), self.keypoints, torch.zeros_like(self.keypoints))

    def mean(self, per_joint: Tensor) -> Tensor:
        """(B,) from (B, K): the sum over counted joints, over K."""
        return torch.where(self.counted, per_joint, torch.zeros_like(per_joint)).sum(dim=-1) / self.keypoints.shape[-2]

    def radius_px(self) -> Tensor:
        """(B, 1): from each example's own head size, or a share of the crop where it has none or one of zero."""
        settings, side_px = self.pck_mass, max(self.codec.height_px, self.codec.width_px)
        known = self.head_px > 0  # false for NaN
        heads = torch.where(known, self.head_px, torch.ones_like(self.head_px)) * settings.radius_heads
        return torch.where(known, heads, torch.full_like(heads, settings.radius_frac * side_px)).unsqueeze(-1)


def simcc(outputs: Outputs, targets: Targets) -> Tensor:
    """KL divergence on x and y (`simcc_loss`). Of a map: of its marginals, with targets as wide in px."""
    if isinstance(outputs, tuple):
        return simcc_loss(*outputs, targets.keypoints, targets.visible, targets.codec)
    x, y = outputs.logsumexp(dim=2), outputs.logsumexp(dim=3)
    targets_x, targets_y = _encoded(outputs, targets)
    return targets.mean(_divergence(x, targets_x) + _divergence(y, targets_y))


def heatmap_ce(outputs: Outputs, targets: Targets) -> Tensor:
    """KL divergence from a Gaussian blob to the map, in nats: cross-entropy minus the blob's entropy, which no weight moves.

    The blob is the product of the SimCC targets of both axes. So KL = Σ_yx t_y t_x log(t_y t_x / p_yx) needs no map of targets.
    """
    maps = _as_maps(outputs, "heatmap_ce")
    log_p = F.log_softmax(maps.flatten(2), dim=-1).view_as(maps)
    targets_x, targets_y = _encoded(maps, targets)
    cross = -torch.einsum("bky,bkx,bkyx->bk", targets_y, targets_x, log_p)
    return targets.mean(cross - _entropy(targets_x) - _entropy(targets_y))


def pck_mass(outputs: Outputs, targets: Targets) -> Tensor:
    """−log of the softmax mass within a radius of the joint: what PCK counts, as a smooth loss.

    Per joint it is log(1 + f) − log(m + f) with the mass m near the joint and the floor f: 0 for m = 1, bounded by log(1 + 1/f) for m = 0.
    A mislabelled joint costs no more than that, and moves little: cross-entropy grows without bound, and such joints rule its gradient. On
    LSPET it is worth 1 to 1.5 points of PCKh@0.5.

    The radius is half the example's own head size (PCKh@0.5), or a share of the crop. A cell or bin that the border cuts counts in part. A
    radius below a cell is one cell: there is nothing finer to hit. Of a map the region is a disc, of two marginals a square.
    """
    radius_px, codec = targets.radius_px(), targets.codec
    x_px, y_px = targets.placed.unbind(dim=-1)
    if isinstance(outputs, tuple):
        near_x = _near(x_px, radius_px, bins=outputs[0].shape[-1], size_px=codec.width_px)
        near_y = _near(y_px, radius_px, bins=outputs[1].shape[-1], size_px=codec.height_px)
        mass = (torch.softmax(outputs[0], dim=-1) * near_x).sum(dim=-1) * (torch.softmax(outputs[1], dim=-1) * near_y).sum(dim=-1)
    else:
        disc = _disc(x_px, y_px, radius_px, maps=outputs, codec=codec)
        mass = (torch.softmax(outputs.flatten(2), dim=-1) * disc.flatten(2)).sum(dim=-1)
    floor = targets.pck_mass.floor
    return targets.mean(torch.log((1.0 + floor) / (mass + floor)))


def loss_function(name: str) -> Callable[[Outputs, Targets], Tensor]:
    """The loss of that name.

    Raises:
        BadInput: there is none, or it does not load.
    """
    function: Callable[[Outputs, Targets], Tensor] = loaded(LOSSES.get(name).function, what=f"loss {name}")
    return function


def _as_maps(outputs: Any, loss: str) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise BadInput(f"loss {loss} needs a head that gives maps; use loss simcc, which is the same for logits of both axes")
    return outputs


def _encoded(maps: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """SimCC targets (B,K,Wm) and (B,K,Hm) on the cells of maps, as wide in px as the codec's."""
    codec = targets.codec
    sigma_px = codec.label_sigma_bins / codec.split_ratio
    cells_per_px = maps.shape[3] / codec.width_px, maps.shape[2] / codec.height_px
    x, y = (replace(codec, split_ratio=ratio, label_sigma_bins=sigma_px * ratio) for ratio in cells_per_px)
    return x.encode(targets.placed)[0], y.encode(targets.placed)[1]


def _divergence(logits: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits, dim=-1), target, reduction="none").sum(dim=-1)


def _entropy(target: Tensor) -> Tensor:
    return -torch.xlogy(target, target).sum(dim=-1)


def _offsets(place_px: Tensor, bins: int, size_px: int) -> Tensor:
    """(B, K, bins): px from the places (B, K) to the middle of each bin."""
    middles = (torch.arange(bins, dtype=place_px.dtype, device=place_px.device) + 0.5) * (size_px / bins) - 0.5
    return middles - place_px.unsqueeze(-1)


def _share_inside(distance_px: Tensor, radius_px: Tensor, bin_px: float) -> Tensor:
    """How much of a bin at a distance lies within the radius, 0 … 1."""
    return ((radius_px.clamp(min=bin_px) - distance_px) / bin_px + 0.5).clamp(0.0, 1.0)


def _near(place_px: Tensor, radius_px: Tensor, *, bins: int, size_px: int) -> Tensor:
    return _share_inside(_offsets(place_px, bins, size_px).abs(), radius_px.unsqueeze(-1), size_px / bins)


def _disc(x_px: Tensor, y_px: Tensor, radius_px: Tensor, *, maps: Tensor, codec: SimCCCodec) -> Tensor:
    across = _offsets(x_px, maps.shape[3], codec.width_px).unsqueeze(-2)
    down = _offsets(y_px, maps.shape[2], codec.height_px).unsqueeze(-1)
    cell_px = max(codec.width_px / maps.shape[3], codec.height_px / maps.shape[2])
    return _share_inside((across.square() + down.square()).sqrt(), radius_px[..., None, None], cell_px)
