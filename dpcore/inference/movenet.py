"""MoveNet's own decoding, as maps that views can share: heat maps, weighted by where its regression expects each joint.

Its centre map finds the person in the middle of the picture; the regression at that cell says where each joint should be; a joint is the
best cell of its heat map near there. Without that prior a heat map of a crowded or upside-down scene has its peak on someone else: on
LSPET it is worth about four points of PCKh@0.5. The network predicts COCO's 17 joints. Those of another skeleton follow by name or as means
(`dpcore.model.head_start.coco_mixtures`), after decoding, so that a mixture never blurs a peak.

Source: the graph of tfhub.dev/google/movenet/singlepose, as `dpcore.weights.movenet_check` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig
from dpcore.inference.joint_mixer import certainties
from dpcore.inference.maps import JointMaps, MapDecoder
from dpcore.model.head import HeadShape
from dpcore.model.head_start import coco_mixtures, coco_points, share_matrix
from dpcore.pose.skeleton import COCO_17, Skeleton

MOVENET_LAYERS: Mapping[str, int] = {"heat.out": 17, "center.out": 1, "reg.out": 34, "off.out": 34}
"""Channels of the maps that the head takes, in their order."""
NEAR_CELLS = 1.8
"""What the graph adds to a distance in cells before it divides a score by it."""
SCORE_TEMPERATURE = 0.06
"""A score of 0 … 1 over this is a logit."""
WINDOW_PX = 16.0
"""Four cells on each side of a peak."""


class MoveNetHead(nn.Module):
    """Hands the maps of MoveNet's four heads over as they are: (B,86,h,w). It has no parameters."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.channels = shape.channels

    def forward(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True, kw_only=True, eq=False)
class MoveNetReadout:
    """Of the maps of the four heads, (B,86,h,w).

    Attributes:
        decoder: of fused maps.
        skeleton: the K joints that are wanted.
        mixture: (K, 17), the share of each COCO map in the map of each joint that is wanted.
        shares: (K, 17), the share of each COCO keypoint in each joint that is wanted; some are negative.
    """

    decoder: MapDecoder
    skeleton: Skeleton
    mixture: Tensor
    shares: Tensor
    flips_directly: ClassVar[bool] = False

    @classmethod
    def of(cls, decoder: MapDecoder, skeleton: Skeleton) -> Self:
        """For the joints of `skeleton`. Shares are tensors from the start: a graph that is exported would lose what it makes itself.

        Raises:
            BadInput: COCO has no counterpart for a joint.
        """
        return cls(
            decoder=decoder,
            skeleton=skeleton,
            mixture=share_matrix(coco_mixtures(skeleton)),
            shares=share_matrix(coco_points(skeleton)),
        )

    @property
    def mirrored(self) -> tuple[int, ...]:
        return COCO_17.mirrored

    def maps(self, outputs: Tensor) -> JointMaps:
        scores, distance = self._scores_and_distances(outputs)
        best = (scores / distance).flatten(2).argmax(dim=-1, keepdim=True)
        confidence = scores.flatten(2).gather(2, best).squeeze(-1)
        # the prior multiplies probabilities: within the softmax it would pull every peak towards the expected place
        return JointMaps(logits=scores / SCORE_TEMPERATURE - torch.log(distance), confidence=confidence)

    def joint_logits(self, outputs: Tensor) -> Tensor:
        """Maps of logits (B,K,h,w) of the joints that are wanted."""
        maps = self.maps(outputs).logits
        return torch.einsum("kj,bjyx->bkyx", self.mixture.to(maps), maps)

    def trained_logits(self, outputs: Tensor) -> Tensor:
        """`joint_logits`, from which a loss moves the maps of those joints alone that are a joint of COCO.

        A mixture would pull the maps of its parents towards the place between them: trained on necks, shoulders move to the neck. On LSPET
        that took Lightning from 55.4 PCKh@0.5 to 39.4."""
        logits = self.joint_logits(outputs)
        own = (self.mixture == 1).any(dim=1).to(logits.device)
        return torch.where(own[:, None, None], logits, logits.detach())

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        points, mass = self.decoder.points(maps)
        return self._mixed(points, mass)

    def points_of(self, upright: Tensor, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of one view, as the original graph decodes it: the best cell, moved by its offset."""
        del mirrored  # never given: a flip test goes through maps
        scores, distance = self._scores_and_distances(upright)
        height, width = scores.shape[2:]
        best = (scores / distance).flatten(2).argmax(dim=-1)
        offsets = upright[:, -34:].reshape(-1, 17, 2, height * width)
        off_y, off_x = offsets.gather(3, best[:, :, None, None].expand(-1, -1, 2, 1)).squeeze(-1).unbind(-1)
        x = (best % width + off_x) * (self.decoder.width_px / width) - 0.5
        y = (best // width + off_y) * (self.decoder.height_px / height) - 0.5
        confidence = scores.flatten(2).gather(2, best.unsqueeze(-1)).squeeze(-1)
        return self._mixed(torch.stack([x, y], dim=-1), confidence)

    def _mixed(self, points: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        shares = self.shares.to(points)
        return torch.einsum("kj,bjc->bkc", shares, points), torch.einsum("kj,bj->bk", certainties(shares), confidence)

    def _scores_and_distances(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,17,h,w) of 0 … 1, and the distance of each cell from the expected one in cells, plus `NEAR_CELLS`."""
        heat, centre, towards, _ = torch.split(outputs, list(MOVENET_LAYERS.values()), dim=1)
        height, width = outputs.shape[2:]
        rows = torch.arange(height, dtype=outputs.dtype, device=outputs.device)[:, None]
        columns = torch.arange(width, dtype=outputs.dtype, device=outputs.device)[None, :]
        off_middle = ((rows - height // 2).square() + (columns - width // 2).square()).sqrt() + NEAR_CELLS  # ONNX has no hypot
        person = (torch.sigmoid(centre[:, 0]) / off_middle).flatten(1).argmax(dim=-1)
        cells = towards.reshape(-1, 17, 2, height * width)
        there = cells.gather(3, person[:, None, None, None].expand(-1, 17, 2, 1)).squeeze(-1)
        row, column = (there[..., 0] + (person // width)[:, None], there[..., 1] + (person % width)[:, None])
        grid = torch.stack([rows.expand(height, width), columns.expand(height, width)], dim=-1)
        # at an expected place that is a cell exactly, the gradient of a norm is 0, that of hypot would be NaN
        distance = torch.linalg.vector_norm(grid - torch.stack([row, column], dim=-1)[..., None, None, :], dim=-1) + NEAR_CELLS
        return torch.sigmoid(heat), distance


def logits_for_loss(config: ModelConfig, skeleton: Skeleton) -> Callable[[Tensor], Tensor]:
    """From the outputs of the head `movenet` to the maps that a loss is taken of."""
    return movenet_readout(config, skeleton).trained_logits


def movenet_readout(config: ModelConfig, skeleton: Skeleton) -> MoveNetReadout:
    """Of MoveNet's own heads.

    Raises:
        BadInput: COCO has no counterpart for a joint of the skeleton.
    """
    decoder = MapDecoder(height_px=config.input_height_px, width_px=config.input_width_px, window_px=WINDOW_PX)
    return MoveNetReadout.of(decoder, skeleton)
