"""Moves tensors to where they are computed with, as many at a time as suit the place."""

from __future__ import annotations

import torch
from torch import Tensor

_PICTURES_AT_ONCE = 64
_CPU_PIXELS_AT_ONCE = 2**18
"""Of all pictures that go through a network together, without gradients: four of 256×256 px. The widest maps then fit a processor's cache,
and pieces of memory that the C library keeps (benchmarks/pictures_at_once.py)."""


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. To a GPU it goes from pinned memory: the host goes on while it is copied, and prepares the next batch while
    the GPU computes this one. From other memory a copy first waits for everything that the GPU was given before.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pictures_at_once(images: Tensor) -> int:
    """How many pictures like these (…, H, W) go through a network together: by their size and device alone, so that the features of a
    picture do not depend on what is asked for beside it."""
    if images.device.type != "cpu":
        return _PICTURES_AT_ONCE
    return max(1, min(_PICTURES_AT_ONCE, _CPU_PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1])))
