"""Where joints are before anything is seen: a bias of a head's logits, from the positions of public people.

A head that starts at random spends its first private steps on learning that heads are up and feet are down. That is known from any public
poses, at no cost. Legend: B examples, K joints, G cells of the prior's grid.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

GRID = 24
"""Cells along each side of the crop: a cell of 8 px at 192 px."""
UNIFORM_FRAC = 0.05
"""Of the mass, spread evenly: a joint may be where no public one was."""
SPREAD_CELLS = 1.0


class PositionPrior(nn.Module):
    """Adds the log of a prior to what a head gives: logits of both axes (B,K,Wx), (B,K,Wy), or maps (B,K,h,w) of any size.

    Nothing in it trains. Until `fit` it is uniform and changes no prediction.
    """

    log_prior: Tensor

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.register_buffer("log_prior", torch.zeros(joints, GRID, GRID))

    def forward(self, outputs: tuple[Tensor, Tensor] | Tensor) -> tuple[Tensor, Tensor] | Tensor:
        if isinstance(outputs, Tensor):
            return outputs + self._resized(outputs.shape[2:])
        x, y = outputs
        return x + _stretched(self.log_prior.logsumexp(dim=1), x.shape[2]), y + _stretched(self.log_prior.logsumexp(dim=2), y.shape[2])

    def fit(self, places: NDArray[np.floating], visible: NDArray[np.bool_]) -> None:
        """Sets the prior by the positions of public people. A joint that none of them shows stays uniform.

        Args:
            places: (N, K, 2) in shares of the crop's sides, 0 … 1 from its left upper edge.
            visible: (N, K).
        """
        inside = visible & (places >= 0).all(axis=2) & (places < 1).all(axis=2)
        cells = torch.arange(GRID, dtype=torch.float64) + 0.5
        for joint in range(places.shape[1]):
            seen = torch.from_numpy(places[inside[:, joint], joint].astype(np.float64)) * GRID
            if len(seen) == 0:
                self.log_prior[joint] = 0.0
                continue
            near = torch.exp(-0.5 * ((seen[:, :, None] - cells) / SPREAD_CELLS) ** 2)
            near = near / near.sum(dim=2, keepdim=True)
            density = torch.einsum("ny,nx->yx", near[:, 1], near[:, 0]) / len(seen)
            self.log_prior[joint] = torch.log((1 - UNIFORM_FRAC) * density * GRID**2 + UNIFORM_FRAC).float()

    def _resized(self, size: torch.Size) -> Tensor:
        return functional.interpolate(self.log_prior[None], size=tuple(size), mode="bilinear", align_corners=False)


def _stretched(logits: Tensor, bins: int) -> Tensor:
    """(K, G) at so many bins."""
    return functional.interpolate(logits[None], size=bins, mode="linear", align_corners=False)
