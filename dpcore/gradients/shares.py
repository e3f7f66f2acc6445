"""A layer's share of the clipped sum: how it tells its part of the norms, and what it holds until the factors are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from dpcore.gradients.buffers import Buffers
from dpcore.gradients.layer_rules import Call, RowsByName
from dpcore.gradients.norms import row_norms, weighted_rows
from dpcore.gradients.tape import TrainedLayer

BYTES_AT_ONCE = 4 * 2**20
"""Of rows that are computed together: they are read again while they are still in the cache."""


SumPart = tuple[int, Tensor]
"""A parameter's first column, and its share of the sum in its own shape."""


class Share(Protocol):
    """Norms and sum over some parameters."""

    @property
    def squares(self) -> Tensor:
        """(B,) float64."""
        ...

    def weighted(self, factors: Tensor) -> Iterator[SumPart]:
        """Σ f_i row_i by parameter, for factors (B,) float64; 0 leaves a record out."""
        ...


@dataclass(frozen=True)
class Order:
    """In which order the numbers of rows (c, *shape) lie in memory: norms and sums read them in that order.

    Args:
        dims: the dimensions of a row, outermost in memory first.
    """

    dims: tuple[int, ...]

    @classmethod
    def of(cls, part: Tensor) -> Self:
        """Of rows as a rule gives them, which may be a permuted view."""
        strides = part.stride()
        return cls(tuple(sorted(range(1, part.dim()), key=lambda dim: -strides[dim])))

    def flat(self, part: Tensor) -> Tensor:
        """(c, *shape) as (c, D), without a copy where the rows are dense."""
        return part.permute(0, *self.dims).flatten(1)

    def whole(self, flat: Tensor, shape: torch.Size) -> Tensor:
        """(D,) in memory order as numbers (*shape,)."""
        laid = flat.view([shape[dim - 1] for dim in self.dims])
        return laid.permute([self.dims.index(dim) for dim in range(1, len(shape) + 1)])


