"""The public gradient subspace V of the projected methods (Zhou, Wu, Banerjee, ICLR 2021, arXiv:2007.03813).

V is fitted to per-example gradients of PUBLIC data (or public views), never of private data: the mechanism hands this file
public rows only. Shapes: m public examples, P parameters, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpcore.errors import BadInput

ORTHONORMALITY_TOLERANCE = 1e-5
_COLUMNS_AT_ONCE = 32_768


@dataclass(frozen=True, kw_only=True)
class SubspaceBasis:
    """Orthonormal columns (P, R) float32, or the full space, on which projecting and lifting are the identity.

    Guarantees: ‖VᵀV − I‖ <= 1e-5 (Frobenius norm, measured in float64 on the stored float32 numbers), so projecting raises
    no norm by more than that.

    Args:
        matrix: (P, R), or None for the full space.
        parameter_count: P.

    Raises:
        BadInput: the columns are not orthonormal.
    """

    matrix: Tensor | None
    parameter_count: int

    def __post_init__(self) -> None:
        if self.matrix is None:
            return
        if self.matrix.dim() != 2 or len(self.matrix) != self.parameter_count:
            raise BadInput(f"a basis is ({self.parameter_count}, R), given {tuple(self.matrix.shape)}")
        error = orthonormality_error(self.matrix)
        if not error <= ORTHONORMALITY_TOLERANCE:
            raise BadInput(
                f"basis of rank {self.matrix.shape[1]}: ‖VᵀV − I‖ is {error:.2e}, at most {ORTHONORMALITY_TOLERANCE:.0e} is"
                " needed; make it with fit_basis"
            )

    @classmethod
    def full(cls, parameter_count: int) -> SubspaceBasis:
        """The whole space: `subspace.rank: full`."""
        return cls(matrix=None, parameter_count=parameter_count)

    @property
    def rank(self) -> int:
        """R, the dimension of the space in which the noise is drawn."""
        return self.parameter_count if self.matrix is None else self.matrix.shape[1]

    def project(self, rows: Tensor) -> Tensor:
        """Coordinates (B, R) float32 of rows (B, P)."""
        return rows if self.matrix is None else rows.to(torch.float32) @ self.matrix

    def lift(self, coordinates: Tensor) -> Tensor:
        """The vector (P,) with the given coordinates (R,)."""
        return coordinates if self.matrix is None else self.matrix @ coordinates.to(self.matrix.dtype)

    def diagonal(self) -> Tensor:
        """diag(VVᵀ) (P,): the share of the noise variance that each parameter receives."""
        return torch.ones(self.parameter_count) if self.matrix is None else self.matrix.square().sum(dim=1)


def fit_basis(public_rows: Tensor, rank: int) -> SubspaceBasis:
    """The leading `rank` directions of m public per-example gradients.

    The m × m Gram matrix in float64 gives them at the cost of m²P; QR in float64 makes them orthonormal, because the Gram
    trick alone loses it on a decaying spectrum (‖V‖ = 2.4 in float32, where 1 is right).

    | rows | result |
    |---|---|
    | numerical rank below `rank` | the missing directions are some orthonormal completion |
    | rank > m | BadInput, names both |
    | inf or nan, or all zero | BadInput |

    Args:
        public_rows: (m, P) gradients of public examples.
        rank: R, from 1 to min(m, P).

    Raises:
        BadInput: see the table.
    """
    count, size = public_rows.shape
    if not 1 <= rank <= min(count, size):
        raise BadInput(
            f"subspace.rank {rank} needs at least as many public gradients and parameters: there are {count} gradients of"
            f" {size} parameters; lower the rank or raise subspace.examples"
        )
    gram = _gram(public_rows)
    if not bool(torch.isfinite(gram).all()):
        raise BadInput("a public gradient is not finite: lower the learning rate of the public stages or check the data")
    if float(gram.diagonal().max()) == 0.0:
        raise BadInput("all public gradients are zero, so they span no subspace: check the public data and its labels")
    _, vectors = torch.linalg.eigh(gram)
    chosen = vectors[:, -rank:].flip(1)
    leading = torch.cat([block.to(torch.float64).T @ chosen for block in torch.split(public_rows, _COLUMNS_AT_ONCE, dim=1)])
    norms = torch.linalg.vector_norm(leading, dim=0)
    leading = leading / torch.where(norms > 0, norms, torch.ones_like(norms))
    orthonormal, _ = torch.linalg.qr(leading)
    return SubspaceBasis(matrix=orthonormal.to(torch.float32).contiguous(), parameter_count=size)


def orthonormality_error(matrix: Tensor) -> float:
    """‖VᵀV − I‖ (Frobenius), in float64, block by block so that no second copy of V is held."""
    gram = _gram(matrix.T)
    gram.diagonal().sub_(1.0)
    return float(torch.linalg.matrix_norm(gram))


def _gram(rows: Tensor) -> Tensor:
    """rows · rowsᵀ in float64. Blocks keep the float64 copy at 32,768 columns, not P."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for block in torch.split(rows, _COLUMNS_AT_ONCE, dim=1):
        wide = block.to(torch.float64)
        gram += wide @ wide.T
    return gram
