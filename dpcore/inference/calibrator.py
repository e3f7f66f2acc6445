"""The head `calibrator`: a MoveNet's maps, corrected by 88 numbers that mean the same in every view.

Each joint's map goes through a small kernel and gets a bias that depends on the distance from the crop's middle. Kernel and bias are
unmoved by quarter turns and mirroring, and left and right joints share theirs. So the correction of a turned or mirrored crop is the
turned or mirrored correction: what it learns on upright crops holds in every view that is fused.

With 88 parameters the noise of a private step is as small as it gets.
Legend: B examples, K joints, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig
from dpcore.inference.movenet import MoveNetReadout, movenet_readout
from dpcore.model.head import HeadShape
from dpcore.pose.skeleton import Skeleton

KERNEL_ORBITS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
"""Cells of a 5x5 kernel that quarter turns and mirroring carry into each other, by their distances from the middle."""
RADIAL_POWERS = (1, 2)
"""Of the distance from the middle of the crop, in half its side."""
TERMS = len(KERNEL_ORBITS) + len(RADIAL_POWERS)


class Calibrator(nn.Module):
    """K maps of logits to K maps: Σ_t c_kt · term_t, with one coefficient per joint and term.

    A coefficient is `shared` (T) plus the `own` (G, T) of the joint's group: a left and a right joint are one group, so that mpii_16 has
    ten and 88 parameters. It starts as the identity.
    """

    groups: Tensor

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        groups = groups_of(skeleton)
        self.register_buffer("groups", torch.tensor(groups))
        self.shared = nn.Parameter(torch.zeros(1, TERMS))
        self.own = nn.Parameter(torch.zeros(max(groups) + 1, TERMS))
        self.register_buffer("kernels", _kernels())
        with torch.no_grad():
            self.shared[0, 0] = 1.0

    def draw_weights(self, generator: torch.Generator) -> None:
        """Nothing is drawn: it starts as the identity."""
        with torch.no_grad():
            self.shared.zero_()[0, 0] = 1.0
            self.own.zero_()

    def forward(self, maps: Tensor) -> Tensor:
        """(B,K,h,w) to (B,K,h,w)."""
        coefficients = self.shared + self.own[self.groups]
        count = len(KERNEL_ORBITS)
        kernels = torch.einsum("kt,tyx->kyx", coefficients[:, :count], self.kernels).unsqueeze(1)
        border = functional.pad(maps, [2, 2, 2, 2], mode="replicate")
        corrected = functional.conv2d(border, kernels, groups=maps.shape[1])
        return corrected + torch.einsum("kt,tyx->kyx", coefficients[:, count:], _radial(maps))


class CalibratorHead(nn.Module):
    """The maps of MoveNet's four heads (B,86,h,w) to calibrated maps of logits (B,K,h,w), one per joint."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.readout: MoveNetReadout = readout_of_shape(shape)
        self.calibrator = Calibrator(self.readout.skeleton)

    def draw_weights(self, generator: torch.Generator) -> None:
        """See `Calibrator`."""
        self.calibrator.draw_weights(generator)

    def forward(self, outputs: Tensor) -> Tensor:
        maps: Tensor = self.calibrator(self.readout.joint_logits(outputs))
        return maps


def readout_of_shape(shape: HeadShape) -> MoveNetReadout:
    """MoveNet's own decoding, for the joints and the crop of a head."""
    return movenet_readout(ModelConfig(input_height_px=shape.height_px, input_width_px=shape.width_px), shape.skeleton)


def groups_of(skeleton: Skeleton) -> list[int]:
    """For each joint its group: that of its mirror image where this comes first."""
    groups: list[int] = []
    for joint, other in enumerate(skeleton.mirrored):
        groups.append(groups[other] if other < joint else max(groups, default=-1) + 1)
    return groups


def _kernels() -> Tensor:
    """(orbits, 5, 5): the mean over the cells of each orbit."""
    apart = (torch.arange(5) - 2).abs()
    down, across = torch.maximum(apart[:, None], apart[None, :]), torch.minimum(apart[:, None], apart[None, :])
    masks = torch.stack([(across == least) & (down == most) for least, most in KERNEL_ORBITS]).float()
    return masks / masks.sum(dim=(1, 2), keepdim=True)


def _radial(maps: Tensor) -> Tensor:
    """(powers, h, w): powers of the distance from the middle, the longer half side being 1."""
    height, width = maps.shape[2:]
    down, across = ((torch.arange(cells, dtype=maps.dtype, device=maps.device) - (cells - 1) / 2) for cells in (height, width))
    distance = (down[:, None].square() + across[None, :].square()).sqrt() / (max(height, width) / 2)
    return torch.stack([distance**power for power in RADIAL_POWERS])
