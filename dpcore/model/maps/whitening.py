"""Features in which every direction varies alike: the inputs of a head that starts at random, by a covariance of PUBLIC data.

Channels of a network differ in size by a hundred and move together. The gradient of a head is then long along a few directions, which the
clip keeps, and lost in the noise along all others. Whitening is a fixed linear map of the channels: with it one clip norm fits all of them.
Legend: B examples, C channels, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.errors import BadInput
from dpcore.model.maps.pyramid import Pyramid

LEAST_VARIANCE_FRAC = 1e-3
"""Of the mean variance: added to each direction's. A direction that hardly varies in the public data is blown up by 32 at most."""


class Whitening(nn.Module):
    """Each map minus its mean, turned to its principal axes, each divided by its deviation: (B,C,h,w) -> (B,C,h,w).

    The maps of a pyramid are whitened level by level. Nothing in it trains: its numbers are buffers of the network, fixed before the public
    stages. Until `fit` it changes nothing.
    """

    def __init__(self, channels: int, pyramid: Pyramid | None) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.sizes = (channels,) if pyramid is None else pyramid.channels
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"mean_{level}", torch.zeros(size))
            self.register_buffer(f"axes_{level}", torch.eye(size))

    def forward(self, maps: Tensor) -> Tensor:
        found = []
        for level, one in enumerate(self._levels(maps)):
            mean, axes = self._numbers(level)
            found.append(functional.conv2d(one, axes[..., None, None], bias=-(axes @ mean)))
        return found[0] if self.pyramid is None else self.pyramid.pack(found)

    def fit(self, features: Iterable[Tensor]) -> None:
        """Sets its numbers by all cells of some features (B,C,h,w), which must be of PUBLIC data.

        Raises:
            BadInput: there are fewer cells than channels, or they are no numbers.
        """
        moments = [_Moments(size) for size in self.sizes]
        for batch in features:
            for level, one in enumerate(self._levels(batch)):
                moments[level].add(one)
        for level, found in enumerate(moments):
            for kept, new in zip(self._numbers(level), found.whitening(), strict=True):
                kept.copy_(new.to(kept))

    def _levels(self, maps: Tensor) -> list[Tensor]:
        return [maps] if self.pyramid is None else self.pyramid.unpack(maps)

    def _numbers(self, level: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"mean_{level}"), self.get_buffer(f"axes_{level}")


class _Moments:
    """First and second moments of the cells of maps with so many channels, in float64."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """The cells of (B,C,h,w)."""
        cells = maps.transpose(0, 1).flatten(1).to("cpu", torch.float64)
        self._count += cells.shape[1]
        self._sum += cells.sum(dim=1)
        self._products += cells @ cells.T

    def whitening(self) -> tuple[Tensor, Tensor]:
        """Mean (C,) and scaled axes (C, C), the most varying first."""
        channels = len(self._sum)
        if self._count <= channels:
            raise BadInput(f"model.input_whitening: {self._count} cells of public features do not give {channels} variances; use more data")
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        if not bool(torch.isfinite(covariance).all()):
            raise BadInput("model.input_whitening: public features are no finite numbers; lower stages.public.learning_rate")
        variances, axes = torch.linalg.eigh(covariance)
        least = LEAST_VARIANCE_FRAC * float(variances.clamp(min=0.0).mean())
        if least == 0.0:
            raise BadInput("model.input_whitening: public features do not vary at all; choose other feature_layers")
        scaled = (axes / (variances.clamp(min=0.0) + least).sqrt()).T.flip(0)
        largest = scaled.gather(1, scaled.abs().argmax(dim=1, keepdim=True))
        return mean, scaled * largest.sign()  # an axis has no sign of its own
