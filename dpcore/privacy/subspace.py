"""The public gradient subspace V of the projected methods (Zhou, Wu, Banerjee, ICLR 2021, arXiv:2007.03813).

V is fitted to per-example gradients of PUBLIC data (or public views), never of private data: the mechanism hands this file
public rows only. Shapes: m public examples, P parameters, R rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.privacy.leading import direction_count, gram_of, write_leading

ORTHONORMALITY_TOLERANCE = 1e-5
BASIS_VERSION = 2
"""Increased when the same gradients would give other directions, or the same ones turned: under one noise that is another release."""
_ROUNDING_OF_A_GRAM = 1e-12
_COLUMNS_AT_ONCE = 32_768


@dataclass(frozen=True, kw_only=True)
class SubspaceBasis:
    """V as its orthonormal directions, or the full space, on which projecting and lifting are the identity.

    Guarantees: ‖VᵀV − I‖ <= 1e-5 (Frobenius norm, measured in float64 on the stored float32 numbers), so projecting raises
    no norm by more than that.

    Args:
        directions: Vᵀ (R, P) float32, so that the leading k of them lie together, in memory and in a file; None for the full
            space.
        parameter_count: P.

    Raises:
        BadInput: the directions are not orthonormal.
    """

    directions: Tensor | None
    parameter_count: int
    _measured: tuple[Tensor | None, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_measured", (None, 0.0))
        if self.directions is None:
            return
        if self.directions.dim() != 2 or self.directions.shape[1] != self.parameter_count:
            raise BadInput(f"the directions of a basis are (R, {self.parameter_count}), given {tuple(self.directions.shape)}")
        error = self._orthonormality_error()
        if not error <= ORTHONORMALITY_TOLERANCE:
            raise BadInput(
                f"basis of rank {len(self.directions)}: ‖VᵀV − I‖ is {error:.2e}, at most {ORTHONORMALITY_TOLERANCE:.0e} is"
                " needed; make it with fit_basis"
            )

    @classmethod
    def full(cls, parameter_count: int) -> SubspaceBasis:
        """The whole space: `subspace.rank: full`."""
        return cls(directions=None, parameter_count=parameter_count)

    @property
    def rank(self) -> int:
        """R, the dimension of the space in which the noise is drawn."""
        return self.parameter_count if self.directions is None else len(self.directions)

    def leading(self, rank: int, *, device: torch.device) -> Self:
        """The first `rank` directions, on `device`: what `fit_basis` gives for that rank, bit for bit.

        Raises:
            BadInput: it has fewer, or is the full space.
        """
        if self.directions is None or not 1 <= rank <= len(self.directions):
            raise BadInput(f"{rank} directions asked of a basis of rank {self.rank}: fit a larger one")
        part, error = copy.copy(self), self._orthonormality_error()
        object.__setattr__(part, "directions", self.directions[:rank].to(device))
        object.__setattr__(part, "_measured", (part.directions, error))  # its VᵀV − I is a block of this one's
        return part

    @property
    def norm_bound(self) -> float:
        """ν >= ‖V‖, from ‖V‖² = ‖VᵀV‖ <= 1 + ‖VᵀV − I‖: √(1 + 1e-5) for every basis that was admitted, so that one that is fitted again,
        cut or read from a checkpoint clips alike, bit for bit. 1 for the full space."""
        if self.directions is None:
            return 1.0
        return math.sqrt(1.0 + max(self._orthonormality_error(), ORTHONORMALITY_TOLERANCE) + _ROUNDING_OF_A_GRAM)

    def _orthonormality_error(self) -> float:
        """Measured once for a tensor of directions."""
        of, error = self._measured
        if self.directions is not None and of is not self.directions:
            error = orthonormality_error(self.directions)
            object.__setattr__(self, "_measured", (self.directions, error))
        return error

    def project_sum(self, total: Tensor) -> Tensor:
        """Vᵀ total (R,) float64 of a sum (P,): products in float32, a block of columns at a time, added up in float64."""
        if self.directions is None:
            return total
        found = torch.zeros(self.rank, dtype=torch.float64, device=total.device)
        parts = zip(torch.split(self.directions, _COLUMNS_AT_ONCE, dim=1), torch.split(total, _COLUMNS_AT_ONCE), strict=True)
        for block, part in parts:
            found += (block @ part.to(block.dtype)).to(torch.float64)
        return found

    def project(self, rows: Tensor) -> Tensor:
        """Coordinates (B, R) float32 of rows (B, P)."""
        return rows if self.directions is None else rows.to(torch.float32) @ self.directions.T

    def lift(self, coordinates: Tensor) -> Tensor:
        """The vector (P,) with the given coordinates (R,)."""
        return coordinates if self.directions is None else self.directions.T @ coordinates.to(self.directions.dtype)

    def diagonal(self) -> Tensor:
        """diag(VVᵀ) (P,): the share of the noise variance that each parameter receives."""
        return torch.ones(self.parameter_count) if self.directions is None else self.directions.square().sum(dim=0)


def fit_basis(public_rows: Tensor, rank: int) -> SubspaceBasis:
    """`fit_basis_in_place` of rows (m, P) that are left as they are; the basis has memory of its own."""
    into = torch.empty(0, dtype=torch.float32, device=public_rows.device)
    return _fitted([public_rows], rank, into=into)


def fit_basis_in_place(public_rows: Sequence[Tensor], rank: int) -> SubspaceBasis:
    """The leading `rank` directions of m public per-example gradients, written over the first of them.

    The m × m Gram matrix in float64 gives them at the cost of m²P; they are then made orthonormal in float64, because the Gram
    trick alone loses it on a decaying spectrum (‖V‖ = 2.4 in float32, where 1 is right). See `leading`. The first k of a larger
    basis are, bit for bit, the basis of rank k.

    | rows | result |
    |---|---|
    | numerical rank below `rank` | the missing directions are some orthonormal completion |
    | rank > m | BadInput, names both |
    | inf or nan, or all zero | BadInput |

    Args:
        public_rows: tensors (mᵢ, P) of gradients of public examples, one below the other, from `room_for_rows`. Beside them
            the fit takes about 100 MB. The first becomes the basis; the others can be freed.
        rank: R, from 1 to min(m, P).

    Raises:
        BadInput: see the table.
    """
    return _fitted(public_rows, rank, into=None)


def room_for_rows(count: int, size: int, rank: int, *, device: torch.device) -> list[Tensor]:
    """Memory for m = `count` rows of `size` numbers, float32, as `fit_basis_in_place` reads them: a part for the basis, and the rest.

    Raises:
        BadInput: `rank` is not from 1 to min(m, P).
    """
    _check_rank(rank, count=count, size=size)
    kept = direction_count(rank, rows=count, size=size)
    return [torch.empty(part, size, dtype=torch.float32, device=device) for part in (kept, count - kept) if part]


def _fitted(rows: Sequence[Tensor], rank: int, *, into: Tensor | None) -> SubspaceBasis:
    """`into`: empty memory, to be made as large as needed; None writes over the first rows."""
    count, size = sum(len(block) for block in rows), rows[0].shape[1]
    _check_rank(rank, count=count, size=size)
    gram = gram_of(rows)
    if not bool(torch.isfinite(gram).all()):
        raise BadInput("a public gradient is not finite: lower the learning rate of the public stages or check the data")
    if float(gram.diagonal().max()) == 0.0:
        raise BadInput("all public gradients are zero, so they span no subspace: check the public data and its labels")
    made = direction_count(rank, rows=count, size=size)
    directions = rows[0][:made] if into is None else into.resize_(made, size)
    write_leading(rows, gram, directions)
    return SubspaceBasis(directions=directions[:rank], parameter_count=size)


def _check_rank(rank: int, *, count: int, size: int) -> None:
    if not 1 <= rank <= min(count, size):
        raise BadInput(
            f"subspace.rank {rank} needs at least as many public gradients and parameters: there are {count} gradients of"
            f" {size} parameters; lower the rank or raise subspace.examples"
        )


def orthonormality_error(directions: Tensor) -> float:
    """‖VᵀV − I‖ (Frobenius) of Vᵀ (R, P), in float64, block by block so that no second copy of V is held."""
    gram = gram_of(directions)
    gram.diagonal().sub_(1.0)
    return float(torch.linalg.matrix_norm(gram))
