"""Per-example gradients of the trainable module, through Opacus' hooks.

Shapes: B examples, K joints, P trainable parameters. A row is one record's gradient over all trainable parameters, in the
order of `named_parameters`. The engine is the only place where hooks fire: they are off for public mean gradients, so a
public pass can never add rows to a private batch (as it does in the published code).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from dpcore.config import Precision
from dpcore.errors import BadInput
from dpcore.privacy.feature_split import merge_pair_rows, pair_weights

SEEN_WITH = "1.6.0"
"""The version of Opacus in which the attributes that `_clear` removes were seen; pyproject.toml admits its minor version only."""
_COUPLING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_UNKEYED = (nn.modules.dropout._DropoutNd,)


@dataclass(frozen=True)
class Batch:
    """Examples with their labels, validated at birth. A slice of a batch is a batch.

    Args:
        inputs: (B, ...) images or cached features, whatever the trainable module takes.
        keypoints: (B, K, 2) px in the crop.
        visible: (B, K) bool.

    Raises:
        BadInput: the lengths differ.
    """

    inputs: Tensor
    keypoints: Tensor
    visible: Tensor

    def __post_init__(self) -> None:
        lengths = len(self.inputs), len(self.keypoints), len(self.visible)
        if len(set(lengths)) != 1:
            raise BadInput(f"a batch has one length, given inputs, keypoints, visible of {lengths}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.inputs[rows], self.keypoints[rows], self.visible[rows])

    def followed_by(self, other: Batch) -> Batch:
        """The examples of both, this batch's first."""
        return Batch(
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.keypoints, other.keypoints]),
            torch.cat([self.visible, other.visible]),
        )

    def chunks(self, size: int) -> Iterator[Batch]:
        """Consecutive physical batches of at most `size` examples; none for an empty batch."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


Loss = Callable[[nn.Module, Batch], Tensor]
"""(module, batch) -> losses (B,): one per example, no term couples examples."""


@dataclass(frozen=True)
class RowsAndLosses:
    """Gradients (B, P) float32 and losses (B,) of the first half of each pair or of each example. Sealed when private."""

    rows: Tensor
    losses: Tensor


class _Float32Samples(GradSampleModule):  # type: ignore[misc]
    """Multiplies in float32 what a layer took and what came back to it: under autocast the rows would be bfloat16."""

    def rearrange_grad_samples(self, **given: Any) -> tuple[list[Tensor], Tensor]:
        activations, backprops = super().rearrange_grad_samples(**given)
        return [activation.to(torch.float32) for activation in activations], backprops.to(torch.float32)


class GradientEngine:
    """Gradients of `loss` with respect to the trainable parameters of `module`, per example or in the mean.

    Guarantees: row i depends on example i and the weights alone, also where another example holds nan or inf: no factor ever
    multiplies a whole batch. Every trainable parameter is covered or an error says which is not; a residual pair is one row;
    nothing is left on the parameters between calls.
    Assumes: `loss` has shape (B,) and couples no examples (tests/privacy holds the module and loss of the project to it).

    The wrapped module stays usable as itself, for evaluation and for `state_dict`. Close the engine to take the hooks off.

    Args:
        module: The trainable tail of the network, set to train mode by every call (Opacus' hooks sleep in eval mode).
        loss: Per-example loss.
        precision: bf16 runs forward and backward under autocast; weights, losses and rows are float32 either way.

    Raises:
        BadInput: a layer couples examples, draws from an unkeyed stream, or cannot be hooked; nothing is trainable.
    """

    def __init__(self, module: nn.Module, loss: Loss, *, precision: Precision = "fp32") -> None:
        _refuse_unsafe(module)
        try:
            self._hooked = _Float32Samples(module, batch_first=True, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            raise BadInput(f"per-example gradients are not defined for a trainable layer: {error}; freeze or replace it") from None
        self._hooked.disable_hooks()
        self._module = module
        self._loss = loss
        self._precision = precision
        self._named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    @property
    def module(self) -> nn.Module:
        """The module as it was given."""
        return self._module

    @property
    def parameter_count(self) -> int:
        """P, the number of trainable scalars."""
        return sum(p.numel() for _, p in self._named)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self._named[0][1].device

    def rows(self, batch: Batch) -> Tensor:
        """∇ℓ(x_i) for each example: (B, P) float32. An empty batch gives (0, P)."""
        return self.rows_and_losses(batch).rows

    def residual_rows(self, batch: Batch, view_batch: Batch, public_weight: float) -> Tensor:
        """∇ℓ(x_i) − λ∇ℓ(ψ(x_i)) for each pair: (B, P) float32, one row a pair. λ = 0 is `rows`, bit for bit."""
        return self.residual_rows_and_losses(batch, view_batch, public_weight).rows

    def rows_and_losses(self, batch: Batch) -> RowsAndLosses:
        """`rows` with the losses (B,) of the same forward pass."""
        if len(batch) == 0:
            nothing = torch.zeros(0, dtype=torch.float32, device=self.device)
            return RowsAndLosses(nothing.view(0, self.parameter_count), nothing)
        return self._weighted_rows(batch, None)

    def residual_rows_and_losses(self, batch: Batch, view_batch: Batch, public_weight: float) -> RowsAndLosses:
        """`residual_rows` with the losses (B,) of the private halves.

        Raises:
            BadInput: the views are not as many as the examples, or λ is not in [0, 1].
        """
        if not 0.0 <= public_weight <= 1.0:
            raise BadInput(f"public_weight must lie in [0, 1], given {public_weight}")
        if len(batch) != len(view_batch):
            raise BadInput(f"a pair needs both halves: given {len(batch)} examples and {len(view_batch)} views")
        if public_weight == 0.0 or len(batch) == 0:
            return self.rows_and_losses(batch)
        weights = pair_weights(len(batch), public_weight, like=batch.inputs.new_zeros((), dtype=torch.float32))
        both = self._weighted_rows(batch.followed_by(view_batch), weights)
        return RowsAndLosses(merge_pair_rows(both.rows), both.losses[: len(batch)])

    def sum_gradient(self, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Σ_i w_i ∇ℓ(x_i): (P,) float32, one backward pass with the hooks off. Zeros for an empty batch; no weights are ones."""
        if len(batch) == 0:
            return torch.zeros(self.parameter_count, dtype=torch.float32, device=self.device)
        with _inputs_need_no_gradient():
            losses = self._losses(batch)
            total = losses.sum() if weights is None else (losses * weights).sum()
            gradients = torch.autograd.grad(total, [p for _, p in self._named], allow_unused=True)
        pairs = zip(gradients, self._named, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, (_, p) in pairs])

    def flat_weights(self) -> Tensor:
        """A copy of the trainable weights: (P,) in the order of the rows."""
        return torch.cat([p.detach().reshape(-1) for _, p in self._named])

    def set_flat_weights(self, weights: Tensor) -> None:
        """Writes (P,) weights back into the module.

        Raises:
            BadInput: another number of weights than P.
        """
        if weights.shape != (self.parameter_count,):
            raise BadInput(f"expected ({self.parameter_count},) weights, given {tuple(weights.shape)}")
        start = 0
        with torch.no_grad():
            for _, p in self._named:
                p.copy_(weights[start : start + p.numel()].view_as(p))
                start += p.numel()

    def close(self) -> None:
        """Takes the hooks off the module, which can then be wrapped again."""
        self._hooked.remove_hooks()

    def _losses(self, batch: Batch) -> Tensor:
        self._module.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            losses = self._loss(self._module, batch).to(torch.float32)
        if losses.shape != (len(batch),):
            raise BadInput(f"the loss must give one value an example, ({len(batch)},), given shape {tuple(losses.shape)}")
        return losses

    def _weighted_rows(self, batch: Batch, weights: Tensor | None) -> RowsAndLosses:
        self._hooked.enable_hooks()
        try:
            with _inputs_need_no_gradient():
                losses = self._losses(batch)
                total = losses.sum() if weights is None else (losses * weights).sum()
                total.backward()  # type: ignore[no-untyped-call]
            return RowsAndLosses(self._gather(len(batch)), losses.detach())
        finally:
            self._hooked.disable_hooks()
            self._clear()

    def _gather(self, count: int) -> Tensor:
        pieces = []
        for name, parameter in self._named:
            sample = getattr(parameter, "grad_sample", None)
            if not isinstance(sample, Tensor) or sample.shape != (count, *parameter.shape):
                raise BadInput(
                    f"no per-example gradient for parameter {name}: the module must reach it through its own layer's forward,"
                    " with the batch as first dimension; freeze it or change the layer"
                )
            pieces.append(sample.reshape(count, math.prod(parameter.shape)).to(torch.float32))
        return torch.cat(pieces, dim=1)

    def _clear(self) -> None:
        """Removes what a pass left behind, also after an error in the middle of it."""
        for _, parameter in self._named:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._forward_counter = 0  # type: ignore[attr-defined]
            if hasattr(parameter, "_current_grad_sample"):
                del parameter._current_grad_sample
        for layer in self._module.modules():
            for leftover in ("activations", "max_batch_len"):
                if hasattr(layer, leftover):
                    delattr(layer, leftover)


def _refuse_unsafe(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, _COUPLING):
            raise BadInput(f"layer {name or 'module'} ({type(layer).__name__}) keeps batch statistics; fold it or use GroupNorm")
        if isinstance(layer, _UNKEYED) and layer.p > 0:
            raise BadInput(f"layer {name or 'module'} ({type(layer).__name__}) draws outside the trial's streams; set p to 0")
        if getattr(layer, "padding_mode", "zeros") != "zeros" and any(p.requires_grad for p in layer.parameters(recurse=False)):
            raise BadInput(
                f"layer {name or 'module'} ({type(layer).__name__}) pads by {layer.padding_mode}, and its per-example gradient is computed "
                "for zeros; set padding_mode to zeros, or freeze it"
            )
    if not any(p.requires_grad for p in module.parameters()):
        raise BadInput("the module has no trainable parameter: choose another model.freeze")


@contextmanager
def _inputs_need_no_gradient() -> Iterator[None]:
    """Silences torch's note that a hook sees output gradients only: the rows are made from exactly those, and asking for
    gradients of the images as well would pay for a convolution that nobody reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield
