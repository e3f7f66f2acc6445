"""A small training problem with canaries, for the audits that use the real training loop.

The network is a real tail of the project (the last block and head of the small backbone, or only its head), and one linear map with a
weight for each canary. The loss of an example is its pose loss plus the output of that map. A canary has no visible joint, so its
gradient is Dirac in its own weight. An ordinary example has zeros in the canaries' coordinates. All other weights train as in any
trial. Images and labels are random numbers, so nothing private is read and no budget is spent.
Shapes: B examples, n canaries, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.audit.canaries import AMPLITUDE, PUBLIC_AMPLITUDE, Attacked, HeldRecords, Mask, Target, fitted_to_canaries, marked
from dpcore.config import ModelConfig, PckMassConfig, Places, TrialConfig
from dpcore.config.losses import SIMCC
from dpcore.model.network import build_network, codec_of
from dpcore.pose.loss import simcc_loss
from dpcore.privacy.mechanism import Direction, Mechanism
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import PublicStreams
from dpcore.train.private_steps import PrivateSteps, Progress

JOINTS = 16
ORDINARY = 16
"""Number of ordinary records, and of PUBLIC examples: enough to move the network, too few to slow the audit."""


class CanaryNetwork(nn.Module):
    """A tail of the pose network, and one weight for each canary: inputs (B, n + numbers of the tail's input)."""

    def __init__(self, tail: nn.Module, *, canaries: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        # first, so that the canaries' weights are the first of the flat vector
        self.canary = nn.Linear(canaries, 1, bias=False)
        self.tail = tail
        self.canaries, self.shape = canaries, shape
        nn.init.zeros_(self.canary.weight)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        marks, features = inputs[:, : self.canaries], inputs[:, self.canaries :]
        logits_x, logits_y = self.tail(features.reshape(len(inputs), *self.shape))
        return self.canary(marks)[:, 0], logits_x, logits_y


@dataclass(frozen=True, kw_only=True)
class SmallProblem:
    """The size of the training problem.

    Args:
        model: the small network. Its `freeze` says which part trains.
        canaries: number of canaries in one run.
        steps: number of steps of one run.
    """

    model: ModelConfig
    canaries: int
    steps: int

    def config(self, config: TrialConfig) -> TrialConfig:
        """`config` with the network, its loss, sizes and steps of this problem. q and nominal N stay."""
        fitted = fitted_to_canaries(config, canaries=self.canaries, others=ORDINARY, steps=self.steps)
        return fitted.changed(model=self.model.model_dump(mode="json"), loss=SIMCC, pck_mass=PckMassConfig().model_dump())


def attacked_training(problem: SmallProblem, target: Target, is_in: Mask) -> Attacked:
    """The training problem with the canaries of `is_in` (n,) among its records. The target's config is `problem.config(...)`."""
    config = target.config
    public = PublicStreams(config.seed)
    nowhere = Places(data_dir=Path(), cache_dir=Path())  # the small network reads no file
    split = build_network(problem.model, nowhere, generator=public.torch_generator("audit_network")).split(problem.model.freeze)
    features = _features(split.stem, problem.model, public)
    network = CanaryNetwork(split.tail, canaries=problem.canaries, shape=tuple(features.shape[1:]))
    codec = codec_of(problem.model)

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        marks, logits_x, logits_y = module(batch.inputs)
        losses: Tensor = marks + simcc_loss(logits_x, logits_y, batch.keypoints, batch.visible, codec)
        return losses

    marks = torch.eye(problem.canaries)
    rows, own_views = marked(marks, is_in, target)
    blurred, paired = 0.5 * features[:ORDINARY], config.traits.uses_views

    def held(marks: Tensor, others: Tensor) -> HeldRecords:
        return HeldRecords(records=_records(marks, others, problem.model))

    return Attacked(
        target=target,
        engine=GradientEngine(network, loss, precision=target.runtime.precision),
        records=HeldRecords(
            records=_records(rows, features[:ORDINARY], problem.model),
            views=_records(own_views, blurred, problem.model) if paired else None,
        ),
        views=held(-AMPLITUDE * target.clip_norm * marks, blurred) if paired else None,
        public=held(PUBLIC_AMPLITUDE * marks, features[ORDINARY:]) if config.traits.projects else None,
    )


def _features(stem: nn.Module, model: ModelConfig, public: PublicStreams) -> Tensor:
    """The input of the tail for random images: (2·ORDINARY, C, h, w)."""
    pixels = 3 * model.input_height_px * model.input_width_px
    numbers = public.generator("audit_images").uniform(-1.0, 1.0, (2 * ORDINARY, pixels)).astype(np.float32)
    images = torch.from_numpy(numbers).view(2 * ORDINARY, 3, model.input_height_px, model.input_width_px)
    with torch.no_grad():
        features: Tensor = stem(images)
    return features


def _records(marks: Tensor, features: Tensor, model: ModelConfig) -> Batch:
    """Canaries with their `marks` (c, n), then the ordinary examples of `features`, whose joints lie on a diagonal."""
    numbers = features.flatten(1)
    inputs = torch.cat([functional.pad(marks, (0, numbers.shape[1])), functional.pad(numbers, (marks.shape[1], 0))])
    places = torch.linspace(2.0, model.input_width_px - 3.0, JOINTS)
    visible = torch.zeros(len(inputs), JOINTS, dtype=torch.bool)
    visible[len(marks) :] = True
    return Batch(inputs, places.repeat(2, 1).T.expand(len(inputs), JOINTS, 2).contiguous(), visible)


Listener = Callable[[int, Direction], None]


class Overheard(Mechanism):
    """The mechanism with a listener that reads each released direction at the weights of its step."""

    def __init__(self, listener: Listener, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listener = listener

    def direction(self, step: int) -> Direction:
        released = super().direction(step)
        self._listener(step, released)
        return released


def train(attacked: Attacked, mechanism: Mechanism) -> Tensor:
    """Runs all steps through the trainer's own loop and returns the released weights (P,)."""
    config, engine = attacked.target.config, attacked.engine
    loop = PrivateSteps(config, engine, mechanism)
    progress = Progress.start(engine.flat_weights(), averages=config.ema_decay is not None)
    for _ in range(config.stages.private.steps):
        progress = loop.advance(progress)
    loop.verify(attacked.target.plan)
    return progress.evaluated
