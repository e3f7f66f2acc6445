"""Plain training on public examples: a number of steps, or until a held-out tenth stops improving.

Deterministic from public streams: equal arguments give equal weights in every process with the same runtime. A batch's gradient is the sum
of those of its two halves, on every machine. So two cores may take a half each, where everything else waits for the result anyway, and
the weights are the same, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from dpcore.gradients.batch import Batch, Loss
from dpcore.gradients.scales import Scales
from dpcore.privacy.randomness import Indices, PublicStreams, choose_without_replacement
from dpcore.train.evaluator import mean_loss
from dpcore.train.hearing import tell
from dpcore.train.sources import Examples

EVALUATE_EVERY_STEPS = 50
PATIENCE = 4
"""Evaluations without a new best before the learning rate drops: 200 steps of 64 are three passes over 4,000 views."""
LOOKS = 20
"""How often a stage `until: best` is looked at."""
RATE_DROPS = 2
RATE_DROP_FACTOR = 0.25
LEAST_GAIN_FRAC = 1e-3
"""A smaller relative gain of the held-out loss is no improvement: on LSPET-sized sets it is below its noise."""


@dataclass(frozen=True, kw_only=True)
class PublicFit:
    """What is trained, on what, and from which streams.

    Attributes:
        scales: what each trained tensor moves by, as a share of the learning rate.
        is_awaited: whether other trials wait for it, so that their cores are free: where this process has two for each of torch's
            threads, a second one takes half of every batch. Its network may draw nothing at random.
    """

    tail: nn.Module
    examples: Examples
    loss: Loss
    streams: PublicStreams
    name: str
    batch_size: int
    learning_rate: float
    scales: Scales | None = None
    is_awaited: bool = False

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that move, in the order of `scales`."""
        return [p for p in self.tail.parameters() if p.requires_grad]


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
    optimizer = _Adam(fit)
    everything = np.arange(len(fit.examples))
    for step, gradients in _gradients(fit, everything, steps):
        optimizer.rate = fit.learning_rate * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        optimizer.descend(gradients)
    return FitOutcome(steps=steps, holdout_loss=None, converged=False)


def train_to_best(fit: PublicFit, steps: int, *, held_out: Indices) -> FitOutcome:
    """As `train_steps` without the examples of `held_out`; leaves the weights in `fit.tail` whose loss on these was the lowest.

    They are looked at `LOOKS` times on the way and at the start, so the result is never worse than the start on the held-out part.

    Raises:
        BadInput: the batch is larger than what is left of the set.
    """
    optimizer, every = _Adam(fit), max(1, steps // LOOKS)
    best_loss, best, best_step = mean_loss(fit.tail, fit.examples, indices=held_out, loss=fit.loss), _copy_of(fit.tail), 0
    for step, gradients in _gradients(fit, np.setdiff1d(np.arange(len(fit.examples)), held_out), steps):
        optimizer.rate = fit.learning_rate * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        optimizer.descend(gradients)
        if (step + 1) % every and step + 1 < steps:
            continue
        held_out_loss = mean_loss(fit.tail, fit.examples, indices=held_out, loss=fit.loss)
        if held_out_loss < best_loss:
            best_loss, best, best_step = held_out_loss, _copy_of(fit.tail), step + 1
    fit.tail.load_state_dict(best)
    return FitOutcome(steps=best_step, holdout_loss=best_loss, converged=best_step < steps)


def train_to_convergence(fit: PublicFit, *, held_out: Indices, max_steps: int) -> FitOutcome:
    """Adam until the loss on `held_out` has stopped falling at every learning rate; leaves the best weights in `fit.tail`.

    After `PATIENCE` evaluations without a gain it goes back to the best weights and drops the learning rate, twice at
    most. The starting weights count as the first candidate, so the result is never worse than them on the held-out part.
    """
    kept = np.setdiff1d(np.arange(len(fit.examples)), held_out)
    best_loss, best = mean_loss(fit.tail, fit.examples, indices=held_out, loss=fit.loss), _copy_of(fit.tail)
    optimizer, rate, since_best, drops = _Adam(fit), fit.learning_rate, 0, 0
    for step, gradients in _gradients(fit, kept, max_steps):
        optimizer.descend(gradients)
        if (step + 1) % EVALUATE_EVERY_STEPS:
            continue
        held_out_loss = mean_loss(fit.tail, fit.examples, indices=held_out, loss=fit.loss)
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
        optimizer = _Adam(fit)
        optimizer.rate = rate
    fit.tail.load_state_dict(best)
    return FitOutcome(steps=max_steps, holdout_loss=best_loss, converged=False)


def _gradients(fit: PublicFit, pool: Indices, steps: int) -> Iterator[tuple[int, Sequence[Tensor | None]]]:
    """(step, gradient of its batch's mean loss) at the weights of that moment, the batch drawn without replacement from `pool`."""
    with _second_core(fit) as helper:
        for step in range(steps):
            fit.tail.train()
            generator = fit.streams.generator(f"{fit.name}.batch", step)
            indices = pool[choose_without_replacement(generator, len(pool), fit.batch_size, what=f"batch_size of the stage {fit.name}")]
            draw = fit.examples.draw_geometry(fit.streams.stream(f"{fit.name}.augmentation", step), len(indices))
            yield step, _gradient(fit, fit.examples.batch(indices, draw), helper)
            tell("public training, step", step + 1, steps)


def _second_core(fit: PublicFit) -> AbstractContextManager[Executor | None]:
    """A thread for half of each batch; None where there is no core for it, or somebody else needs it."""
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_free = fit.is_awaited and fit.examples.device.type == "cpu" and cores >= 2 * threads
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) if is_free else nullcontext()


