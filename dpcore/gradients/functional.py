"""Rows of any network: the gradient of one record at a time, by `torch.func` or by a plain loop.

Both see a record as a batch of its own, so nothing that a layer does with the batch dimension can mix records: windows folded into
it, weights used outside their layer or twice, bare parameters, any padding. They are slower than book-keeping and are used where
that does not cover a network.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpcore.gradients.batch import Batch, RowsAndLosses
from dpcore.gradients.way import TrainedModule

ROW_BYTES_AT_ONCE = 256 * 2**20
"""Of gradients that `vmap` holds at a time, twice: 5 million parameters are 40 MB a record, so 6 records at once."""


class _WeightedLoss(nn.Module):
    """The weighted loss of one record as a module, so that `functional_call` reaches the parameters by their names."""

    def __init__(self, trained: TrainedModule, entry_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.module = trained.module
        self.trained, self.entry_weights = trained, entry_weights

    def forward(self, inputs: Tensor, keypoints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Entries (h, ...) of one record: their weighted loss, and the loss of the first."""
        losses = self.trained.losses(Batch(inputs, keypoints, visible))
        weighted = [weight * losses[entry] for entry, weight in enumerate(self.entry_weights)]
        return torch.stack(weighted).sum(), losses[0]


class VectorisedRows:
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
        of_all = torch.func.vmap(of_one, in_dims=(None, 1, 1, 1), randomness="error")
        # torch's fused attention has no batching rule and would run record by record
        with sdpa_kernel(SDPBackend.MATH), _fallbacks_are_slow_and_right():
            return _in_chunks(self._trained, batch, len(entry_weights), lambda *entries: of_all(parameters, *entries))

    def close(self) -> None:
        """Nothing is left on the module."""


class LoopedRows:
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
    """∇ total over the trainable parameters: (P,), zeros where it does not depend on one."""
    parameters = [p for _, p in trained.named]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])


@contextmanager
def _fallbacks_are_slow_and_right() -> Iterator[None]:
    """Silences torch's note that an operator without a batching rule runs record by record."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        yield


def _entries_of(batch: Batch, record: int, count: int) -> Batch:
    return Batch(batch.inputs[record::count], batch.keypoints[record::count], batch.visible[record::count])


def _in_chunks(trained: TrainedModule, batch: Batch, entries: int, gradients_of: object) -> RowsAndLosses:
    """Rows written into one buffer, chunk by chunk of records."""
    count, named = len(batch) // entries, trained.named
    parts = [tensor.view(entries, count, *tensor.shape[1:]) for tensor in (batch.inputs, batch.keypoints, batch.visible)]
    at_once = max(1, min(count, ROW_BYTES_AT_ONCE // (8 * trained.parameter_count)))
    rows = torch.empty(count, trained.parameter_count, dtype=named[0][1].dtype, device=trained.device)
    losses = torch.empty(count, dtype=rows.dtype, device=trained.device)
    for start in range(0, count, at_once):
        some = slice(start, start + at_once)
        gradients, firsts = gradients_of(*(part[:, some] for part in parts))  # type: ignore[operator]
        losses[some], column = firsts.detach(), 0
        for name, parameter in named:
            size = math.prod(parameter.shape)
            rows[some, column : column + size] = gradients[f"module.{name}"].flatten(1)
            column += size
    return RowsAndLosses(rows, losses)
