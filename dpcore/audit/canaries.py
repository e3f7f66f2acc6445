"""Canaries: synthetic records, each with its own gradient coordinate. A fair, secret coin decides whether a canary takes part.

The gradient of a Dirac record with respect to the weights of a linear map is the record itself, for any weights. So the released
value of a canary's coordinate is the noise plus its clipped contribution in the steps that drew it. Other canaries do not affect
it. A canary is a whole unit of privacy at its cap. Shapes: n canaries, D coordinates, P parameters.

Feature methods: canaries differ only in their private part. All views exist whether a canary is in or out. Each view is far on the
other side of its record, so code that makes two rows of a pair counts the canary twice.
Projected methods: the public gradients span the canaries' coordinates, so the canaries lie inside span(V).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcore.audit.tradeoff import Floats, step_scores
from dpcore.config import Precision, RuntimeFlags, TrialConfig
from dpcore.errors import BadInput
from dpcore.privacy.mechanism import Direction, Mechanism
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.randomness import Indices, PrivateStreams, PublicStreams, RandomStream, SweepKey
from dpcore.privacy.sources import Draw, Randomness, Sources
from dpcore.privacy.units import Units
from dpcore.train.physical_batch import WITHOUT_PROBE

Mask = NDArray[np.bool_]

AMPLITUDE = 4.0
"""Length of a canary in clip norms. Every canary is clipped, so it contributes as much as the claim allows."""

PUBLIC_AMPLITUDE = 100.0
"""Length of the public gradients along the canaries, which makes them the leading directions of any subspace."""


@dataclass(frozen=True, kw_only=True)
class HeldRecords:
    """Records (and their views) held in memory, for the mechanism to draw from."""

    records: Batch
    views: Batch | None = None

    def __len__(self) -> int:
        return len(self.records)

    def draw_geometry(self, stream: RandomStream, count: int) -> Draw:
        """None, because canaries are not augmented."""
        return None

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        """The records at `indices`."""
        return at(self.records, indices)

    def view_batch(self, indices: Indices, draw: Draw) -> Batch:
        """The views of the records at `indices`.

        Raises:
            BadInput: these records have no views.
        """
        if self.views is None:
            raise BadInput("these records have no views, but a feature method needs them")
        return at(self.views, indices)

    def copied(self, times: int) -> HeldRecords:
        """Each record repeated `times` times, with adjacent copies."""
        if times == 1:
            return self
        rows = np.repeat(np.arange(len(self)), times)
        return HeldRecords(records=at(self.records, rows), views=None if self.views is None else at(self.views, rows))


def at(batch: Batch, indices: NDArray[np.int64]) -> Batch:
    """The examples of `batch` at `indices`."""
    rows = torch.from_numpy(indices)
    return Batch(*(tensor[rows] for tensor in batch.tensors))


def dirac_batch(inputs: Tensor, *, joints: int = 1) -> Batch:
    """Inputs (B, ...) with labels that nothing reads."""
    count = len(inputs)
    return Batch(inputs, torch.zeros(count, joints, 2), torch.zeros(count, joints, dtype=torch.bool))


def dirac_engine(coordinates: int, precision: Precision) -> GradientEngine:
    """Gradients of a linear map whose loss is its output: ∇ℓ(x) = x (D,)."""
    module = nn.Linear(coordinates, 1, bias=False)
    nn.init.zeros_(module.weight)
    return GradientEngine(module, lambda linear, batch: linear(batch.inputs)[:, 0], precision=precision)


def coins(key: SweepKey, run: int, canaries: int) -> Mask:
    """Draws which canaries of a run are in: fair, secret, independent coins."""
    return np.asarray(PrivateStreams(key=key, trial_id="audit-coins").stream("coins", run).uniform(canaries) < 0.5)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A claim under attack: a trial's settings, its plan (q, T, noise multiplier, ε, δ), and its runtime."""

    config: TrialConfig
    plan: PrivacyPlan
    runtime: RuntimeFlags

    @property
    def clip_norm(self) -> float:
        """C of the claim.

        Raises:
            BadInput: the trial clips nothing, so there is no claim to attack.
        """
        if self.config.clip_norm is None:
            raise BadInput(f"method {self.config.method} clips nothing: there is no claim to attack")
        return self.config.clip_norm


