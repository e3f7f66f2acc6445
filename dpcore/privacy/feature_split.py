"""The residual of a pair (x, ψ(x)) as ONE row: ∇ℓ(x) − λ∇ℓ(ψ(x)), added up before anything else sees it.

Why one row: the guarantee counts contributions of a record. If the public half were a row of its own, a record would enter
the clipped sum twice and could move it by 2C. So the pair runs through the network as one batch of 2B positions whose
losses are weighted +1 and −λ, and the two halves of the per-example gradients are merged here, inside the engine.

λ (`public_weight`) makes the public gradient a control variate (Mahloujifar et al., arXiv:2506.19836, has λ = 1). The
sensitivity is C for every λ, because the clip comes after the merge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpcore.errors import BadInput


def pair_weights(count: int, public_weight: float, *, like: Tensor) -> Tensor:
    """Loss weights (2·count,) of a pair batch [x_1 … x_B, ψ(x_1) … ψ(x_B)]: +1 and −λ."""
    ones = torch.ones(count, dtype=like.dtype, device=like.device)
    return torch.cat([ones, -public_weight * ones])


def merge_pair_rows(rows: Tensor) -> Tensor:
    """Rows (2B, P) of a weighted pair batch as the B residuals (B, P).

    Raises:
        BadInput: an odd number of rows, so that some position has no partner.
    """
    if len(rows) % 2:
        raise BadInput(f"a pair batch has an even number of rows, given {len(rows)}")
    half = len(rows) // 2
    return rows[:half] + rows[half:]
