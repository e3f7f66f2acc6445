"""Bounds what one record can contribute, and keeps the bound with the sum.

`BoundedSum` is the only thing that noise can be added to (see `noise`): a value and its sensitivity travel together, so
no caller can state a bound that the clip did not enforce.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.gradients.norms import host_reads_free, row_norms

ROUNDING_MARGIN = 1e-5
"""Share of the clip norm kept free for rounding: norms by `row_norms`, factors and products are off by up to 1e-6 together."""

SMALLEST_CLIP_NORM = 1e-12
LARGEST_CLIP_NORM = 1e12
"""Beyond these the squares in a float32 norm underflow or overflow before the clip could act."""


_LIFT = 2.0**64
"""Brings such a factor into the normal numbers, exactly."""
SMALLEST_FACTOR = torch.finfo(torch.float32).tiny
"""Below it a float32 factor has few digits: a row of the single number 1.4e38 came out with a norm of 1.98 C at C = 1e-7."""


Count = Tensor | int
"""A number, or one that lies on the device until somebody asks for it: a step makes the host wait for nothing."""


@dataclass(frozen=True, kw_only=True)
class BoundedSum:
    """A sum over records in which each record takes part with an L2 norm of at most `l2_bound`.

    Guarantees: adding or removing one record moves `value` by at most `l2_bound`.
    The counts are functions of private rows: *sealed* for protected data (no log, no metric, no file).

    Args:
        value: (D,) float64, in the space in which the clip acted (D = P, or R under a projection).
        l2_bound: The clip norm that was enforced.
        rows: How many rows went in. Sealed.
        clipped: How many of them were scaled down. Sealed.
        nonfinite: How many were dropped because they held inf, nan or a norm beyond float32. Sealed.
    """

    value: Tensor
    l2_bound: float
    rows: int = field(default=0, repr=False)
    clipped: Count = field(default=0, repr=False)
    nonfinite: Count = field(default=0, repr=False)

    @classmethod
    def empty(cls, size: int, l2_bound: float, *, device: torch.device | None = None) -> Self:
        """The sum over no record: zeros."""
        return cls(value=torch.zeros(size, dtype=torch.float64, device=device), l2_bound=_checked(l2_bound))

    def plus(self, other: BoundedSum) -> BoundedSum:
        """The sum over both sets of records; this is how physical batches make one logical batch.

        Assumes: no record has a row in both.

        Raises:
            BadInput: the bounds or the sizes differ, so that the union has no common bound.
        """
        if self.l2_bound != other.l2_bound or self.value.shape != other.value.shape:
            raise BadInput(
                f"cannot add sums with bounds {self.l2_bound} and {other.l2_bound} and shapes {tuple(self.value.shape)} and"
                f" {tuple(other.value.shape)}: clip both alike in one space"
            )
        return BoundedSum(
            value=self.value + other.value,
            l2_bound=self.l2_bound,
            rows=self.rows + other.rows,
            clipped=self.clipped + other.clipped,
            nonfinite=self.nonfinite + other.nonfinite,
        )


@dataclass(frozen=True, kw_only=True)
class ClippedRows:
    """Rows (B, D) float32 whose L2 norms are all at most `l2_bound`; `clipped` and `nonfinite` (B,) bool are sealed."""

    rows: Tensor
    l2_bound: float
    clipped: Tensor = field(repr=False)
    nonfinite: Tensor = field(repr=False)

    def sum(self) -> BoundedSum:
        """The bounded sum. One row a record: the caller has merged all rows of a record before the clip."""
        return BoundedSum(
            value=self.rows.sum(dim=0).to(torch.float64),
            l2_bound=self.l2_bound,
            rows=len(self.rows),
            clipped=self.clipped.sum(),
            nonfinite=self.nonfinite.sum(),
        )


def clip_rows(rows: Tensor, clip_norm: float) -> ClippedRows:
    """Scales each row down to an L2 norm of at most `clip_norm`.

    Guarantees: ‖clip(g)‖ <= clip_norm in exact arithmetic on the float32 result, for every input below.

    | row | result |
    |---|---|
    | zero | zero |
    | norm <= clip_norm | unchanged but for the rounding margin at the edge |
    | norm > clip_norm | scaled to clip_norm (1 - ROUNDING_MARGIN) |
    | any inf or nan, or a norm beyond float32 | zero, counted |
    | no rows (0, D) | no rows |

    Args:
        rows: (B, D) per-record gradients.
        clip_norm: C, finite and positive.

    Raises:
        BadInput: rows are not (B, D), or clip_norm is not between 1e-12 and 1e12.
    """
    if rows.dim() != 2:
        raise BadInput(f"clip_rows takes (B, D) rows, given shape {tuple(rows.shape)}")
    rows = rows.to(torch.float32)
    norms = row_norms(rows)
    clip = clip_factors(norms, clip_norm)
    # `where` on the rows: a factor of 0 would keep nan, since 0 × nan is nan.
    kept = torch.where(~clip.nonfinite[:, None], rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
    few = clip.clipped & (clip.factors < SMALLEST_FACTOR)
    factors = torch.where(few | clip.nonfinite, torch.ones_like(clip.factors), clip.factors)
    # in place: `kept` is a fresh copy, and a third one of 64 × 275,000 numbers costs 80 ms.
    clipped = kept.mul_(factors.to(torch.float32)[:, None])
    _scale_in_float64(clipped, clip.factors, few)
    return ClippedRows(rows=clipped, l2_bound=clip_norm, clipped=clip.clipped, nonfinite=clip.nonfinite)


@dataclass(frozen=True, kw_only=True)
class ClipFactors:
    """What each record's row is multiplied by: `factors` (B,) float64; `clipped` and `nonfinite` (B,) bool are sealed."""

    factors: Tensor
    clipped: Tensor = field(repr=False)
    nonfinite: Tensor = field(repr=False)


