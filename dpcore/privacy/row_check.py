"""Proves the per-example gradients of a network on the spot: rows against single examples, and their sum against a plain gradient.

A rule for per-example gradients knows layers, not networks. It is silently wrong for a weight that is used beside its layer, for padding
that it does not know, for windows that are folded into the batch. A wrong row is clipped as if it were right: the sum that is noised is
then not the one whose sensitivity the claim states, or it trains on something else. No list of layers can exclude that; a comparison can.

The comparison costs one pass over a few PUBLIC examples and one over each. It reads no private data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcore.config import Precision
from dpcore.errors import Refused
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import PublicStreams

EXAMPLES = 3
_TOLERANCE: dict[Precision, float] = {"fp32": 1e-2, "bf16": 2e-1}
"""Largest error of a parameter's rows, relative to their norm. Rounding was at most 2e-5 in float32 on a CPU over four families of timm;
TF32 and bf16 round to 3 and 2 digits. Faults were 0.5 (circular padding) and 0.67 (a weight beside its layer)."""
_NEGLIGIBLE = 1e-4
"""Of the norm of all rows: below it a parameter's rows are rounding (a bias before a norm has the gradient 0)."""
_SPREAD = 0.02
_passed: set[tuple[str, Precision, str]] = set()
"""Name of the engine, precision, and digest of weights and examples, of each check that was passed in this process."""


@dataclass(frozen=True, kw_only=True)
class RowErrors:
    """Errors by parameter, relative to the norm of its right rows: of each row against its single example, of the sum, and of the
    clipped sum, which a private step takes without making rows."""

    rows: dict[str, float]
    total: dict[str, float]
    clipped: dict[str, float]

    @property
    def largest(self) -> float:
        """Over all parameters and comparisons."""
        return max([*self.rows.values(), *self.total.values(), *self.clipped.values()], default=0.0)


def row_errors(engine: GradientEngine, batch: Batch) -> RowErrors:
    """Compares the engine's rows of `batch` with plain gradients of its examples, one by one, and with that of all.

    Weights that are all zero hide what lies behind them (the last norm of a residual block, the second matrix of LoRA): for the comparison
    such a parameter takes small random numbers, and is zero again afterwards.
    """
    weights = engine.flat_weights()
    try:
        engine.set_flat_weights(_without_dead_parameters(engine, weights))
        rows = engine.rows(batch)
        single = torch.stack([engine.sum_gradient(batch[i : i + 1]) for i in range(len(batch))])
        total = engine.sum_gradient(batch)
        found, wanted = _clipped_sums(engine, batch, single)
    finally:
        engine.set_flat_weights(weights)
    return RowErrors(
        rows=_by_parameter(engine, rows, single),
        total=_by_parameter(engine, rows.sum(0, keepdim=True), total[None]),
        clipped=_by_parameter(engine, found[None], wanted[None]),
    )


def require_right_rows(engine: GradientEngine, batch: Batch, *, precision: Precision) -> None:
    """Checks the engine on `batch`, which must be of PUBLIC data.

    *Guarantees*: after it returns, each row is the gradient of its example alone, and the clipped sum is that of these rows, at these
    inputs, to rounding. Where an engine of the same name has passed in this process at the very same weights and examples, nothing could
    come out otherwise, and nothing is computed: the trials of a sweep begin at the same public start.

    Raises:
        Refused: it names the parameters whose rows are wrong, and by how much.
    """
    seen = None if engine.name is None else (engine.name, precision, _digest_of(*engine.module.state_dict().values(), *batch.tensors))
    if seen in _passed:
        return
    errors, tolerance = row_errors(engine, batch), _TOLERANCE[precision]
    wrong = {name: max(errors.rows[name], errors.total[name], errors.clipped[name]) for name in errors.rows}
    wrong = {name: error for name, error in wrong.items() if not error <= tolerance}
    if wrong:
        worst = sorted(wrong, key=wrong.__getitem__, reverse=True)
        shown = ", ".join(f"{name} ({wrong[name]:.2g})" for name in worst[:5])
        raise Refused(
            f"per-example gradients of this network are wrong: {len(wrong)} of {len(errors.rows)} parameters differ from single examples, "
            f"by a relative error of {shown}{', ...' if len(wrong) > 5 else ''}. Freeze these layers, or build them so that each weight is "
            "used by its own layer's forward and each example stays one row of the batch"
        )
    if seen is not None:
        _passed.add(seen)


def _digest_of(*tensors: Tensor) -> str:
    """64 hex digits over types, shapes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _clipped_sums(engine: GradientEngine, batch: Batch, single: Tensor) -> tuple[Tensor, Tensor]:
    """The engine's clipped sum of `batch`, and that of `single`, at a clip norm that scales some rows down. Rows without a finite norm
    have none: both sums are NaN then."""
    norms = single.to(torch.float64).norm(dim=1)
    clip_norm = float(norms.max()) / 2
    if not 0.0 < clip_norm < float("inf"):
        nothing = torch.full_like(single[0], 0.0 if clip_norm == 0.0 else float("nan"))
        return nothing, nothing
    found, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=clip_norm)
    factors = (clip_norm / norms).clamp(max=1.0)
    return found.value, (factors[:, None] * single.to(torch.float64)).sum(0)


def _without_dead_parameters(engine: GradientEngine, weights: Tensor) -> Tensor:
    generator = PublicStreams(0).torch_generator("row_check")
    alive, start = weights.clone(), 0
    for _, count in _sizes(engine):
        piece = alive[start : start + count]
        if not bool(piece.any()):
            piece.copy_(_SPREAD * torch.randn(count, generator=generator))
        start += count
    return alive


def _by_parameter(engine: GradientEngine, found: Tensor, wanted: Tensor) -> dict[str, float]:
    least = _NEGLIGIBLE * float(wanted.norm())
    errors, start = {}, 0
    for name, count in _sizes(engine):
        piece = slice(start, start + count)
        norm = float(wanted[:, piece].norm())
        errors[name] = float((found[:, piece] - wanted[:, piece]).norm()) / max(norm, least, 1e-30)
        start += count
    return errors


def _sizes(engine: GradientEngine) -> list[tuple[str, int]]:
    return [(name, p.numel()) for name, p in engine.module.named_parameters() if p.requires_grad]