def chunks(count: int, size: int) -> Iterator[slice]:
    """Of `count` records, so many that their rows of `size` numbers are `BYTES_AT_ONCE`."""
    at_once = max(1, BYTES_AT_ONCE // (4 * size))
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def _squares(rows: RowsByName) -> Tensor:
    """(c,) float64 squared norms over all parameters."""
    return torch.stack([row_norms(Order.of(part).flat(part)).square() for part in rows.values()]).sum(dim=0)


class SmallLayers:
    """Rows of all small layers side by side in one buffer: one norm and one sum for them, whose calls would cost more than their numbers.

    Args:
        layers: the small ones; those that take no part in a pass have rows of zeros.
        count: B.
        like: a trained parameter.
        buffers: where the rows lie.
    """

    def __init__(self, layers: Sequence[TrainedLayer], count: int, like: Tensor, buffers: Buffers) -> None:
        self._places: dict[tuple[TrainedLayer, str], slice] = {}
        self._orders: dict[tuple[TrainedLayer, str], Order] = {}
        width = 0
        for layer in layers:
            for name, (_, shape) in layer.columns.items():
                self._places[layer, name] = slice(width, width + shape.numel())
                width += shape.numel()
        self._rows = buffers.take("together", (count, width), like)

    def __contains__(self, layer: TrainedLayer) -> bool:
        return all((layer, name) in self._places for name in layer.columns)

    def add(self, layer: TrainedLayer, calls: list[Call]) -> None:
        """Writes the rows of a layer."""
        for some in chunks(len(self._rows), layer.size):
            for name, part in layer.rows(calls, some).items():
                order = self._orders[layer, name] = Order.of(part)
                self._rows[some, self._places[layer, name]] = order.flat(part)

    @property
    def squares(self) -> Tensor:
        """(B,) float64, once every layer has come that will."""
        for absent in self._places.keys() - self._orders.keys():
            self._rows[:, self._places[absent]] = 0.0
        return row_norms(self._rows).square()

    def weighted(self, factors: Tensor) -> Iterator[SumPart]:
        total = weighted_rows(self._rows, factors)
        for (layer, name), order in self._orders.items():
            start, shape = layer.columns[name]
            yield start, order.whole(total[self._places[layer, name]], shape)


class Kept:
    """Rows in a buffer, whose very numbers were measured."""

    def __init__(self, layer: TrainedLayer, calls: list[Call], count: int, buffers: Buffers) -> None:
        self._layer = layer
        self._rows: RowsByName = {}
        self._orders: dict[str, Order] = {}
        squares = []
        for some in chunks(count, layer.size):
            found = layer.rows(calls, some)
            squares.append(_squares(found))
            for name, part in found.items():
                order = self._orders[name] = Order.of(part)
                if name not in self._rows:
                    self._rows[name] = buffers.take((layer, name), (count, part[0].numel()), part)
                self._rows[name][some] = order.flat(part)
        self.squares = torch.cat(squares)

    def weighted(self, factors: Tensor) -> Iterator[SumPart]:
        for name, rows in self._rows.items():
            start, shape = self._layer.columns[name]
            yield start, self._orders[name].whole(weighted_rows(rows, factors), shape)


class Again:
    """Rows computed twice. Where the second time gives a longer row than was measured, it is scaled down to that."""

    def __init__(self, layer: TrainedLayer, calls: list[Call], count: int) -> None:
        self._layer, self._calls, self._count = layer, calls, count
        self.squares = torch.cat([_squares(layer.rows(calls, some)) for some in chunks(count, layer.size)])

    def weighted(self, factors: Tensor) -> Iterator[SumPart]:
        total: RowsByName = {}
        for some in chunks(self._count, self._layer.size):
            rows = self._layer.rows(self._calls, some)
            shrink = (self.squares[some] / _squares(rows)).sqrt().nan_to_num(1.0).clamp(max=1.0)
            for name, part in rows.items():
                order = Order.of(part)
                more = order.whole(weighted_rows(order.flat(part), factors[some] * shrink), part.shape[1:])
                total[name] = total[name].add_(more) if name in total else more
        yield from ((self._layer.columns[name][0], part) for name, part in total.items())


class Products:
    """A linear map by inner products of positions: ‖Σ_t b_t ⊗ a_t‖² = Σ_st ⟨a_s, a_t⟩⟨b_s, b_t⟩, in float64, times the squared scale.

    Guarantees: `squares` is an upper bound. The sum cancels where positions are antipodal or inputs have a large mean; its rounding error
    is at most γ·(Σ_t ‖a_t‖‖b_t‖)² with γ the number of additions times 1.2e-16, and that is added to it. In float32 it would be wrong by
    1e-3 for inputs of mean 1000. The weighted sum is in float64 too.
    """

    def __init__(self, layer: TrainedLayer, calls: list[Call]) -> None:
        everything = slice(0, calls[0].records)
        self._columns, self._scales = layer.columns, layer.scales
        self._inputs = _positions([call.input_of(everything) for call in calls])
        self._back = _positions([call.backprop_of(everything) for call in calls])
        inner, outer = self._inputs @ self._inputs.transpose(1, 2), self._back @ self._back.transpose(1, 2)
        inner = inner * layer.scales["weight"] ** 2
        if "bias" in self._columns:
            inner = inner + layer.scales["bias"] ** 2  # a bias is the weight of an input that is always 1
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

    def weighted(self, factors: Tensor) -> Iterator[SumPart]:
        left_out, nothing = (factors == 0.0)[:, None, None], torch.zeros((), dtype=torch.float64, device=factors.device)
        back = torch.where(left_out, nothing, self._back * factors[:, None, None])
        inputs = torch.where(left_out, nothing, self._inputs)
        yield self._columns["weight"][0], self._scales["weight"] * (back.flatten(0, 1).T @ inputs.flatten(0, 1))
        if "bias" in self._columns:
            yield self._columns["bias"][0], self._scales["bias"] * back.sum(dim=(0, 1))


def _positions(parts: list[Tensor]) -> Tensor:
    """(h, B, ..., d) of several calls as (B, T, d) float64."""
    return torch.cat([part.to(torch.float64).transpose(0, 1).flatten(1, -2) for part in parts], dim=1)


def _diagonal(products: Tensor) -> Tensor:
    return products.diagonal(dim1=1, dim2=2)
