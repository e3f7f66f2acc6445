"""From released directions to weights: post-processing, which costs no privacy whatever it does.

Works on the flat weight vector (P,) that the gradient engine reads and writes, so that its state is two vectors in a
checkpoint and no Python object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcore.config import OptimizerConfig
from dpcore.errors import Corrupt

_ADAM_BETA2 = 0.999
_ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class OptimizerState:
    """First and second moment (P,) float32; SGD uses the first alone and keeps the second at zero."""

    first: Tensor
    second: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> OptimizerState:
        """The state before the first step."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"optimizer.first": self.first, "optimizer.second": self.second}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> OptimizerState:
        """From a checkpoint.

        Raises:
            Corrupt: a moment is missing.
        """
        try:
            return cls(tensors["optimizer.first"], tensors["optimizer.second"])
        except KeyError as error:
            raise Corrupt(f"the checkpoint lacks {error}; remove it to resume from the one before") from error


def learning_rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of `step` (from 0) out of `steps`: constant, or a half cosine that would reach 0 at `steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def updated(
    config: OptimizerConfig, weights: Tensor, *, direction: Tensor, state: OptimizerState, step: int, steps: int
) -> tuple[Tensor, OptimizerState]:
    """New weights (P,) and state after `direction` (P,) at `step` of `steps`; the arguments stay as they are.

    SGD: m ← βm + g, w ← w − η(m + decay·w). Adam: Kingma and Ba (2015) with bias correction and decoupled decay
    (Loshchilov and Hutter 2019), without the DP correction of its second moment.
    """
    rate = learning_rate_at(config, step, steps)
    if config.name == "sgd":
        first, second = config.momentum * state.first + direction, state.second
        change = first
    else:
        first = config.momentum * state.first + (1.0 - config.momentum) * direction
        second = _ADAM_BETA2 * state.second + (1.0 - _ADAM_BETA2) * direction.square()
        unbiased_first = first / (1.0 - config.momentum ** (step + 1))
        unbiased_second = second / (1.0 - _ADAM_BETA2 ** (step + 1))
        change = unbiased_first / (unbiased_second.sqrt() + _ADAM_EPSILON)
    return weights - rate * (change + config.weight_decay * weights), OptimizerState(first, second)


def averaged(average: Tensor, weights: Tensor, decay: float) -> Tensor:
    """The exponential moving average (P,) after one more step."""
    return decay * average + (1.0 - decay) * weights
