"""Memory that is used again from pass to pass: the first touch of a fresh page costs five times a write."""

from __future__ import annotations

import math
from functools import reduce

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

    def joined(self, first: Batch, *others: Batch) -> Batch:
        """The examples of all, the first's first, with their inputs in a buffer."""
        batches = (first, *others)
        if any(one.inputs.shape[1:] != first.inputs.shape[1:] or one.inputs.dtype != first.inputs.dtype for one in others):
            return reduce(Batch.followed_by, batches)
        inputs = self.take("inputs", (sum(map(len, batches)), *first.inputs.shape[1:]), first.inputs)
        torch.cat([one.inputs for one in batches], out=inputs)
        return Batch(inputs, *(torch.cat(parts) for parts in zip(*(one.tensors[1:] for one in batches), strict=True)))
