"""Book-keeping: rows and clipped sums from what each layer took and what came back to it.

The sum Σ f_i row_i with factors that depend on the rows' norms needs every norm first. Each layer says its share of the norms as the
backward pass reaches it, and gives its share of the sum when the factors are known:

| way of a layer | when | holds until the factors are known |
|---|---|---|
| kept | rows take no more memory than inputs and backprops | rows, in a buffer that is used again |
| again | otherwise | inputs and backprops; the rows are computed twice, some records at a time |
| products | few positions, large weight | inputs and backprops; no rows at all |

Source: book-keeping (Bu et al., ICML 2023, arXiv:2210.00038).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from dpcore.gradients.batch import Batch, RowsAndLosses
from dpcore.gradients.buffers import Buffers
from dpcore.gradients.layer_rules import Call, RowsByName
from dpcore.gradients.norms import row_norms, weighted_rows
from dpcore.gradients.tape import Tape, TrainedLayer
from dpcore.gradients.way import FactorsOf, SumAndLosses, TrainedModule

BYTES_AT_ONCE = 4 * 2**20
"""Of rows that are computed together: they are read again while they are still in the cache."""
KEPT_SHARE = 1.5
"""Rows are kept up to so many times the bytes of inputs and backprops, which are freed instead."""


class Share(Protocol):
    """A layer's share of norms and sum. `squares`: (B,) float64."""

    squares: Tensor

    def weighted(self, factors: Tensor) -> RowsByName:
        """Σ f_i row_i by parameter, for factors (B,) float64; 0 leaves a record out."""
        ...


class BookKeptRows:
    """The fastest way; see the module.

    Args:
        trained: the network.
        copies: gives bare parameters of shape (1, ...) to each example as copies, instead of running their module again.
    """

    def __init__(self, trained: TrainedModule, *, copies: bool = True) -> None:
        self._trained = trained
        self._tape = Tape(trained, copies=copies)
        self._buffers = Buffers()

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        count = len(batch) // len(entry_weights)
        like = self._trained.named[0][1]
        rows = torch.zeros(count, self._trained.parameter_count, dtype=like.dtype, device=like.device)

        def write(layer: TrainedLayer, calls: list[Call]) -> None:
            for some in _chunks(count, layer.size):
                for name, part in layer.rows(calls, some).items():
                    start, shape = layer.columns[name]
                    rows[some, start : start + shape.numel()] = part.flatten(1)

        losses = self._tape.run(batch, entry_weights, write)
        return RowsAndLosses(rows, losses)

    def summed(self, batch: Batch, entry_weights: tuple[float, ...], factors_of: FactorsOf) -> SumAndLosses:
        count, device = len(batch) // len(entry_weights), self._trained.device
        shares: list[tuple[TrainedLayer, Share]] = []

        def book(layer: TrainedLayer, calls: list[Call]) -> None:
            shares.append((layer, self._share(layer, calls, count)))

        losses = self._tape.run(batch, entry_weights, book)
        with torch.no_grad():
            total = self._total(shares, factors_of(_norms(shares, count, device)))
        return SumAndLosses(total, losses)

    def close(self) -> None:
        self._tape.close()

    def _total(self, shares: list[tuple[TrainedLayer, Share]], factors: Tensor) -> Tensor:
        """(P,) float64; each layer's memory is let go as soon as its share is known."""
        total = torch.zeros(self._trained.parameter_count, dtype=torch.float64, device=factors.device)
        while shares:
            layer, share = shares.pop()
            for name, part in share.weighted(factors).items():
                start, shape = layer.columns[name]
                total[start : start + shape.numel()] = part.flatten()
        return total

    def _share(self, layer: TrainedLayer, calls: list[Call], count: int) -> Share:
        held = sum(call.inputs.numel() + (0 if call.backprop is None else call.backprop.numel()) for call in calls)
        if Products.suit(layer, calls):
            return Products(layer, calls)
        if count * layer.size <= KEPT_SHARE * held:
            return Kept(layer, calls, count, self._buffers)
        return Again(layer, calls, count)


def _norms(shares: list[tuple[TrainedLayer, Share]], count: int, device: torch.device) -> Tensor:
    squares = torch.zeros(count, dtype=torch.float64, device=device)
    for _, share in shares:
        squares += share.squares
    return squares.sqrt()