def marked(directions: Tensor, is_in: Mask, target: Target) -> tuple[Tensor, Tensor]:
    """The canaries that take part, as rows along their `directions` (n, D), and their views.

    For an add/remove claim, only canaries that are in take part. For a claim of replacement, all take part: a canary that is out is
    replaced by a record on the other side, far enough for its clipped residual to be the antipode at any λ.
    """
    length, here = AMPLITUDE * target.clip_norm, torch.from_numpy(is_in)
    if target.plan.relation == "add_remove":
        return length * directions[here], -length * directions[here]
    sides = torch.where(here, length, -2.0 * length)
    return sides[:, None] * directions, -length * directions


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """One attacked run: its private and public data, and its releases.

    Args:
        target: the claim. Its config has sizes that fit the canaries.
        engine: computes gradients.
        records: the canaries that are in, and all other records that take part.
        views: the public views of all canaries, in or out; None without a feature method.
        public: the PUBLIC examples behind a subspace; None without a projected method.
    """

    target: Target
    engine: GradientEngine
    records: HeldRecords
    views: HeldRecords | None
    public: HeldRecords | None

    def mechanism(self, key: SweepKey, run: int, build: Callable[..., Mechanism] = Mechanism) -> Mechanism:
        """The project's mechanism on these records, under the secret streams of `run`."""
        return build(
            self.target.config,
            self.engine,
            sources=self._sources(self.records),
            randomness=self._randomness(key, f"audit-{run}"),
            noise_multiplier=self.target.plan.noise_multiplier,
            physical_batch_size=self._physical,
        )

    def bystander(self) -> Mechanism | None:
        """The same run without any private record, under its own key. Anyone who knows the public inputs can make it and so knows the
        public term. None if there is no public term."""
        if not self.target.config.traits.uses_views or self.target.config.public_weight == 0.0:
            return None
        plain: dict[str, object] = {"method": "feature", "subspace.rank": None, "subspace.source": "public"}
        nobody = HeldRecords(records=self.records.records[:0], views=None if self.records.views is None else self.records.views[:0])
        return Mechanism(
            self.target.config.changed(**plain),
            self.engine,
            sources=self._sources(nobody),
            randomness=self._randomness(SweepKey.fresh(), "audit-bystander"),
            noise_multiplier=self.target.plan.noise_multiplier,
            physical_batch_size=self._physical,
        )

    @property
    def _physical(self) -> int:
        size = self.target.runtime.physical_batch_size
        return WITHOUT_PROBE if size == "auto" else size

    def _sources(self, records: HeldRecords) -> Sources:
        """Makes each record a unit at its cap: as many copies as a unit may contribute."""
        copies = self.target.config.examples_per_unit
        return Sources(
            private=records.copied(copies),
            views=None if self.views is None else self.views.copied(copies),
            public=self.public,
            private_units=_units(len(records), copies),
            view_units=None if self.views is None else _units(len(self.views), copies),
        )

    def _randomness(self, key: SweepKey, trial_id: str) -> Randomness:
        runtime = self.target.runtime
        noise_device = runtime.device if runtime.noise_on_device else None
        private = PrivateStreams(key=key, trial_id=trial_id, secure=runtime.secure_rng, noise_device=noise_device)
        return Randomness(private=private, public=PublicStreams(self.target.config.seed))


def _units(count: int, copies: int) -> Units:
    return Units.of_ids(np.repeat(np.arange(count).astype(np.str_), copies))


class Eavesdropper:
    """Reads each released direction and keeps the score (n,) of each canary.

    The score is the log of the likelihood ratio of the released values of its coordinate under the claim's law. The known public term
    is subtracted first.
    """

    def __init__(self, attacked: Attacked, canaries: int) -> None:
        target = attacked.target
        self._claim = target.plan.spending
        self._bystander = attacked.bystander()
        weight = 1.0 if target.config.private_weight is None else target.config.private_weight
        self._unit = target.config.stages.private.expected_batch_size / (weight * target.clip_norm)
        self.scores: Floats = np.zeros(canaries)

    def hear(self, step: int, direction: Direction) -> None:
        """Reads the release of `step`, while the weights are still those of this step."""
        released = direction.value[: len(self.scores)].double()
        known = None if self._bystander is None else self._bystander.direction(step).public_term
        if known is not None:
            released = released - known[: len(self.scores)].double()
        self.scores += step_scores(np.asarray((self._unit * released).cpu().numpy(), dtype=np.float64), self._claim)


def fitted_to_canaries(config: TrialConfig, *, canaries: int, others: int, steps: int) -> TrialConfig:
    """The config with sizes that fit `canaries` at a time beside `others` public examples, for `steps` steps.

    Method, C, λ, α, order of projection, unit and cap, q and nominal N stay, because they are under attack. Rank and number of public
    examples do not affect the claim. The subspace is fitted once, because its examples are the same at each step, and to plain gradients:
    public canaries have no views.
    """
    changes: dict[str, object] = {"stages.private.steps": steps}
    if config.traits.uses_views:
        changes["public_batch_size"] = max(1, (canaries + others) // 4)
    if config.traits.projects and config.subspace.rank != "full":
        changes["subspace.gradients"] = "plain"
        changes |= {"subspace.rank": canaries + others, "subspace.examples": canaries + others, "subspace.refresh_steps": None}
    return config.changed(**changes)
