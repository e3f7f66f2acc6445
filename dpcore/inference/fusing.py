"""One probability map per joint from those of several views of a crop.

| fuse | of the maps |
|---|---|
| mean | the mean over views |
| maps | the mean, each view weighted by its mean confidence over joints to a power |
| best | those of the view with the highest mean confidence over joints |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

UprightMaps = tuple[Tensor, Tensor]
"""Of a view: probability maps (B, K, Hm, Wm) of the upright crop, and confidences (B, K)."""


class Fuse(Protocol):
    """Makes one map of several."""

    def __call__(self, views: Iterable[UprightMaps]) -> Tensor:
        """(B, K, Hm, Wm) that sum to 1 over each map. Views are read one at a time."""


@dataclass(frozen=True)
class WeightedMean:
    """The mean of the views' maps, each weighted by its mean confidence over joints to a power; 0 weighs all alike.

    A view in which the person is upside down is bad as a whole. So the weight is the view's and not the joint's: on LSPET with MoveNet
    Thunder (100 people, 8 views) the 8th power gave 68.9 PCKh@0.5, the square root of each joint's own confidence 65.9, no weight 65.8."""

    power: float

    def __call__(self, views: Iterable[UprightMaps]) -> Tensor:
        total: Tensor | None = None
        weights: Tensor | None = None
        for maps, confidence in views:
            weight = confidence.mean(dim=1) ** self.power
            weighed = maps * weight[:, None, None, None]
            total = weighed if total is None or weights is None else total + weighed
            weights = weight if weights is None else weights + weight
        assert total is not None  # an evaluation has at least one view
        assert weights is not None
        return total / weights[:, None, None, None]


@dataclass(frozen=True)
class BestView:
    """The maps of the most confident view; the first of equally confident ones."""

    def __call__(self, views: Iterable[UprightMaps]) -> Tensor:
        best: Tensor | None = None
        highest: Tensor | None = None
        for maps, confidence in views:
            mean = confidence.mean(dim=1)
            if best is None or highest is None:
                best, highest = maps, mean
                continue
            better = mean > highest
            best = torch.where(better[:, None, None, None], maps, best)
            highest = torch.maximum(highest, mean)
        assert best is not None  # an evaluation has at least one view
        return best


FUSES: Mapping[str, Callable[[float], Fuse]] = {
    "mean": lambda _: WeightedMean(0.0),
    "maps": WeightedMean,
    "best": lambda _: BestView(),
}
"""By `evaluation.fuse`, from `evaluation.confidence_power`."""
