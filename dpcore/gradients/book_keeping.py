"""Book-keeping: rows and clipped sums from what each layer took and what came back to it.

The sum Σ f_i row_i with factors that depend on the rows' norms needs every norm first. Each layer says its share of the norms as the
backward pass reaches it, and gives its share of the sum when the factors are known:

| way of a layer | when | holds until the factors are known |
|---|---|---|
| together | few trained numbers | rows, in one buffer for all such layers |
| kept | until rows take twice the memory of all inputs and outputs | rows, in a buffer that is used again |
| products | few positions, large weight | inputs and backprops; no rows at all |
| again | otherwise | inputs and backprops; the rows are computed twice, some records at a time |

Source: book-keeping (Bu et al., ICML 2023, arXiv:2210.00038).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from dpcore.gradients.batch import Batch, RowsAndLosses
from dpcore.gradients.buffers import Buffers
from dpcore.gradients.layer_rules import Call
from dpcore.gradients.shares import Again, Kept, Products, Share, SmallLayers, chunks
from dpcore.gradients.tape import Tape, TrainedLayer
from dpcore.gradients.way import FactorsOf, SumAndLosses, TrainedModule

SMALL = 2**14
"""Trained numbers of a layer up to which its rows lie together with those of others."""
KEPT_SHARE = 2.0
"""Rows are kept up to so many times the bytes of all layers' inputs and outputs, which are freed as the rows come."""
MAP_BYTES = 32 * 2**20
"""Of the largest map in a pass. The C library gives larger pieces of memory back at once, and their fresh pages cost five times a write:
64 pairs of cached features took three times as long as 64 single examples."""
HELD_BYTES = 256 * 2**20
"""Of what a pass holds: inputs, outputs and kept rows of single examples. 16 images through a ViT-tiny, all at once, hold 2.5 times the
memory of a plain step, four at a time 1.3 times; that costs 3 % of the step."""


class BookKeptRows:
    """The fastest way; see the module.

    Args:
        trained: the network.
        copies: gives bare parameters of shape (1, ...) to each example as copies, instead of running their module again.
        inherited: takes the rule of a layer's base class for it.
    """

    def __init__(self, trained: TrainedModule, *, copies: bool = True, inherited: bool = True) -> None:
        self._trained = trained
        self._tape = Tape(trained, copies=copies, inherited=inherited)
        self._small = [layer for layer in self._tape.layers if layer.size <= SMALL]
        self._buffers = Buffers()
        self._record_bytes: tuple[int, int] | None = None  # of the largest map of a record, and of all that a pass holds of it

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        count = len(batch) // len(entry_weights)
        like = self._trained.named[0][1]
        rows = torch.zeros(count, self._trained.parameter_count, dtype=like.dtype, device=like.device)

        def write(layer: TrainedLayer, calls: list[Call]) -> None:
            for some in chunks(count, layer.size):
                for name, part in layer.rows(calls, some).items():
                    start, shape = layer.columns[name]
                    rows[some, start : start + shape.numel()] = part.flatten(1)

        losses = self._tape.run([batch], entry_weights, write)
        return RowsAndLosses(rows, losses)

    def summed(self, entries: Sequence[Batch], entry_weights: tuple[float, ...], factors_of: FactorsOf) -> SumAndLosses:
        count, like = len(entries[0]), self._trained.named[0][1]
        together = SmallLayers(self._small, count, like, self._buffers)
        shares: list[Share] = [together]
        kept = 0

        def book(layer: TrainedLayer, calls: list[Call]) -> None:
            nonlocal kept
            if layer in together:
                together.add(layer, calls)
            elif Products.suit(layer, calls):
                shares.append(Products(layer, calls))
            elif kept + count * layer.size <= KEPT_SHARE * self._tape.held:
                kept += count * layer.size
                shares.append(Kept(layer, calls, count, self._buffers))
            else:
                shares.append(Again(layer, calls, count))

        losses = self._tape.run(self._batches(entries), entry_weights, book)
        with torch.no_grad():
            return SumAndLosses(self._total(shares, factors_of), losses)

    def records_at_once(self, batch: Batch) -> int:
        """On a CPU as many as keep the largest map within `MAP_BYTES` and the whole pass within `HELD_BYTES`, elsewhere any number."""
        if self._trained.device.type != "cpu":
            return sys.maxsize
        if self._record_bytes is None:
            self._tape.run([batch[:1]], (1.0,), lambda layer, calls: None)
            kept = min(self._trained.parameter_count, int(KEPT_SHARE * self._tape.held))
            self._record_bytes = 4 * self._tape.largest_map, 4 * (self._tape.held + kept)
        of_map, of_all = self._record_bytes
        return max(1, min(MAP_BYTES // of_map, HELD_BYTES // of_all))

    def close(self) -> None:
        self._tape.close()

    def _batches(self, entries: Sequence[Batch]) -> Sequence[Batch]:
        """The entries of small maps go through the network side by side, those of large maps one after the other."""
        if len(entries) == 1 or len(entries) * len(entries[0]) > self.records_at_once(entries[0]):
            return entries
        return [self._buffers.joined(*entries)]

    def _total(self, shares: list[Share], factors_of: FactorsOf) -> Tensor:
        """(P,) float64; each share's memory is let go as soon as its part of the sum is known."""
        squares = torch.stack([share.squares for share in shares])
        factors = factors_of(squares.sum(dim=0).sqrt())
        total = torch.zeros(self._trained.parameter_count, dtype=torch.float64, device=factors.device)
        while shares:
            for start, part in shares.pop().weighted(factors):
                total[start : start + part.numel()].view(part.shape).copy_(part)
        return total


def of_exact_types(trained: TrainedModule) -> BookKeptRows:
    """Book-keeping where a layer computes something else than its base class."""
    return BookKeptRows(trained, inherited=False)


def without_copies(trained: TrainedModule) -> BookKeptRows:
    """Book-keeping where a copy of a bare parameter for each example would be wrong."""
    return BookKeptRows(trained, copies=False, inherited=False)
