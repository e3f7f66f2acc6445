"""Memory that is used again from pass to pass: the first touch of a fresh page costs five times a write."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpcore.gradients.batch import Batch


class Buffers:
    """Flat pieces of memory by name. What `take` gives is overwritten by whoever takes that name next."""

    def __init__(self) -> None:
        self._flat: dict[object, Tensor] = {}

    def take(self, key: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory of this shape that holds anything; every number of it has to be written."""
        count, flat = math.prod(shape), self._flat.get(key)
        if flat is None or flat.numel() < count or (flat.dtype, flat.device) != (like.dtype, like.device):
            flat = self._flat[key] = torch.empty(count, dtype=like.dtype, device=like.device)
        return flat[:count].view(shape)

    def joined(self, first: Batch, second: Batch) -> Batch:
        """The examples of both, the first's first, with their inputs in a buffer."""
        if first.inputs.shape[1:] != second.inputs.shape[1:] or first.inputs.dtype != second.inputs.dtype:
            return first.followed_by(second)
        inputs = self.take("inputs", (len(first) + len(second), *first.inputs.shape[1:]), first.inputs)
        inputs[: len(first)], inputs[len(first) :] = first.inputs, second.inputs
        return Batch(inputs, torch.cat([first.keypoints, second.keypoints]), torch.cat([first.visible, second.visible]))
