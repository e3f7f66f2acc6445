"""Examples with their labels, and the loss whose gradient is taken.

Shapes: B examples, K joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcore.errors import BadInput


@dataclass(frozen=True)
class Batch:
    """Examples with their labels, validated at birth. A slice of a batch is a batch.

    Args:
        inputs: (B, ...) images or cached features, whatever the trainable module takes.
        keypoints: (B, K, 2) px in the crop.
        visible: (B, K) bool.

    Raises:
        BadInput: the lengths differ.
    """

    inputs: Tensor
    keypoints: Tensor
    visible: Tensor

    def __post_init__(self) -> None:
        lengths = len(self.inputs), len(self.keypoints), len(self.visible)
        if len(set(lengths)) != 1:
            raise BadInput(f"a batch has one length, given inputs, keypoints, visible of {lengths}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.inputs[rows], self.keypoints[rows], self.visible[rows])

    def followed_by(self, other: Batch) -> Batch:
        """The examples of both, this batch's first."""
        return Batch(
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.keypoints, other.keypoints]),
            torch.cat([self.visible, other.visible]),
        )

    def chunks(self, size: int) -> Iterator[Batch]:
        """Consecutive physical batches of at most `size` examples; none for an empty batch."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


Loss = Callable[[nn.Module, Batch], Tensor]
"""(module, batch) -> losses (B,): one per example, no term couples examples."""


@dataclass(frozen=True)
class RowsAndLosses:
    """Gradients (B, P) float32 and losses (B,) of the first half of each pair or of each example. Sealed when private."""

    rows: Tensor
    losses: Tensor