def clip_factors(norms: Tensor, clip_norm: float) -> ClipFactors:
    """The factor of each row by its norm alone: 1 up to the clip norm, beyond it what scales the row to it, 0 where it is not finite.

    Guarantees: factor × norm <= clip_norm (1 - ROUNDING_MARGIN), also for norms that are off by the margin. A norm may be an upper bound.

    Args:
        norms: (B,) float64.
        clip_norm: C, finite and positive.

    Raises:
        BadInput: clip_norm is not between 1e-12 and 1e12.
    """
    limit = _checked(clip_norm) * (1.0 - ROUNDING_MARGIN)
    finite = norms <= torch.finfo(torch.float32).max  # false for nan
    over = finite & (norms > limit)
    factors = torch.where(over, limit / norms, finite.to(torch.float64))
    return ClipFactors(factors=factors, clipped=over, nonfinite=~finite)


def clipped_sum(summed: Callable[[Callable[[Tensor], Tensor]], Tensor], clip_norm: float) -> BoundedSum:
    """The bounded sum of rows that need not exist: Σ f_i row_i with the clip's factors.

    Args:
        summed: given a function from norms (some,) to factors (some,), gives Σ f_i row_i (D,) over all records. It asks for the
            factors of each record once.
        clip_norm: C.

    Raises:
        BadInput: clip_norm is not between 1e-12 and 1e12.
    """
    asked: list[ClipFactors] = []

    def factors_of(norms: Tensor) -> Tensor:
        asked.append(clip_factors(norms, clip_norm))
        return asked[-1].factors

    value = summed(factors_of)
    return BoundedSum(
        value=value.to(torch.float64),
        l2_bound=clip_norm,
        rows=sum(len(one.factors) for one in asked),
        clipped=sum(one.clipped.sum() for one in asked),
        nonfinite=sum(one.nonfinite.sum() for one in asked),
    )


def _scale_in_float64(rows: Tensor, factors: Tensor, chosen: Tensor) -> None:
    """Scales the chosen rows, in place, where float32 has no normal number for the factor. Elsewhere than on a CPU in two steps over all
    rows, each with a normal number: the host need not know whether there is one."""
    if not host_reads_free(rows):
        ones = torch.ones_like(factors)
        rows.mul_(torch.where(chosen, factors * _LIFT, ones).to(torch.float32)[:, None])
        rows.mul_(torch.where(chosen, ones / _LIFT, ones).to(torch.float32)[:, None])
    elif bool(chosen.any()):
        rows[chosen] = (rows[chosen].to(torch.float64) * factors[chosen, None]).to(torch.float32)


def _checked(clip_norm: float) -> float:
    if not (math.isfinite(clip_norm) and SMALLEST_CLIP_NORM <= clip_norm <= LARGEST_CLIP_NORM):
        raise BadInput(f"clip_norm must lie between {SMALLEST_CLIP_NORM} and {LARGEST_CLIP_NORM}, given {clip_norm}")
    return clip_norm
