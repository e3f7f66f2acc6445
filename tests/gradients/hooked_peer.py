"""Rows through the hooks of Opacus: a way that is silently wrong for some networks, which the check of rows has to notice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch, RowsAndLosses
from dpcore.gradients.functional import SummedFromRows
from dpcore.gradients.way import TrainedModule


class HookedRows(SummedFromRows):
    """Opacus' hooks, which sleep but for the passes of `rows`.

    Raises:
        BadInput: Opacus has no rule for a trainable layer.
    """

    def __init__(self, trained: TrainedModule) -> None:
        self._trained = trained
        try:
            self._hooked = GradSampleModule(trained.module, batch_first=True, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            raise BadInput(f"per-example gradients are not defined for a trainable layer: {error}; freeze or replace it") from None
        self._hooked.disable_hooks()

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        count = len(batch) // len(entry_weights)
        self._hooked.enable_hooks()
        try:
            with inputs_need_no_gradient():
                losses = self._trained.losses(batch)
                weights = torch.tensor(entry_weights, device=losses.device).repeat_interleave(count)
                (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
            entries = self._gather(len(batch)).view(len(entry_weights), count, -1)
            rows = entries[0] if len(entries) == 1 else entries.sum(dim=0)
            return RowsAndLosses(self._trained.scaled(rows), losses[:count].detach())
        finally:
            self._hooked.disable_hooks()
            self._clear()

    def close(self) -> None:
        """Takes the hooks off."""
        self._hooked.remove_hooks()

    def _gather(self, count: int) -> Tensor:
        pieces = []
        for name, parameter in self._trained.named:
            sample = getattr(parameter, "grad_sample", None)
            if not isinstance(sample, Tensor) or sample.shape != (count, *parameter.shape):
                raise BadInput(f"no per-example gradient for parameter {name}: the hooks do not see it through its own layer's forward")
            pieces.append(sample.reshape(count, math.prod(parameter.shape)))
        return torch.cat(pieces, dim=1)

    def _clear(self) -> None:
        """Removes what a pass left behind, also after an error in the middle of it."""
        for _, parameter in self._trained.named:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._forward_counter = 0  # type: ignore[attr-defined]
            if hasattr(parameter, "_current_grad_sample"):
                del parameter._current_grad_sample
        for layer in self._trained.module.modules():
            for leftover in ("activations", "max_batch_len"):
                if hasattr(layer, leftover):
                    delattr(layer, leftover)


@contextmanager
def inputs_need_no_gradient() -> Iterator[None]:
    """Silences torch's note that a hook sees output gradients only: the rows are made from exactly those, and asking for
    gradients of the images as well would pay for a convolution that nobody reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield
