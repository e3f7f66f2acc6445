"""How the outputs of a head are read: as maps that views can share, and back to keypoints.

Every head has a readout. Losses over maps, fused views and decoding ask for it and never for the head's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from dpcore.config import ModelConfig
from dpcore.config.networks import HEADS, backbone_traits
from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from dpcore.inference.maps import JointMaps, MapDecoder
from dpcore.model.network import codec_of
from dpcore.pose.codec import WINDOW_SIGMAS, SimCCCodec
from dpcore.pose.skeleton import Skeleton

Logits = tuple[Tensor, Tensor]


@runtime_checkable
class Readout(Protocol):
    """Reads the outputs of one kind of head, of a batch of B views."""

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each map of the head, the one that takes its place on a mirrored person."""

    def maps(self, outputs: Any) -> JointMaps:
        """The maps of a head's outputs."""

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, K, 2) px of the crop and their confidences (B, K) in 0 … 1, of probability maps (B, M, Hm, Wm): those of one view,
        or of several, fused. M maps may give another number K of joints."""


@runtime_checkable
class ReadsDirectly(Protocol):
    """A readout that needs no maps for a single view.

    Attributes:
        flips_directly: whether it needs none for a flip test either.
    """

    flips_directly: ClassVar[bool]

    def points_of(self, upright: Any, mirrored: Any | None) -> tuple[Tensor, Tensor]:
        """Keypoints (B, K, 2) px and confidences (B, K) of the outputs on crops, averaged with those on their mirror images where given."""


@runtime_checkable
class MixesPoints(Protocol):
    """A readout whose `points` are those of M maps, of which the head's outputs make K joints."""

    def shares_of(self, outputs: Any) -> Tensor:
        """(B, K, M): the share of each point in each joint, of the outputs on any view."""


@dataclass(frozen=True, kw_only=True)
class SimCCReadout:
    """Of SimCC logits (B,K,Wx) and (B,K,Wy): a map is the outer product of the two distributions. Single views and flip tests are read
    from the distributions themselves, which gives the same keypoints."""

    codec: SimCCCodec
    skeleton: Skeleton
    flips_directly: ClassVar[bool] = True

    @property
    def mirrored(self) -> tuple[int, ...]:
        return self.skeleton.mirrored

    def maps(self, outputs: Logits) -> JointMaps:
        x, y = (torch.log_softmax(one, dim=-1) for one in outputs)
        return JointMaps(logits=y.unsqueeze(-1) + x.unsqueeze(-2), confidence=self.codec.confidence(*outputs))

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        codec = self.codec
        window_px = WINDOW_SIGMAS * codec.label_sigma_bins / codec.split_ratio
        return MapDecoder(height_px=codec.height_px, width_px=codec.width_px, window_px=window_px).points(maps)

    def points_of(self, upright: Logits, mirrored: Logits | None) -> tuple[Tensor, Tensor]:
        logits = upright if mirrored is None else flip_averaged(upright, mirrored, self.skeleton)
        return self.codec.decode(*logits), self.codec.confidence(*logits)


@dataclass(frozen=True, kw_only=True)
class HeatMapReadout:
    """Of logits (B,K,Hm,Wm), one map per joint. A joint's confidence is the mass of its map near the peak."""

    decoder: MapDecoder
    skeleton: Skeleton

    @property
    def mirrored(self) -> tuple[int, ...]:
        return self.skeleton.mirrored

    def maps(self, outputs: Tensor) -> JointMaps:
        probabilities = torch.softmax(outputs.flatten(2), dim=-1).view_as(outputs)
        return JointMaps(logits=outputs, confidence=self.decoder.points(probabilities)[1])

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.points(maps)


def flip_averaged(upright: Logits, mirrored: Logits, skeleton: Skeleton) -> Logits:
    """The logits of the mean of two distributions per joint and axis: of a crop, and of its mirror image turned back.

    `SimCCCodec` lays its bins symmetrically over the crop. So the bins of a mirror image are those of the crop in reverse order, and no
    shift by a bin is needed. NaN stays NaN.

    Args:
        upright: logits (B, K, Wx) and (B, K, Wy) of crops.
        mirrored: the same of their mirror images.
        skeleton: the K joints, some of which swap when a person is mirrored.
    """
    swapped = list(skeleton.mirrored)
    turned_back = mirrored[0][:, swapped].flip(-1), mirrored[1][:, swapped]
    x, y = (
        torch.logaddexp(torch.log_softmax(one, dim=-1), torch.log_softmax(other, dim=-1)) - math.log(2)
        for one, other in zip(upright, turned_back, strict=True)
    )
    return x, y


def simcc_readout(config: ModelConfig, skeleton: Skeleton) -> SimCCReadout:
    """Of a SimCC head."""
    return SimCCReadout(codec=codec_of(config), skeleton=skeleton)


def heat_map_readout(config: ModelConfig, skeleton: Skeleton) -> HeatMapReadout:
    """Of a head with one map of logits per joint. The window is that of SimCC labels: `label_sigma_bins` bins of 1 / `split_ratio` px."""
    codec = codec_of(config)
    window_px = WINDOW_SIGMAS * codec.label_sigma_bins / codec.split_ratio
    return HeatMapReadout(decoder=MapDecoder(height_px=codec.height_px, width_px=codec.width_px, window_px=window_px), skeleton=skeleton)


def readout_of(config: ModelConfig, skeleton: Skeleton) -> Readout:
    """How the outputs of the head that a config names are read, for the joints of `skeleton`.

    Raises:
        BadInput: the head's readout does not load, or is none.
    """
    found = loaded(HEADS.get(config.head).readout, what=f"readout of head {config.head}")(config, skeleton)
    if not isinstance(found, Readout):
        raise BadInput(f"head {config.head}: its readout must have mirrored, maps and points; given {type(found).__name__}")
    return found


def takes_any_size(config: ModelConfig) -> bool:
    """Whether the network reads pictures of other sizes than the model's input."""
    return HEADS.get(config.head).any_size and backbone_traits(config.backbone).any_size
