"""The body of the training loop: a released direction, an optimizer step, an average, and their state in a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dpcore.config import TrialConfig
from dpcore.data.catalog import unit_ids
from dpcore.errors import BadInput, Corrupt
from dpcore.privacy.accounting import Spending, verify_executed
from dpcore.privacy.mechanism import Mechanism, Sealed, needs_fitted_basis
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.sources import Sources
from dpcore.privacy.units import Units
from dpcore.train.checkpoint import Checkpoint
from dpcore.train.inputs import NO_AUGMENTATION, InputBuilder
from dpcore.train.optimizer import OptimizerState, averaged, updated
from dpcore.train.trial_data import TrialData, needs_pairs


@dataclass(frozen=True)
class Progress:
    """After `step` steps: training weights (P,), their moving average (None without EMA), optimizer state."""

    step: int
    weights: Tensor
    average: Tensor | None
    optimizer: OptimizerState

    @classmethod
    def start(cls, weights: Tensor, *, averages: bool) -> Progress:
        """Before the first step; the average starts at the public start."""
        return cls(0, weights, weights if averages else None, OptimizerState.zero(weights))

    @property
    def evaluated(self) -> Tensor:
        """The weights that are scored and kept."""
        return self.weights if self.average is None else self.average

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        average = {} if self.average is None else {"average": self.average}
        return {"weights": self.weights, **average, **self.optimizer.tensors()}

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, *, averages: bool) -> Progress:
        """The inverse of `tensors`.

        Raises:
            Corrupt: a tensor is missing.
        """
        tensors = checkpoint.tensors
        missing = [name for name in ("weights", *(("average",) if averages else ())) if name not in tensors]
        if missing:
            raise Corrupt(f"the checkpoint of step {checkpoint.step} lacks {', '.join(missing)}; remove it to replay from the start")
        average = tensors["average"] if averages else None
        return cls(checkpoint.step, tensors["weights"], average, OptimizerState.of_tensors(tensors))


def end_of(config: TrialConfig) -> int:
    """How many private steps the trial takes: none for public_only, which is its start."""
    return 0 if config.traits.private_sum == "none" else config.stages.private.steps


def sources_of(config: TrialConfig, *, data: TrialData, builder: InputBuilder) -> Sources:
    """Exactly the sources that the method reads. A control gets no private data. Only a projected method with a fitted subspace gets
    the PUBLIC dataset.

    Raises:
        BadInput: a feature method has no views.
    """
    if config.traits.uses_views and data.views is None:
        raise BadInput(f"method {config.method} needs public views: give the config a split")
    reads_views = data.views is not None and config.traits.uses_views
    units = Units.of_ids(unit_ids(data.private, config.privacy_unit))
    return Sources(
        private=None
        if config.is_control
        else builder.records(data.private, data.views if needs_pairs(config) else None, config.augmentation),
        views=builder.view_examples(data.views, config.augmentation) if reads_views and data.views is not None else None,
        public=builder.records(data.public, data.public_views, NO_AUGMENTATION)
        if needs_fitted_basis(config) and config.subspace.source == "public"
        else None,
        private_units=None if config.is_control else units,
        view_units=units if reads_views else None,
    )


class PrivateSteps:
    """Advances a trial step by step."""

    def __init__(self, config: TrialConfig, engine: GradientEngine, mechanism: Mechanism) -> None:
        self._config = config
        self._engine = engine
        self._mechanism = mechanism
        self._seen: list[Sealed] = []
        self._since = time.monotonic()
        self._steps_since = 0

    def advance(self, progress: Progress) -> Progress:
        """One step: direction at the current weights, then the optimizer, then the average."""
        direction = self._mechanism.direction(progress.step)
        weights, state = updated(
            self._config.optimizer,
            progress.weights,
            direction=direction.value,
            state=progress.optimizer,
            at=(progress.step, self._config.stages.private.steps),
            noise_variance=self._mechanism.noise_variance() if self._config.optimizer.dp_bias_correction else None,
        )
        self._engine.set_flat_weights(weights)
        self._steps_since += 1
        if direction.sealed is not None:
            self._seen.append(direction.sealed)
        decay = self._config.ema_decay
        average = None if progress.average is None or decay is None else averaged(progress.average, weights, decay)
        return Progress(progress.step + 1, weights, average, state)

    def observed(self) -> dict[str, float]:
        """Means over the steps since the last call or checkpoint: facts of private batches, and wall times. Only for data that is not
        protected. A checkpoint does not hold them, and an undisturbed run resets them at a checkpoint too."""
        metrics = {"time/step_s": (time.monotonic() - self._since) / max(self._steps_since, 1)}
        losses = [loss for loss in (s.mean_loss for s in self._seen) if math.isfinite(loss)]
        if losses:
            metrics["train/loss"] = sum(losses) / len(losses)
        if self._seen:
            metrics["train/clipped_frac"] = sum(s.clipped_frac for s in self._seen) / len(self._seen)
        self._forget_observed()
        return metrics

    def _forget_observed(self) -> None:
        self._seen, self._steps_since, self._since = [], 0, time.monotonic()

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Everything that a resumed run needs: weights, average, optimizer state, subspace. Streams have no state."""
        self._forget_observed()
        return Checkpoint(progress.step, {**progress.tensors(), **self._mechanism.state()})

    def resume(self, checkpoint: Checkpoint) -> Progress:
        """Continues after `checkpoint.step` steps."""
        progress = Progress.of_checkpoint(checkpoint, averages=self._config.ema_decay is not None)
        progress = _on_device_of(self._engine, progress)
        state: Mapping[str, Tensor] = {name: tensor.to(self._engine.device) for name, tensor in checkpoint.tensors.items()}
        self._mechanism.resume(checkpoint.step, state)
        self._engine.set_flat_weights(progress.weights)
        return progress

    @property
    def executed(self) -> Spending | None:
        """What the mechanism has released so far; None where nothing is released under noise."""
        return self._mechanism.executed

    def verify(self, plan: PrivacyPlan | None) -> None:
        """Compares what ran with what was planned.

        Raises:
            NotAsPlanned: they differ.
        """
        executed = self._mechanism.executed
        if plan is not None and executed is not None:
            verify_executed(plan, executed)


def _on_device_of(engine: GradientEngine, progress: Progress) -> Progress:
    device = engine.device
    average = None if progress.average is None else progress.average.to(device)
    optimizer = OptimizerState(progress.optimizer.first.to(device), progress.optimizer.second.to(device))
    return Progress(progress.step, progress.weights.to(device), average, optimizer)
