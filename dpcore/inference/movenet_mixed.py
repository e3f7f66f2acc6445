"""The head `movenet_mixed`: MoveNet's own maps, and the joints as learned mixtures of its keypoints.

The head `movenet` trains the network and leaves necks, head tops and hips where public knowledge puts them; the head `keypoints` learns
where they are and leaves the network as it is. Here both train together: the network's weights, and the 138 numbers of
`dpcore.inference.joint_mixer`. Views are fused in the maps of the 17 keypoints, and mixed once, after decoding.

For a loss each joint has a map of its own. That of a joint of COCO is its heat map, moved by what the mixture adds; so the loss moves the
heat map's peak and the mixture. Any other joint has a Gaussian around its mixture, from which the loss moves the mixture alone: through it
shoulders would move to the neck. Legend: B examples, K joints, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig
from dpcore.inference.joint_mixer import SPREAD_FRAC, JointShares, certainties
from dpcore.inference.maps import JointMaps
from dpcore.inference.movenet import MoveNetReadout, movenet_readout
from dpcore.model.head import HeadShape
from dpcore.pose.skeleton import Skeleton

REACH = 32.0
"""A trained number stands for so much of a share. Shares move by 0.1 to 1, weights of a network by a few hundredths of their size. With it
one learning rate serves both."""

Mixed = tuple[Tensor, Tensor]
"""Maps of MoveNet's four heads (B,86,h,w), and the share of each keypoint in each joint, (B,K,17), the same for all B."""


class _SharesOfEach(JointShares):
    """The shares, once for each example, so that each has its own gradient."""

    relative_size = 0.5
    """Near the root mean square of all of Thunder's weights (0.35), whichever of them train: that of its last layers is three times as
    large, which would tear the joints apart."""

    def forward(self, examples: Tensor) -> Tensor:
        """(B, K, 17) from ones (B, 1)."""
        return examples[:, :, None] * self.shares()


class MixedHead(nn.Module):
    """Maps of MoveNet's four heads (B,86,h,w) to `Mixed`."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shares = _SharesOfEach(shape.skeleton, reach=REACH)

    def draw_weights(self, generator: torch.Generator) -> None:
        """See `JointShares`."""
        self.shares.draw_weights(generator)

    def forward(self, maps: Tensor) -> Mixed:
        return maps, self.shares(maps.new_ones(maps.shape[0], 1))


@dataclass(frozen=True, kw_only=True)
class MixedReadout:
    """Of `Mixed`: maps and keypoints are those of COCO, and `shares_of` makes joints of them."""

    movenet: MoveNetReadout

    @property
    def mirrored(self) -> tuple[int, ...]:
        return self.movenet.mirrored

    def maps(self, outputs: Mixed) -> JointMaps:
        return self.movenet.maps(_precise(outputs[0]))

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.movenet.decoder.points(maps)

    def shares_of(self, outputs: Mixed) -> Tensor:
        """(B, K, 17)."""
        return _precise(outputs[1])

    def trained_logits(self, outputs: Mixed) -> Tensor:
        """Maps of logits (B,K,h,w) for a loss; see the module."""
        said, shares = self.maps(outputs), self.shares_of(outputs)
        with torch.no_grad():
            keypoints, _ = self.points(said.probabilities())
            certainty = torch.einsum("bkj,bj->bk", certainties(shares), said.confidence)
        joints = torch.einsum("bkj,bjc->bkc", shares, keypoints)
        of_coco = self.movenet.shares.to(shares)
        own, nearest = (of_coco == 1).any(dim=1), of_coco.argmax(dim=1)
        moved = self._moved(said.logits[:, nearest], joints - keypoints[:, nearest])
        return torch.where(own[:, None, None], moved, self._blobs(joints, certainty, moved))

    def _moved(self, maps: Tensor, by_px: Tensor) -> Tensor:
        """Maps (B,K,h,w), each moved by its (x, y) of (B,K,2)."""
        by_frac = by_px * 2 / by_px.new_tensor([self.movenet.decoder.width_px, self.movenet.decoder.height_px])  # of half a side
        still = torch.eye(2).to(by_frac).expand(*by_frac.shape[:2], 2, 2)
        grid = functional.affine_grid(
            torch.cat([still, -by_frac.unsqueeze(-1)], dim=-1).flatten(0, 1),
            [len(maps) * maps.shape[1], 1, *maps.shape[2:]],
            align_corners=False,
        )
        moved = functional.grid_sample(maps.flatten(0, 1).unsqueeze(1), grid, padding_mode="border", align_corners=False)
        return moved.view_as(maps)

    def _blobs(self, joints: Tensor, certainty: Tensor, like: Tensor) -> Tensor:
        """Gaussians (B,K,h,w) around joints (B,K,2) px, the wider the less certain (B,K) they are."""
        decoder = self.movenet.decoder
        spread_px = SPREAD_FRAC * max(decoder.height_px, decoder.width_px) * (2 - certainty)[..., None, None]
        down, across = (
            (torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5) * (size_px / cells) - 0.5
            for cells, size_px in zip(like.shape[2:], (decoder.height_px, decoder.width_px), strict=True)
        )
        x, y = joints[..., 0, None, None], joints[..., 1, None, None]
        return -0.5 * ((across - x).square() + (down[:, None] - y).square()) / spread_px.square()


def _precise(tensor: Tensor) -> Tensor:
    """In float32 at least: of 64 cells bfloat16 knows every fourth of one."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def logits_for_loss(config: ModelConfig, skeleton: Skeleton) -> Callable[[Mixed], Tensor]:
    """From the outputs of the head to the maps that a loss is taken of."""
    return mixed_readout(config, skeleton).trained_logits


def mixed_readout(config: ModelConfig, skeleton: Skeleton) -> MixedReadout:
    """Of MoveNet's own heads, with learned mixtures.

    Raises:
        BadInput: COCO has no counterpart for a joint of the skeleton.
    """
    return MixedReadout(movenet=movenet_readout(config, skeleton))
