"""Norms of rows, exact enough for a bound to rest on."""

from __future__ import annotations

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 512
"""In a float32 norm. One over 300,000 equal numbers is off by 1e-4, over 5.5 million by 4e-3, where the margin is 1e-5."""

_LIFT = 2.0**64
"""Brings a factor without a normal float32 into the normal numbers, exactly. It belongs to a row so long that the product stays below
the clip norm times this, far from the largest float32."""


def row_norms(rows: Tensor) -> Tensor:
    """L2 norms (B,) float64 of rows (B, D), to a relative 1e-6 at any D; inf where a square is beyond the rows' type.

    Float32 accumulators lose digits systematically over many equal numbers, so they add up few at a time. Float64 adds the rest.
    """
    whole = rows.shape[1] // _NUMBERS_AT_ONCE * _NUMBERS_AT_ONCE
    blocks = rows[:, :whole].reshape(len(rows), whole // _NUMBERS_AT_ONCE, _NUMBERS_AT_ONCE)
    parts = [torch.linalg.vector_norm(blocks, dim=2), torch.linalg.vector_norm(rows[:, whole:], dim=1, keepdim=True)]
    norms: Tensor = torch.linalg.vector_norm(torch.cat(parts, dim=1), dim=1, dtype=torch.float64)
    return norms


def host_reads_free(tensor: Tensor) -> bool:
    """Whether the host may look at a number without waiting: only on a CPU. A GPU would first have to finish all that it was given."""
    return tensor.device.type == "cpu"


def weighted_rows(rows: Tensor, factors: Tensor) -> Tensor:
    """Σ f_i row_i (D,) of rows (B, D). A row of factor 0 is left out whatever it holds: 0 × nan is nan.

    On a CPU the rare cases are looked for. Elsewhere they are computed for every batch, and the host never waits.

    Args:
        rows: (B, D).
        factors: (B,) float64. Where the rows' type has no normal number for one, its row is scaled with more digits.
    """
    left_out, smallest = factors == 0.0, torch.finfo(rows.dtype).tiny
    few = (factors < smallest) & ~left_out
    normal = torch.where(few, torch.zeros_like(factors), factors).to(rows.dtype)
    nothing = torch.zeros((), dtype=rows.dtype, device=rows.device)
    if not host_reads_free(rows):
        rows = torch.where(left_out[:, None], nothing, rows)
        small = torch.where(few, factors * _LIFT, torch.zeros_like(factors)).to(rows.dtype)
        both = torch.stack([normal, small]) @ rows
        return both[0] + both[1] / _LIFT
    if bool(left_out.any()):
        rows = torch.where(left_out[:, None], nothing, rows)
    total = normal @ rows
    if bool(few.any()):
        total = total + (factors[few] @ rows[few].to(torch.float64)).to(rows.dtype)
    return total
