"""Plain training on public examples: a number of steps, or until a held-out tenth stops improving.

Deterministic from public streams: equal arguments give equal weights in every process with the same runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.pose.codec import SimCCCodec
from dpcore.privacy.randomness import Indices, PublicStreams, choose_without_replacement
from dpcore.train.evaluator import loss_of, mean_loss
from dpcore.train.sources import Examples

EVALUATE_EVERY_STEPS = 50
PATIENCE = 4
"""Evaluations without a new best before the learning rate drops: 200 steps of 64 are three passes over 4,000 views."""
RATE_DROPS = 2
RATE_DROP_FACTOR = 0.25
LEAST_GAIN_FRAC = 1e-3
"""A smaller relative gain of the held-out loss is no improvement: on LSPET-sized sets it is below its noise."""


@dataclass(frozen=True, kw_only=True)
class PublicFit:
    """What is trained, on what, and from which streams."""

    tail: nn.Module
    examples: Examples
    codec: SimCCCodec
    streams: PublicStreams
    name: str
    batch_size: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """How a fit ended: steps taken, and the best held-out loss (None where nothing was held out)."""

    steps: int
    holdout_loss: float | None
    converged: bool


def train_steps(fit: PublicFit, steps: int) -> FitOutcome:
    """`steps` steps of Adam under a half cosine, over all examples.

    Raises:
        BadInput: the batch is larger than the set.
    """
    optimizer = _adam(fit)
    everything = np.arange(len(fit.examples))
    for step, loss in _losses(fit, everything, steps):
        _set_rate(optimizer, fit.learning_rate * 0.5 * (1.0 + np.cos(np.pi * step / steps)))
        _descend(optimizer, loss)
    return FitOutcome(steps=steps, holdout_loss=None, converged=False)


def train_to_convergence(fit: PublicFit, *, held_out: Indices, max_steps: int) -> FitOutcome:
    """Adam until the loss on `held_out` has stopped falling at every learning rate; leaves the best weights in `fit.tail`.

    After `PATIENCE` evaluations without a gain it goes back to the best weights and drops the learning rate, twice at
    most. The starting weights count as the first candidate, so the result is never worse than them on the held-out part.
    """
    kept = np.setdiff1d(np.arange(len(fit.examples)), held_out)
    best_loss, best = mean_loss(fit.tail, fit.examples, indices=held_out, codec=fit.codec), _copy_of(fit.tail)
    optimizer, rate, since_best, drops = _adam(fit), fit.learning_rate, 0, 0
    for step, loss in _losses(fit, kept, max_steps):
        _descend(optimizer, loss)
        if (step + 1) % EVALUATE_EVERY_STEPS:
            continue
        held_out_loss = mean_loss(fit.tail, fit.examples, indices=held_out, codec=fit.codec)
        if held_out_loss < best_loss * (1.0 - LEAST_GAIN_FRAC):
            best_loss, best, since_best = held_out_loss, _copy_of(fit.tail), 0
            continue
        since_best += 1
        if since_best < PATIENCE:
            continue
        fit.tail.load_state_dict(best)
        if drops == RATE_DROPS:
            return FitOutcome(steps=step + 1, holdout_loss=best_loss, converged=True)
        drops, since_best, rate = drops + 1, 0, rate * RATE_DROP_FACTOR
        optimizer = _adam(fit)
        _set_rate(optimizer, rate)
    fit.tail.load_state_dict(best)
    return FitOutcome(steps=max_steps, holdout_loss=best_loss, converged=False)


def _losses(fit: PublicFit, pool: Indices, steps: int) -> Iterator[tuple[int, Tensor]]:
    """(step, mean loss of its batch) at the weights of that moment, the batch drawn without replacement from `pool`."""
    loss = loss_of(fit.codec)
    for step in range(steps):
        fit.tail.train()
        generator = fit.streams.generator(f"{fit.name}.batch", step)
        indices = pool[choose_without_replacement(generator, len(pool), fit.batch_size, what=f"batch_size of the stage {fit.name}")]
        draw = fit.examples.draw_geometry(fit.streams.stream(f"{fit.name}.augmentation", step), len(indices))
        yield step, loss(fit.tail, fit.examples.batch(indices, draw)).mean()


def _adam(fit: PublicFit) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in fit.tail.parameters() if p.requires_grad], lr=fit.learning_rate)


def _set_rate(optimizer: torch.optim.Adam, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _descend(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
