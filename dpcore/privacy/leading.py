"""The leading orthonormal directions of m long rows, from their m × m Gram matrix, in the memory of the rows themselves.

Everything reads the rows a block of columns at a time, in float64. The Gram matrix (half of it, m²P operations) gives each
direction as a combination of rows. Rounding hurts the weak directions of a decaying spectrum: so the directions are measured and
made orthonormal by Gram-Schmidt on *their* Gram matrix, until they are (Yamamoto et al. 2015, CholeskyQR2; Fukaya et al. 2020 repeat it).

Guarantees: the bits of a direction depend on the rows and its number alone, not on how many directions follow it. Directions are
made in tiles of 64, by products whose shapes depend only on the tile, and a tile changes only together with tiles before it.

Shapes: m rows, P parameters, K directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

TILE = 64
"""Directions a product. Tiles of 32 make a fit a fifth slower; larger ones multiply more of a symmetric matrix twice."""
_COLUMNS_AT_ONCE = 32_768
_GOOD_ENOUGH = 3e-6
"""Frobenius norm of VᵀV − I at which no further round is taken. A third of what a basis may have; one round leaves about 1e-8."""
_ROUNDS = 6
_DEPENDENT_FRAC = 1e-10
"""A direction of which less than this share of its squared norm is left beside the stronger ones is replaced by another."""


def direction_count(rank: int, *, rows: int, size: int) -> int:
    """How many directions are made for `rank` of them: whole tiles, as far as `rows` rows of `size` numbers have as many."""
    return min(-(-rank // TILE) * TILE, rows, size)


def gram_of(rows: Tensor | Sequence[Tensor]) -> Tensor:
    """rows · rowsᵀ (m, m) float64 of rows (m, P), or of several tensors (mᵢ, P) one below the other."""
    blocks = [rows] if isinstance(rows, Tensor) else rows
    count = sum(len(block) for block in blocks)
    gram = torch.zeros(count, count, dtype=torch.float64, device=blocks[0].device)
    for _, wide in _column_blocks(blocks):
        for tile, end in _tiles(count):
            gram[tile, :end] += wide[tile] @ wide[:end].T
    return gram.tril() + gram.tril(-1).T


def write_leading(rows: Sequence[Tensor], gram: Tensor, into: Tensor) -> None:
    """Writes the leading K orthonormal directions of `rows`, strongest first.

    Args:
        rows: tensors (mᵢ, P), one below the other.
        gram: their `gram_of`, finite.
        into: (K, P) float32, K from `direction_count`; it may be the first K rows of `rows[0]`, which are lost then.
    """
    values, vectors = torch.linalg.eigh(gram)
    scales = torch.where(values > 0, values, torch.inf).rsqrt()
    combinations = (vectors * scales).T.flip(0)
    _write_combinations(rows, combinations, into, first=0)
    _make_orthonormal(into)


def _make_orthonormal(directions: Tensor) -> None:
    """In place, in order. `SubspaceBasis` measures what it leaves, and refuses it where `_ROUNDS` rounds were not enough."""
    for round_number in range(_ROUNDS):
        gram = gram_of(directions).cpu()
        first = _first_to_change(gram)
        if first is None:
            return
        combinations, dependent = _gram_schmidt(gram)
        _write_combinations([directions], combinations.to(directions.device), directions, first=first, triangular=True)
        for row in dependent:
            if row >= first:
                directions[row] = _completion(row, round_number, directions.shape[1]).to(directions.device)


def _first_to_change(gram: Tensor) -> int | None:
    """The first direction of the first tile that, with all before it, is too far from orthonormal."""
    error = (gram - torch.eye(len(gram), dtype=gram.dtype)).square()
    for tile, end in _tiles(len(gram)):
        if not float(error[:end, :end].sum()) <= _GOOD_ENOUGH**2:
            return int(tile.start)
    return None


def _gram_schmidt(gram: Tensor) -> tuple[Tensor, list[int]]:
    """Lower triangular combinations (K, K) that make vectors of this Gram matrix orthonormal, and which vectors depend on those
    before them: their rows are zero."""
    combinations, dependent = torch.zeros_like(gram), []
    for row in range(len(gram)):
        before = combinations[:row, :row]
        shares = before @ gram[row, :row]
        left = float(gram[row, row] - shares @ shares)
        if not left > _DEPENDENT_FRAC * float(gram[row, row]):
            dependent.append(row)
            continue
        combinations[row, :row] = -(shares @ before) * left**-0.5
        combinations[row, row] = left**-0.5
    return combinations, dependent


def _completion(row: int, round_number: int, size: int) -> Tensor:
    """A vector (P,) float32 of norm near 1 in place of a direction that the rows do not have. It holds no data."""
    generator = torch.Generator().manual_seed(_ROUNDS * row + round_number)
    return torch.randn(size, generator=generator).div_(size**0.5)


def _write_combinations(rows: Sequence[Tensor], combinations: Tensor, into: Tensor, *, first: int, triangular: bool = False) -> None:
    """into[k] = Σᵢ combinations[k, i] · rows[i] for k >= `first`, in float64. A block of columns is copied before it is written.

    Of a triangular matrix a tile reads only its own columns: so its product knows nothing of later tiles.
    """
    parts = [
        (tile, combinations[tile, : end if triangular else None].contiguous()) for tile, end in _tiles(len(into)) if tile.start >= first
    ]
    for columns, wide in _column_blocks(rows):
        for tile, part in parts:
            into[tile, columns] = (part @ wide[: part.shape[1]]).to(into.dtype)


def _column_blocks(blocks: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """The rows of all `blocks`, a block of columns at a time: a float64 copy (m, c) in memory that is used again."""
    count, size = sum(len(block) for block in blocks), blocks[0].shape[1]
    room = torch.empty(count, min(size, _COLUMNS_AT_ONCE), dtype=torch.float64, device=blocks[0].device)
    parts = torch.split(room, [len(block) for block in blocks])
    for start in range(0, size, _COLUMNS_AT_ONCE):
        columns = slice(start, min(start + _COLUMNS_AT_ONCE, size))
        width = columns.stop - start
        for part, block in zip(parts, blocks, strict=True):
            part[:, :width].copy_(block[:, columns])
        yield columns, room[:, :width]


def _tiles(count: int) -> Iterator[tuple[slice, int]]:
    """Tiles of `count` directions, each with its end."""
    for start in range(0, count, TILE):
        end = min(start + TILE, count)
        yield slice(start, end), end
