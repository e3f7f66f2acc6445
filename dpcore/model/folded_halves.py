"""A folded network cut in front of its first layer that trains: what lies before is computed once and kept.

A layer trains if it has a trained parameter, or reads one that does. The maps that cross the cut (several, where a pyramid reads several
levels) are packed into one tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from dpcore.config import digest_of
from dpcore.errors import BadInput
from dpcore.model.folded import FoldedFeatures
from dpcore.model.maps.pyramid import Pyramid
from dpcore.model.topology import INPUT, Layer


class Front(nn.Module):
    """Images (B,3,H,W) in [-1, 1] to the packed maps that cross the cut. It shares its layers with the network."""

    cut_sum: Tensor

    def __init__(self, whole: FoldedFeatures, layers: Sequence[Layer], taps: Sequence[str], pyramid: Pyramid) -> None:
        super().__init__()
        self._layers, self._taps, self._pyramid = tuple(layers), tuple(taps), pyramid
        self._whole = (whole,)  # in a tuple, so that the layers behind the cut are no part of this module
        self.layers = whole.modules_of(layers)
        self.register_buffer("cut_sum", _sum_of(layers, taps))  # caches are named by the digest of a stem's state

    def forward(self, images: Tensor) -> Tensor:
        maps = self._whole[0].run(self._layers, {INPUT: self._whole[0].scaled(images)})
        return self._pyramid.pack([maps[name] for name in self._taps])


class Back(nn.Module):
    """The packed maps that cross the cut to the network's features."""

    def __init__(self, whole: FoldedFeatures, layers: Sequence[Layer], taps: Sequence[str], pyramid: Pyramid) -> None:
        super().__init__()
        self._layers, self._taps, self._pyramid = tuple(layers), tuple(taps), pyramid
        self._whole = (whole,)
        self.layers = whole.modules_of(layers)

    def forward(self, packed: Tensor) -> Tensor:
        maps = self._whole[0].run(self._layers, dict(zip(self._taps, self._pyramid.unpack(packed), strict=True)))
        coarsest = self._pyramid.coarsest_px
        return self._whole[0].gathered(maps, size_px=(packed.shape[2] * coarsest, packed.shape[3] * coarsest))


def halves(whole: FoldedFeatures, trained: Collection[str]) -> tuple[Front, Back] | None:
    """The network before and behind its first trained layer; None where nothing lies before it, or maps that cross cannot be packed.

    Args:
        whole: the network.
        trained: names of its trained parameters.
    """
    layers = whole.topology.layers
    live = _live(whole, trained)
    front, back = [one for one in layers if one.name not in live], [one for one in layers if one.name in live]
    read = {name for one in back for name in one.inputs} | set(whole.feature_layers)
    taps = [one.name for one in front if one.name in read]
    if not front or not back or INPUT in read:
        return None
    strides, channels = whole.topology.strides(), whole.topology.channels()
    if any(strides[name] is None or strides[name].denominator != 1 for name in taps):  # type: ignore[union-attr]
        return None
    try:
        pyramid = Pyramid(
            channels=tuple(channels[name] for name in taps),
            strides_px=tuple(int(strides[name]) for name in taps),  # type: ignore[arg-type]
        )
    except BadInput:  # strides of 3 and 2 have no common grid: the whole network runs in each step
        return None
    return Front(whole, front, taps, pyramid), Back(whole, back, taps, pyramid)


def _live(whole: FoldedFeatures, trained: Collection[str]) -> set[str]:
    live: set[str] = set()
    for layer in whole.topology.layers:
        own = f"convolutions.{whole.key_of(layer.name)}."
        if live.intersection(layer.inputs) or any(name.startswith(own) for name in trained):
            live.add(layer.name)
    return live


def _sum_of(layers: Sequence[Layer], taps: Sequence[str]) -> Tensor:
    digest = digest_of({"layers": [layer.document() for layer in layers], "taps": list(taps)})
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)