def _gradient(fit: PublicFit, batch: Batch, helper: Executor | None) -> Sequence[Tensor | None]:
    """The gradient of the mean loss by parameter, None where it does not depend on one: on a CPU that of the first half plus that of the
    second. A GPU takes the batch whole: two small passes would take it twice as long."""
    trained, middle = fit.trained, (len(batch) + 1) // 2

    def of(half: Batch) -> tuple[Tensor | None, ...]:
        total = fit.loss(fit.tail, half).sum() / len(batch)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(total, trained, allow_unused=True)
        return found

    if middle == len(batch) or fit.examples.device.type != "cpu":
        return of(batch)
    later = None if helper is None else helper.submit(of, batch[middle:])
    first = of(batch[:middle])
    second = of(batch[middle:]) if later is None else later.result()
    return [one if other is None else other if one is None else one.add_(other) for one, other in zip(first, second, strict=True)]


class _Adam:
    """Adam on a fit's parameters (Kingma and Ba 2015), by torch's own function and with its defaults.

    The class `torch.optim.Adam` does the same to the bit, but its constructor imports torch's compiler: more than a second of every worker.
    A tensor without a gradient stays. A tensor in units of its scale is one whose rate is scaled, because a step has the size of its rate.
    """

    def __init__(self, fit: PublicFit) -> None:
        self.rate = fit.learning_rate
        trained = fit.trained
        scales = [1.0] * len(trained) if fit.scales is None else list(fit.scales)
        self._states = [_AdamState(p, scale, torch.zeros_like(p), torch.zeros_like(p)) for p, scale in zip(trained, scales, strict=True)]

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor | None]) -> None:
        """One step along the gradients of the fit's parameters, in their order."""
        moved = [(state, gradient) for state, gradient in zip(self._states, gradients, strict=True) if gradient is not None]
        for scale in dict.fromkeys(state.scale for state, _ in moved):
            states = [(state, gradient) for state, gradient in moved if state.scale == scale]
            adam(
                [state.parameter for state, _ in states],
                [gradient for _, gradient in states],
                [state.mean for state, _ in states],
                [state.square for state, _ in states],
                [],
                [state.steps for state, _ in states],
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.rate * scale,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )


@dataclass(frozen=True, eq=False)
class _AdamState:
    """A parameter, the share of the rate that it moves by, and its moving averages."""

    parameter: nn.Parameter
    scale: float
    mean: Tensor
    square: Tensor
    steps: Tensor = field(default_factory=lambda: torch.zeros(()))


def _copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