def _chunks(count: int, size: int) -> Iterator[slice]:
    at_once = max(1, BYTES_AT_ONCE // (4 * size))
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def _squares(rows: RowsByName) -> Tensor:
    """(c,) float64 squared norms over all parameters."""
    return torch.stack([row_norms(part.flatten(1)).square() for part in rows.values()]).sum(dim=0)


class Kept:
    """Rows in a buffer, whose very numbers were measured."""

    def __init__(self, layer: TrainedLayer, calls: list[Call], count: int, buffers: Buffers) -> None:
        self._rows: RowsByName = {}
        squares = []
        for some in _chunks(count, layer.size):
            found = layer.rows(calls, some)
            squares.append(_squares(found))
            for name, part in found.items():
                if name not in self._rows:
                    self._rows[name] = buffers.take((layer, name), (count, part[0].numel()), part)
                self._rows[name][some] = part.flatten(1)
        self.squares = torch.cat(squares)

    def weighted(self, factors: Tensor) -> RowsByName:
        return {name: weighted_rows(rows, factors) for name, rows in self._rows.items()}


class Again:
    """Rows computed twice. Where the second time gives a longer row than was measured, it is scaled down to that."""

    def __init__(self, layer: TrainedLayer, calls: list[Call], count: int) -> None:
        self._layer, self._calls, self._count = layer, calls, count
        self.squares = torch.cat([_squares(layer.rows(calls, some)) for some in _chunks(count, layer.size)])

    def weighted(self, factors: Tensor) -> RowsByName:
        total: RowsByName = {}
        for some in _chunks(self._count, self._layer.size):
            rows = self._layer.rows(self._calls, some)
            shrink = (self.squares[some] / _squares(rows)).sqrt().nan_to_num(1.0).clamp(max=1.0)
            for name, part in rows.items():
                more = weighted_rows(part.flatten(1), factors[some] * shrink)
                total[name] = total[name].add_(more) if name in total else more
        return total


class Products:
    """A linear map by inner products of positions: ‖Σ_t b_t ⊗ a_t‖² = Σ_st ⟨a_s, a_t⟩⟨b_s, b_t⟩, in float64.

    Guarantees: `squares` is an upper bound. The sum cancels where positions are antipodal or inputs have a large mean; its rounding error
    is at most γ·(Σ_t ‖a_t‖‖b_t‖)² with γ the number of additions times 1.2e-16, and that is added to it. In float32 it would be wrong by
    1e-3 for inputs of mean 1000. The weighted sum is in float64 too.
    """

    def __init__(self, layer: TrainedLayer, calls: list[Call]) -> None:
        everything = slice(0, calls[0].records)
        self._names = layer.names
        self._inputs = _positions([call.input_of(everything) for call in calls])
        self._back = _positions([call.backprop_of(everything) for call in calls])
        inner, outer = self._inputs @ self._inputs.transpose(1, 2), self._back @ self._back.transpose(1, 2)
        if "bias" in self._names:
            inner = inner + 1.0  # a bias is the weight of an input that is always 1
        lengths = (_diagonal(inner) * _diagonal(outer)).sqrt().sum(dim=1)
        additions = self._inputs.shape[2] + self._back.shape[2] + inner.shape[1] ** 2 + 4
        rounding = 1.2e-16 * additions * lengths.square()
        self.squares = (inner * outer).sum(dim=(1, 2)).clamp(min=0.0) + rounding

    @staticmethod
    def suit(layer: TrainedLayer, calls: list[Call]) -> bool:
        """Whether the layer is a linear map, and inner products are at most half the work of rows."""
        linear = layer.module
        if type(linear) is not nn.Linear or "weight" not in layer.names:
            return False
        positions = sum(call.inputs.numel() // (call.records * linear.in_features) for call in calls)
        return 4 * positions * (linear.in_features + linear.out_features) <= linear.in_features * linear.out_features

    def weighted(self, factors: Tensor) -> RowsByName:
        left_out, nothing = (factors == 0.0)[:, None, None], torch.zeros((), dtype=torch.float64, device=factors.device)
        back = torch.where(left_out, nothing, self._back * factors[:, None, None])
        inputs = torch.where(left_out, nothing, self._inputs)
        rows = {"weight": back.flatten(0, 1).T @ inputs.flatten(0, 1)}
        return rows | ({"bias": back.sum(dim=(0, 1))} if "bias" in self._names else {})


def _positions(parts: list[Tensor]) -> Tensor:
    """(h, B, ..., d) of several calls as (B, T, d) float64."""
    return torch.cat([part.to(torch.float64).transpose(0, 1).flatten(1, -2) for part in parts], dim=1)


def _diagonal(products: Tensor) -> Tensor:
    return products.diagonal(dim1=1, dim2=2)


def without_copies(trained: TrainedModule) -> BookKeptRows:
    """Book-keeping where a copy of a bare parameter for each example would be wrong."""
    return BookKeptRows(trained, copies=False)
