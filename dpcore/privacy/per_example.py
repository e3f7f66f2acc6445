"""Per-example gradients of the trainable module: one engine, whichever way the network needs (`dpcore.gradients`).

Shapes: B examples, K joints, P trainable parameters. A row is one record's gradient over all trainable parameters, in the
order of `named_parameters`. A public mean gradient is a plain backward pass, so a public pass can never add rows to a private
batch (as it does in the published code).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpcore.config import Precision
from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch, Loss, RowsAndLosses
from dpcore.gradients.buffers import Buffers
from dpcore.gradients.choice import chosen_way
from dpcore.gradients.plain import PlainSums
from dpcore.gradients.scales import Scales
from dpcore.gradients.way import FactorsOf, TrainedModule, Way
from dpcore.privacy.clipping import BoundedSum, clipped_sum
from dpcore.privacy.feature_split import entry_weights

__all__ = ["Batch", "GradientEngine", "Loss", "RowsAndLosses"]

_COUPLING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_UNKEYED = (nn.modules.dropout._DropoutNd,)


class GradientEngine:
    """Gradients of `loss` with respect to the trainable parameters of `module`, per example or in the mean.

    Guarantees: row i depends on example i and the weights alone, also where another example holds nan or inf: no factor ever
    multiplies a whole batch. Every trainable parameter is covered; a residual pair is one row; nothing is left on the parameters
    between calls. The first call proves the way to rows against a loop of single examples, on random numbers (`gradients.choice`).
    Assumes: `loss` has shape (B,) and couples no examples (tests/privacy holds the module and loss of the project to it).

    The wrapped module stays usable as itself, for evaluation and for `state_dict`. Close the engine to take the hooks off.

    Args:
        module: The trainable tail of the network, set to train mode by every call.
        loss: Per-example loss.
        precision: bf16 runs forward and backward under autocast; weights, losses and rows are float32 either way.
        scales: of each trained tensor, from public weights (`gradients.scales`). Then flat weights, rows and sums are in their units. None:
            the weights as they are.
        name: of everything above with the weights at birth. Engines of one name share, within a process, the proof of their way and the
            row check of equal weights and examples (`privacy.row_check`). None: this engine proves its own.

    Raises:
        BadInput: a layer couples examples or draws from an unkeyed stream; nothing is trainable.
    """

    def __init__(
        self, module: nn.Module, loss: Loss, *, precision: Precision = "fp32", scales: Scales | None = None, name: str | None = None
    ) -> None:
        _refuse_unsafe(module)
        self.name = name
        self._trained = TrainedModule(module, loss, precision, scales)
        self._named = self._trained.named
        self._buffers = Buffers()
        self._plain = PlainSums(self._trained)
        self._way: tuple[str, Way] | None = None

    @property
    def module(self) -> nn.Module:
        """The module as it was given."""
        return self._trained.module

    @property
    def parameter_count(self) -> int:
        """P, the number of trainable scalars."""
        return sum(p.numel() for _, p in self._named)

    @property
    def scales(self) -> Scales | None:
        """What each trained tensor is measured by; None: the weights as they are."""
        return self._trained.scales

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self._named[0][1].device

    def way(self, batch: Batch) -> str:
        """The name of the way to rows: `book-keeping`, `vectorised` or `looped`. The first call chooses it by the shapes of `batch`."""
        return self._way_for(batch)[0]

    def rows(self, batch: Batch) -> Tensor:
        """∇ℓ(x_i) for each example: (B, P) float32. An empty batch gives (0, P)."""
        return self.rows_and_losses(batch).rows

    def residual_rows(self, batch: Batch, view_batch: Batch, public_weight: float) -> Tensor:
        """∇ℓ(x_i) − λ∇ℓ(ψ(x_i)) for each pair: (B, P) float32, one row a pair. λ = 0 is `rows`, bit for bit."""
        return self.residual_rows_and_losses(batch, view_batch, public_weight).rows

    def rows_and_losses(self, batch: Batch, *, copies: int = 1) -> RowsAndLosses:
        """`rows` with the losses (B,) of the same forward pass. `copies`: as in `clipped_sum`."""
        return self.residual_rows_and_losses(batch, None, 0.0, copies=copies)

    def residual_rows_and_losses(self, batch: Batch, view_batch: Batch | None, public_weight: float, *, copies: int = 1) -> RowsAndLosses:
        """`residual_rows` with the losses (B,) of the private halves. `copies`: as in `clipped_sum`.

        Raises:
            BadInput: the views are not as many as the examples, or λ is not in [0, 1].
        """
        weights = self._entry_weights(batch, view_batch, public_weight, copies)
        if len(batch) == 0:
            nothing = torch.zeros(0, dtype=torch.float32, device=self.device)
            return RowsAndLosses(nothing.view(0, self.parameter_count), nothing)
        if view_batch is None or len(weights) == copies:
            return self._rows(batch, weights)
        return self._rows(self._buffers.joined(batch, view_batch), weights)

    def clipped_sum(
        self, batch: Batch, view_batch: Batch | None, public_weight: float, *, clip_norm: float, copies: int = 1
    ) -> tuple[BoundedSum, Tensor]:
        """Σ clip_C of the rows of single examples or, with views, of pairs, and the losses (B,) of the private halves.

        Each record counts as one row, as in `residual_rows_and_losses`. The rows need not exist at once: see `gradients.book_keeping`.

        Args:
            batch: (copies · B) examples: the first augmented copies of all records, then the second ones. A record's row is the mean over
                its copies. view_batch: their views, in the same order.
            public_weight: λ.
            clip_norm: C.
            copies: of each record.

        Raises:
            BadInput: the views are not as many as the examples, λ is not in [0, 1], or C is out of range.
        """
        weights = self._entry_weights(batch, view_batch, public_weight, copies)
        if len(batch) == 0:
            return BoundedSum.empty(self.parameter_count, clip_norm, device=self.device), torch.zeros(0, device=self.device)
        way = self._way_for(batch)[1]
        count = len(batch) // copies
        at_once = math.ceil(count / math.ceil(count / way.records_at_once(batch)))  # passes of equal size
        halves = [batch] if view_batch is None or len(weights) == copies else [batch, view_batch]
        entries = [half[copy * count : (copy + 1) * count] for half in halves for copy in range(copies)]
        losses = []

        def summed(factors_of: FactorsOf) -> Tensor:
            total = torch.zeros(self.parameter_count, dtype=torch.float64, device=self.device)
            for start in range(0, count, at_once):
                found = way.summed([one[start : start + at_once] for one in entries], weights, factors_of)
                losses.append(found.losses.to(torch.float32))
                total += found.total
            return total

        bounded = clipped_sum(summed, clip_norm)
        return bounded, torch.cat(losses)

    def sum_gradient(self, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Σ_i w_i ∇ℓ(x_i): (P,) float32, by plain backward passes. Zeros for an empty batch; no weights are ones."""
        if len(batch) == 0:
            return torch.zeros(self.parameter_count, dtype=torch.float32, device=self.device)
        return self._plain.summed(batch, weights)

    def flat_weights(self) -> Tensor:
        """A copy of the trainable weights in units of their scales: (P,) in the order of the rows."""
        return torch.cat([p.detach().reshape(-1) / self._trained.scale_of[p] for _, p in self._named])

    def set_flat_weights(self, weights: Tensor) -> None:
        """Writes (P,) weights, in units of their scales, back into the module.

        Raises:
            BadInput: another number of weights than P.
        """
        if weights.shape != (self.parameter_count,):
            raise BadInput(f"expected ({self.parameter_count},) weights, given {tuple(weights.shape)}")
        start = 0
        with torch.no_grad():
            for _, p in self._named:
                p.copy_(weights[start : start + p.numel()].view_as(p) * self._trained.scale_of[p])
                start += p.numel()

    def close(self) -> None:
        """Leaves the module as it was, so that another engine can have it."""
        if self._way is not None:
            self._way[1].close()
        self._way = None

    def _entry_weights(self, batch: Batch, view_batch: Batch | None, public_weight: float, copies: int) -> tuple[float, ...]:
        """The weights of a record's entries in the network. λ = 0 is a plain example, bit for bit."""
        if not 0.0 <= public_weight <= 1.0:
            raise BadInput(f"public_weight must lie in [0, 1], given {public_weight}")
        if view_batch is not None and len(batch) != len(view_batch):
            raise BadInput(f"a pair needs both halves: given {len(batch)} examples and {len(view_batch)} views")
        if len(batch) % copies:
            raise BadInput(f"{copies} copies of each record were said, given {len(batch)} examples")
        return entry_weights(0.0 if view_batch is None else public_weight, copies)

    def _way_for(self, batch: Batch) -> tuple[str, Way]:
        if self._way is None:
            self._way = chosen_way(self._trained, batch, name=self.name)
        return self._way

    def _rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> RowsAndLosses:
        found = self._way_for(batch)[1].rows(batch, entry_weights)
        return RowsAndLosses(found.rows.to(torch.float32), found.losses.to(torch.float32))


def _refuse_unsafe(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, _COUPLING):
            raise BadInput(f"layer {name or 'module'} ({type(layer).__name__}) keeps batch statistics; fold it or use GroupNorm")
        if isinstance(layer, _UNKEYED) and layer.p > 0:
            raise BadInput(f"layer {name or 'module'} ({type(layer).__name__}) draws outside the trial's streams; set p to 0")
    if not any(p.requires_grad for p in module.parameters()):
        raise BadInput("the module has no trainable parameter: choose another model.freeze")
