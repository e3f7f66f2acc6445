"""Examples with their labels, and the loss whose gradient is taken.

Shapes: B examples, K joints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dpcore.errors import BadInput


def _not_given() -> Tensor:
    return torch.tensor(math.nan)


@dataclass(frozen=True)
class Batch:
    """Examples with their labels, validated at birth. A slice of a batch is a batch.

    Args:
        inputs: (B, ...) images or cached features, whatever the trainable module takes.
        keypoints: (B, K, 2) px in the crop.
        visible: (B, K) bool.
        head_px: (B,) head sizes of the labels in px, NaN where unknown; all unknown unless given.

    Raises:
        BadInput: the lengths differ.
    """

    inputs: Tensor
    keypoints: Tensor
    visible: Tensor
    head_px: Tensor = field(default_factory=_not_given)

    def __post_init__(self) -> None:
        if self.head_px.dim() == 0:
            object.__setattr__(self, "head_px", torch.full_like(self.keypoints[:, 0, 0], math.nan))
        lengths = len(self.inputs), len(self.keypoints), len(self.visible), len(self.head_px)
        if len(set(lengths)) != 1:
            raise BadInput(f"a batch has one length, given inputs, keypoints, visible, head sizes of {lengths}")

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs and labels, in the order of the arguments."""
        return self.inputs, self.keypoints, self.visible, self.head_px

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(*(tensor[rows] for tensor in self.tensors))

    def followed_by(self, other: Batch) -> Batch:
        """The examples of both, this batch's first."""
        return Batch(*(torch.cat(pair) for pair in zip(self.tensors, other.tensors, strict=True)))

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
