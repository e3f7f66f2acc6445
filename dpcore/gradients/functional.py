"""Rows of any network: the gradient of one record at a time, by `torch.func` or by a plain loop.

Both see a record as a batch of its own, so nothing that a layer does with the batch dimension can mix records: windows folded into
it, weights used outside their layer or twice, bare parameters, any padding. They are slower than book-keeping and are used where
that does not cover a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from dpcore.gradients.batch import Batch, RowsAndLosses
from dpcore.gradients.norms import row_norms, weighted_rows
from dpcore.gradients.vectorise import over_records
from dpcore.gradients.way import FactorsOf, SumAndLosses, TrainedModule

ROW_BYTES_AT_ONCE = 256 * 2**20
"""Of gradients that `vmap` holds at a time, twice: 5 million parameters are 40 MB a record, so 6 records at once."""


_Gradients = Callable[..., tuple[dict[str, Tensor], Tensor]]


class _WeightedLoss(nn.Module):
    """The weighted loss of one record as a module, so that `functional_call` reaches the parameters by their names."""

    def __init__(self, trained: TrainedModule, entry_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.module = trained.module
        self.trained, self.entry_weights = trained, entry_weights

    def forward(self, *entries: Tensor) -> tuple[Tensor, Tensor]:
        """Entries (h, ...) of one record, as the tensors of a batch: their weighted loss, and the loss of the first."""
        losses = self.trained.losses(Batch(*entries))
        weighted = [weight * losses[entry] for entry, weight in enumerate(self.entry_weights)]
        return torch.stack(weighted).sum(), losses[0]


class SummedFromRows:
    """Gives the sum from the rows, so many records at a time that their rows stay within `ROW_BYTES_AT_ONCE`."""

    _trained: TrainedModule

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        raise NotImplementedError

    def summed(self, entries: Sequence[Batch], entry_weights: tuple[float, ...], factors_of: FactorsOf) -> SumAndLosses:
        count = len(entries[0])
        at_once = max(1, ROW_BYTES_AT_ONCE // (4 * self._trained.parameter_count))
        total = torch.zeros(self._trained.parameter_count, dtype=torch.float64, device=self._trained.device)
        losses = []
        for start in range(0, count, at_once):
            some = slice(start, start + at_once)
            found = self.rows(reduce(Batch.followed_by, [one[some] for one in entries]), entry_weights)
            total += weighted_rows(found.rows, factors_of(row_norms(found.rows)))
            losses.append(found.losses)
        return SumAndLosses(total, torch.cat(losses))

    def records_at_once(self, batch: Batch) -> int:
        """All of them: `summed` itself takes some at a time."""
        return len(batch)


class VectorisedRows(SummedFromRows):
    """`vmap` over the gradient of one record, some records at a time. Random numbers are refused."""

    def __init__(self, trained: TrainedModule) -> None:
        self._trained = trained

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        one = _WeightedLoss(self._trained, entry_weights)
        parameters = {f"module.{name}": p.detach() for name, p in self._trained.named}

        def loss_of(weights: dict[str, Tensor], *entries: Tensor) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = torch.func.functional_call(one, weights, entries)
            return found

        of_one = torch.func.grad(loss_of, has_aux=True)

        def of_some(*entries: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            found: tuple[dict[str, Tensor], Tensor] = over_records(of_one, parameters, *entries, in_dims=(None, 1, 1, 1, 1))
            return found

        return _in_chunks(self._trained, batch, len(entry_weights), of_some)

    def close(self) -> None:
        """Nothing is left on the module."""


class LoopedRows(SummedFromRows):
    """One backward pass a record. The last resort: right for every network, and as slow as its batch is large."""

    def __init__(self, trained: TrainedModule) -> None:
        self._trained = trained

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        count = len(batch) // len(entry_weights)
        weights = torch.tensor(entry_weights, device=self._trained.device)
        rows, firsts = [], []
        for record in range(count):
            losses = self._trained.losses(_entries_of(batch, record, count))
            rows.append(flat_gradient((losses * weights).sum(), self._trained))
            firsts.append(losses[0].detach())
        return RowsAndLosses(torch.stack(rows), torch.stack(firsts))

    def close(self) -> None:
        """Nothing is left on the module."""


def flat_gradient(total: Tensor, trained: TrainedModule) -> Tensor:
    """∇ total over the trainable parameters, in units of their scales: (P,), zeros where it does not depend on one."""
    parameters = [p for _, p in trained.named]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return trained.scaled(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs]))


def _entries_of(batch: Batch, record: int, count: int) -> Batch:
    return Batch(*(tensor[record::count] for tensor in batch.tensors))


def _in_chunks(trained: TrainedModule, batch: Batch, entries: int, gradients_of: _Gradients) -> RowsAndLosses:
    """Rows written into one buffer, chunk by chunk of records."""
    count, named = len(batch) // entries, trained.named
    parts = [tensor.view(entries, count, *tensor.shape[1:]) for tensor in batch.tensors]
    at_once = max(1, min(count, ROW_BYTES_AT_ONCE // (8 * trained.parameter_count)))
    rows = torch.empty(count, trained.parameter_count, dtype=named[0][1].dtype, device=trained.device)
    losses = torch.empty(count, dtype=rows.dtype, device=trained.device)
    for start in range(0, count, at_once):
        some = slice(start, start + at_once)
        gradients, firsts = gradients_of(*(part[:, some] for part in parts))
        losses[some], column = firsts.detach(), 0
        for name, parameter in named:
            size = math.prod(parameter.shape)
            rows[some, column : column + size] = gradients[f"module.{name}"].flatten(1)
            column += size
    return RowsAndLosses(trained.scaled(rows), losses)
