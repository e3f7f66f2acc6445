"""Plain gradients of a weighted sum of losses, without rows: of public terms and of training without privacy.

On a CPU a pass of more than `FEW` examples holds about `HELD_BYTES` of maps at most, as those behind clipped sums do. 64 images of 256 px
through all of MoveNet Thunder would hold 11 GB at once. A network that says so (`ReadsChannelsLast`) is given pictures channels last there:
MoveNet Thunder whole takes 0.21 s an example of one core, and 0.36 s channels first. Shapes: B examples, P trainable parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dpcore.gradients.batch import Batch
from dpcore.gradients.book_keeping import HELD_BYTES
from dpcore.gradients.functional import flat_gradient
from dpcore.gradients.way import TrainedModule

FEW = 8
"""So many examples share a pass in any case, and nothing is measured for them."""


@runtime_checkable
class ReadsChannelsLast(Protocol):
    """A network of convolutions, faster on pictures that lie channels last, and as right. Others are never given them: the gradient of a
    GroupNorm over such pictures ends the process (torch 2.13), and a `view` that joins channels and places would refuse them."""

    reads_channels_last: bool


class PlainSums:
    """Sums of gradients of a module in training. How many examples share a pass follows from the shapes of the first batch alone."""

    def __init__(self, trained: TrainedModule) -> None:
        self._trained = trained
        self._example_bytes: int | None = None
        self._channels_last = any(isinstance(part, ReadsChannelsLast) and part.reads_channels_last for part in trained.module.modules())

    def summed(self, batch: Batch, weights: Tensor | None) -> Tensor:
        """Σ_i w_i ∇ℓ(x_i): (P,) float32; no weights are ones. B is at least 1."""
        batch, count = self._fastest(batch), len(batch)
        at_once = math.ceil(count / math.ceil(count / self._at_once(batch)))  # passes of equal size
        total: Tensor | None = None
        for start in range(0, count, at_once):
            some = slice(start, start + at_once)
            losses = self._trained.losses(batch[some])
            found = flat_gradient(losses.sum() if weights is None else (losses * weights[some]).sum(), self._trained)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total

    def _fastest(self, batch: Batch) -> Batch:
        """Pictures (B, 3, H, W) in the order of memory that the network likes best; anything else as it is."""
        inputs = batch.inputs
        if not self._channels_last or inputs.device.type != "cpu" or inputs.dim() != 4 or inputs.shape[1] != 3:
            return batch
        return replace(batch, inputs=inputs.contiguous(memory_format=torch.channels_last))

    def _at_once(self, batch: Batch) -> int:
        if self._trained.device.type != "cpu" or len(batch) <= FEW:
            return len(batch)
        if self._example_bytes is None:
            two, losses = batch[:1].followed_by(batch[:1]), self._trained.losses
            three = two.followed_by(batch[:1])
            self._example_bytes = held_bytes(lambda: losses(three)) - held_bytes(lambda: losses(two))
        return max(1, HELD_BYTES // max(1, self._example_bytes))


def held_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps after `forward` for the way back, weights included, each storage once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()  # alive until all is counted: an address that was freed could come again
    del kept
    return sum(sizes.values())
