"""Numbers by which parameters are measured: a weight is its tensor's scale times the number that training moves.

Folded weights have root mean squares from 0.001 to 1.1. One learning rate, one clip norm and one noise then move some tensors by a
thousandth of themselves and others by all of it. With w = s·u for each tensor, gradients are taken with respect to u: ∂ℓ/∂u = s·∂ℓ/∂w.
Rows, clip, subspace, noise, optimizer and checkpoints live in the space of u.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import nn

Scales = tuple[float, ...]
"""One number for each trained tensor, in the order of the rows."""


@runtime_checkable
class OfKnownSize(Protocol):
    """A module whose own tensors start at zero and are like no others: it says what they are measured by."""

    relative_size: float


def relative_scales(start: nn.Module) -> Scales:
    """The root mean square of each trained tensor, to the nearest power of two.

    A power of two loses no bit of a weight or of a row: the scaled rows are exact, and so is what the clip says of them. It is off by √2 at
    most, as a learning rate would be. A tensor of zeros (a fresh bias, the second matrix of a low-rank change) has no size of its own: it
    takes that of all the numbers together, or 1 where all are zero, unless its module is `OfKnownSize`.

    Args:
        start: a network at its start. Its weights must be public: the scales stand in no claim.
    """
    parameters = [p for p in start.parameters() if p.requires_grad]
    of_known_size = [module for module in start.modules() if isinstance(module, OfKnownSize)]
    known = {id(p): module.relative_size for module in of_known_size for p in module.parameters(recurse=False)}
    squares = [float(p.detach().double().square().sum()) for p in parameters]
    numbers = sum(p.numel() for p in parameters)
    of_all = math.sqrt(sum(squares) / numbers) if numbers else 0.0
    sizes = [known.get(id(p)) or math.sqrt(square / p.numel()) for square, p in zip(squares, parameters, strict=True)]
    return tuple(_power_of_two(size or of_all) for size in sizes)


def _power_of_two(size: float) -> float:
    return 2.0 ** round(math.log2(size)) if 0.0 < size < math.inf else 1.0
