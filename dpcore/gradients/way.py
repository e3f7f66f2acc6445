"""What every way to per-example gradients is given, and what it must give.

Shapes: B records, h entries of a record in the batch (2 for a pair, 1 otherwise), P trainable parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from dpcore.config import Precision
from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch, Loss, RowsAndLosses
from dpcore.gradients.scales import Scales


@dataclass(frozen=True, eq=False)
class TrainedModule:
    """A module in training with its loss: what rows are taken of.

    Args:
        module: the trainable tail. Its trainable parameters, in the order of `named_parameters`, are the columns of a row.
        loss: per-example loss.
        precision: bf16 runs forward and backward under autocast.
        scales: of each trained tensor; rows are gradients with respect to the weights in these units. None: the weights themselves.
    """

    module: nn.Module
    loss: Loss
    precision: Precision
    scales: Scales | None = None

    def __post_init__(self) -> None:
        if self.scales is not None and len(self.scales) != len(self.named):
            raise BadInput(f"{len(self.named)} tensors train, given {len(self.scales)} scales: give one for each")

    @cached_property
    def named(self) -> list[tuple[str, nn.Parameter]]:
        """The trainable parameters, as at the first call: a pass may switch their gradients off."""
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]

    @cached_property
    def parameter_count(self) -> int:
        """P."""
        return sum(p.numel() for _, p in self.named)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(p.device for p in self.module.parameters())

    @cached_property
    def scale_of(self) -> Mapping[nn.Parameter, float]:
        """The scale of each trained tensor."""
        scales = self.scales or (1.0,) * len(self.named)
        return {p: scale for (_, p), scale in zip(self.named, scales, strict=True)}

    def scaled(self, rows: Tensor) -> Tensor:
        """Gradients (..., P) with respect to the weights, as gradients with respect to the weights in units of their scales."""
        if self.scales is None:
            return rows
        sizes = torch.tensor([p.numel() for _, p in self.named])
        columns = torch.tensor(self.scales, dtype=rows.dtype).repeat_interleave(sizes)
        return rows * columns.to(rows.device)

    def losses(self, batch: Batch, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B,) losses in train mode, of float32 or better. `replaced`: tensors that take the places of parameters, by name.

        Raises:
            BadInput: the loss gives another shape, so it is not per example.
        """
        self.module.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses = self.loss(self.module, batch) if not replaced else self._replaced_losses(batch, replaced)
        losses = losses if losses.dtype == torch.float64 else losses.to(torch.float32)
        if losses.shape != (len(batch),):
            raise BadInput(f"the loss must give one value an example, ({len(batch)},), given shape {tuple(losses.shape)}")
        return losses

    def _replaced_losses(self, batch: Batch, replaced: Mapping[str, Tensor]) -> Tensor:
        named = {f"module.{name}": tensor for name, tensor in replaced.items()}
        losses: Tensor = torch.func.functional_call(_LossModule(self), named, (batch,))
        return losses


class _LossModule(nn.Module):
    """The loss as a module, so that `functional_call` reaches the parameters by their names."""

    def __init__(self, trained: TrainedModule) -> None:
        super().__init__()
        self.module, self.loss = trained.module, trained.loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.module, batch)


FactorsOf = Callable[[Tensor], Tensor]
"""Norms (B,) float64 of records -> factors (B,) float64, each of its own record's norm alone; 0 leaves a record out."""


@dataclass(frozen=True)
class SumAndLosses:
    """Σ f_i row_i (P,) float64, and the losses (B,) of first entries. Sealed when private."""

    total: Tensor
    losses: Tensor


class Way(Protocol):
    """One way to per-example gradients."""

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        """One row a record: Σ_e w_e ∇ℓ(entry e).

        Args:
            batch: (h·B) examples, not empty: first entries of all records, then second entries.
            entry_weights: (h,), (1,) for plain rows and (1, −λ) for pairs.

        Returns:
            Rows (B, P) and the losses (B,) of the first entries.

        Raises:
            BadInput: this way does not cover a parameter of this network.
        """
        ...

    def summed(self, entries: Sequence[Batch], entry_weights: tuple[float, ...], factors_of: FactorsOf) -> SumAndLosses:
        """Σ f_i row_i over records, f_i by the norm of row i. No row needs to exist for it.

        Args:
            entries: h batches of B examples, the first entries of all records, then their second ones.
            entry_weights: (h,), as for `rows`.
            factors_of: tells the factors of records by their norms.

        Guarantees: what record i adds is no longer than f_i times the norm that `factors_of` was given, to a relative 1e-6, and is
        exactly zero where f_i is 0, whatever the record holds.
        """
        ...

    def records_at_once(self, batch: Batch) -> int:
        """How many records like those of `batch` `summed` should be given at once: a function of shapes alone."""
        ...

    def close(self) -> None:
        """Leaves the module as it was."""
        ...
