"""Adds the Gaussian noise. The scale follows from the bound that the sum carries; there is no clip-norm argument."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcore.devices import on_device
from dpcore.errors import BadInput
from dpcore.privacy.clipping import BoundedSum
from dpcore.privacy.randomness import NormalStream


@dataclass(frozen=True, kw_only=True)
class NoisedSum:
    """A released value (D,) float64: a bounded sum plus N(0, noise_stddev² I_D). Everything made from it is free."""

    value: Tensor
    noise_stddev: float


def add_noise(bounded: BoundedSum, *, noise_multiplier: float, stream: NormalStream) -> NoisedSum:
    """The Gaussian mechanism on a bounded sum.

    Guarantees: the noise is isotropic in the space of the sum, with a standard deviation of noise_multiplier × l2_bound in
    each coordinate, drawn in float64. A sum over no record is noised like any other.

    Args:
        bounded: The sum with its sensitivity.
        noise_multiplier: Standard deviation in units of the sensitivity; finite and positive.
        stream: A private stream that was never used before.

    Raises:
        BadInput: noise_multiplier is not finite and positive (a release without noise is not this function's to make).
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise BadInput(f"noise_multiplier must be finite and positive, given {noise_multiplier}: calibrate it to an epsilon")
    stddev = noise_multiplier * bounded.l2_bound
    noise = on_device(torch.as_tensor(stream.normal(bounded.value.numel())), bounded.value.device)
    return NoisedSum(value=bounded.value + stddev * noise.view_as(bounded.value), noise_stddev=stddev)
