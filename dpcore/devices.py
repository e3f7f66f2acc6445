"""Moves tensors to where they are computed with."""

from __future__ import annotations

import torch
from torch import Tensor


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. To a GPU it goes from pinned memory: the host goes on while it is copied, and prepares the next batch while
    the GPU computes this one. From other memory a copy first waits for everything that the GPU was given before.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
