"""Numbers by which parameters are measured: a weight is its tensor's scale times the number that training moves.

Folded weights have root mean squares from 0.001 to 1.1. One learning rate, one clip norm and one noise then move some tensors by a
thousandth of themselves and others by all of it. With w = s·u for each tensor, gradients are taken with respect to u: ∂ℓ/∂u = s·∂ℓ/∂w.
Rows, clip, subspace, noise, optimizer and checkpoints live in the space of u.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

Scales = tuple[float, ...]
"""One number for each trained tensor, in the order of the rows."""


def relative_scales(parameters: Sequence[Tensor]) -> Scales:
    """The root mean square of each tensor, to the nearest power of two.

    A power of two loses no bit of a weight or of a row: the scaled rows are exact, and so is what the clip says of them. It is off by √2 at
    most, as a learning rate would be. A tensor of zeros (a fresh bias, the second matrix of a low-rank change) has no size of its own: it
    takes that of all the numbers together, or 1 where all are zero.

    Args:
        parameters: trained tensors at their start. They must be public: the scales stand in no claim.
    """
    squares = [float(p.detach().double().square().sum()) for p in parameters]
    numbers = sum(p.numel() for p in parameters)
    of_all = math.sqrt(sum(squares) / numbers) if numbers else 0.0
    sizes = [math.sqrt(square / p.numel()) for square, p in zip(squares, parameters, strict=True)]
    return tuple(_power_of_two(size or of_all) for size in sizes)


def _power_of_two(size: float) -> float:
    return 2.0 ** round(math.log2(size)) if 0.0 < size < math.inf else 1.0
