"""What every way to per-example gradients is given, and what it must give.

Shapes: B records, h entries of a record in the batch (2 for a pair, 1 otherwise), P trainable parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dpcore.config import Precision
from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch, Loss, RowsAndLosses


@dataclass(frozen=True, eq=False)
class TrainedModule:
    """A module in training with its loss: what rows are taken of.

    Args:
        module: the trainable tail. Its trainable parameters, in the order of `named_parameters`, are the columns of a row.
        loss: per-example loss.
        precision: bf16 runs forward and backward under autocast.
    """

    module: nn.Module
    loss: Loss
    precision: Precision

    @property
    def named(self) -> list[tuple[str, nn.Parameter]]:
        """The trainable parameters."""
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]

    @property
    def parameter_count(self) -> int:
        """P."""
        return sum(p.numel() for _, p in self.named)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(p.device for p in self.module.parameters())

    def losses(self, batch: Batch) -> Tensor:
        """(B,) losses in train mode.

        Raises:
            BadInput: the loss gives another shape, so it is not per example.
        """
        self.module.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses = self.loss(self.module, batch)
        losses = losses if losses.dtype == torch.float64 else losses.to(torch.float32)
        if losses.shape != (len(batch),):
            raise BadInput(f"the loss must give one value an example, ({len(batch)},), given shape {tuple(losses.shape)}")
        return losses


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

    def close(self) -> None:
        """Leaves the module as it was."""
        ...
