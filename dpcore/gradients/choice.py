"""Chooses the way to a network's rows: by structure, then by a proof on the spot.

A fast way can be silently wrong: attention windows that lie in the batch dimension, a weight used outside its layer, a padding that
it does not know. So a way is taken only if its rows equal those of a loop of single examples, on random examples and at moved
weights. The proof reads no data: only shapes. So what it finds for a network holds for the same network again, in this process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch
from dpcore.gradients.book_keeping import BookKeptRows, of_exact_types, without_copies
from dpcore.gradients.functional import LoopedRows, VectorisedRows
from dpcore.gradients.norms import row_norms, weighted_rows
from dpcore.gradients.way import TrainedModule, Way

_Maker = Callable[[TrainedModule], Way]

WAYS: dict[str, _Maker] = {
    "book-keeping": BookKeptRows,
    "book-keeping of exact types": of_exact_types,
    "book-keeping without copies": without_copies,
    "vectorised": VectorisedRows,
    "looped": LoopedRows,
}
"""Fastest first. The last is the oracle of the others."""
_UNCOVERED = (BadInput, AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a way raises on a network that it was not made for; the network itself has run through the loop before."""
_RECORDS = 2
_TOLERANCE = {torch.float64: (1e-5, 1e-10), torch.float32: (1e-3, 1e-5)}
"""Of the largest number of a parameter's rows, and of all rows (a bias before a norm has none but rounding). A wrong rule is off by
a tenth or more."""


_proved: dict[tuple[object, ...], str] = {}
"""The way that was proved in this process, by the network's name and by shapes, types and device of its examples."""


def chosen_way(trained: TrainedModule, batch: Batch, *, name: str | None = None) -> tuple[str, Way]:
    """The first way whose rows are right, by name.

    Args:
        trained: what rows are taken of.
        batch: whose shapes, types and device the examples of the proof take. No number of it is read.
        name: of the network with its weights, loss, precision and scales. Of one name and one kind of examples the proof is made once;
            None: each time.

    Raises:
        Exception: what the module or the loss raises on a single example.
    """
    key = (name, *((one.shape[1:], one.dtype, one.device) for one in batch.tensors))
    way = _proved.get(key) if name is not None else None
    if way is None:
        way = _first_right_way(trained, batch)
    if name is not None:
        _proved[key] = way
    return way, WAYS[way](trained)


def _first_right_way(trained: TrainedModule, batch: Batch) -> str:
    proof = _Proof.of(trained, batch)
    return next(way for way, make in WAYS.items() if make is LoopedRows or proof.holds_for(make))


@dataclass(frozen=True, eq=False)
class _Proof:
    """A copy of the network at moved weights, random examples of two entries a record, and their rows by a loop."""

    moved: TrainedModule
    examples: Batch
    plain: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, trained: TrainedModule, batch: Batch) -> Self:
        """In float64, or in float32 where module or loss cannot. An error of the module itself comes from there."""
        try:
            return cls._in(torch.float64, trained, batch)
        except RuntimeError:
            return cls._in(torch.float32, trained, batch)

    @classmethod
    def _in(cls, dtype: torch.dtype, trained: TrainedModule, batch: Batch) -> Self:
        moved, examples = _at_moved_weights(trained, dtype), _random_examples(batch, 2 * _RECORDS, dtype)
        single = LoopedRows(moved).rows(examples, (1.0,)).rows
        return cls(moved, examples, single[:_RECORDS], single[:_RECORDS] - 0.5 * single[_RECORDS:])

    def holds_for(self, make: _Maker) -> bool:
        """Whether the rows of a way, of plain examples and of pairs, are those of the loop. A way that fails does not cover it."""
        try:
            way = make(self.moved)
            plain = way.rows(self.examples[:_RECORDS], (1.0,)).rows
            pairs = way.rows(self.examples, (1.0, -0.5)).rows
            total = way.summed([self.examples[:_RECORDS], self.examples[_RECORDS:]], (1.0, -0.5), _half_of_the_direction).total[None]
            way.close()
        except _UNCOVERED:
            return False
        expected = weighted_rows(self.pairs, _half_of_the_direction(row_norms(self.pairs)))[None]
        found = ((plain, self.plain), (pairs, self.pairs), (total, expected))
        return all(self._are_equal(one, other) for one, other in found)

    def _are_equal(self, rows: Tensor, expected: Tensor) -> bool:
        """Parameter by parameter: one with small gradients does not hide behind another."""
        if rows.shape != expected.shape:
            return False
        sizes = [p.numel() for _, p in self.moved.named]
        of_own, of_all = _TOLERANCE[expected.dtype]
        floor = of_all * float(expected.abs().max())
        parts = zip(torch.split(rows.to(expected.dtype), sizes, dim=1), torch.split(expected, sizes, dim=1), strict=True)
        return all(float((one - other).abs().max()) <= of_own * float(other.abs().max()) + floor for one, other in parts)


def _half_of_the_direction(norms: Tensor) -> Tensor:
    """Factors by which a wrong norm shows."""
    return 0.5 / norms.clamp(min=1e-30)


def _at_moved_weights(trained: TrainedModule, dtype: torch.dtype) -> TrainedModule:
    """A copy with every weight moved: a norm whose gain starts at zero would hide what lies before it."""
    module, generator = copy.deepcopy(trained.module).to(dtype), np.random.default_rng(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.from_numpy(generator.uniform(-0.1, 0.1, parameter.shape)).to(parameter)
            parameter.add_(noise * parameter.square().mean().sqrt().clamp(min=0.1))
    return TrainedModule(module, trained.loss, "fp32", trained.scales)


def _random_examples(batch: Batch, count: int, dtype: torch.dtype) -> Batch:
    generator = np.random.default_rng(1)

    def like(tensor: Tensor, low: float, high: float) -> Tensor:
        numbers = torch.from_numpy(generator.uniform(low, high, (count, *tensor.shape[1:])))
        return numbers.to(tensor.device, dtype if tensor.is_floating_point() else tensor.dtype)

    inputs = like(batch.inputs, -1.0 if batch.inputs.is_floating_point() else 0.0, 2.0)
    return Batch(inputs, like(batch.keypoints, 1.0, 16.0), like(batch.visible, 1.0, 2.0), like(batch.head_px, 4.0, 16.0))
