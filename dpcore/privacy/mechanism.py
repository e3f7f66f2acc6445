"""The private mechanism, once: sample → per-example gradient → clip → sum → noise → post-process.

| method | private sum S | update direction |
|---|---|---|
| dpsgd | Σ clip_C(∇ℓ(x)) | (S + σC·N(0, I_P)) / B |
| projected | the same | V Vᵀ of the above |
| feature | Σ clip_C(∇ℓ(x) − λ∇ℓ(ψ(x))) | λ ḡ_pub + α (S + σC·N(0, I_P)) / B |
| feature_projected | the same | λ ḡ_pub + α V Vᵀ (S + σC·N(0, I_P)) / B |
| nonprivate | – | Σ ∇ℓ(x) / B, no clip and no noise: ε is infinite |

A step draws units of privacy. ∇ℓ(x) stands for the mean over the chosen examples of a drawn unit (`units`), one row a unit.
B is the constant `expected_batch_size`, never the realised size. The noise is drawn in R^k where a basis of rank k is used:
V Vᵀ(g + N(0, I_P)) and V(Vᵀg + N(0, I_k)) have one law. λ = 0 and `subspace.rank: full` run the code of the method they
reduce to, so they equal it bit for bit.

Private batch, public batch and subspace batch come from three independent streams; only the first is secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dpcore.config import TrialConfig
from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import Spending
from dpcore.privacy.basis_fit import fit_to_public
from dpcore.privacy.clipping import BoundedSum, Count, clip_rows
from dpcore.privacy.directions import direction_of
from dpcore.privacy.noise import add_noise
from dpcore.privacy.per_example import Batch, GradientEngine, RowsAndLosses
from dpcore.privacy.randomness import Indices, PrivateStreams, RandomStream, choose_without_replacement, poisson_sample
from dpcore.privacy.sources import Draw, Draws, ExampleSource, Randomness, RecordSource, Sources
from dpcore.privacy.subspace import SubspaceBasis
from dpcore.privacy.units import Chosen, UnitRows, Units

__all__ = ["Direction", "Draw", "ExampleSource", "Mechanism", "Randomness", "RecordSource", "Sealed", "Sources"]

BASIS_KEY = "subspace.directions"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sealed:
    """Facts of one private batch. For protected data they leave the worker in no way: no metric, log or file.

    On a GPU they stay there until somebody asks: a step waits for none of them.

    Args:
        batch_size: Units drawn; `drawn` (batch_size,) says which, `examples` (E,) with which rows of the dataset.
        clipped: Units whose row was scaled down.
        nonfinite: Rows dropped because they held inf, nan or a norm beyond float32.
        loss_sum: Over the examples; nan where nobody looked.
    """

    batch_size: int = field(repr=False)
    clipped: Count = field(repr=False)
    nonfinite: Count = field(repr=False)
    loss_sum: Tensor | float = field(repr=False)
    drawn: Indices = field(repr=False)
    examples: Indices = field(repr=False)

    @property
    def clipped_frac(self) -> float:
        """Share of the units whose row was scaled down."""
        return int(self.clipped) / self.batch_size if self.batch_size else 0.0

    @property
    def mean_loss(self) -> float:
        """Over the examples; nan for none."""
        return float(self.loss_sum) / len(self.examples) if self.batch_size else math.nan


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What a step releases: `value` (P,) float32, a descent direction in place of the gradient.

    `event` says what the accountant must know of this step: a Poisson-subsampled Gaussian, a release without privacy, or
    (control) nothing. `public_term` (P,) is λ ḡ_pub, a function of public inputs. `sealed` is None without private data.
    """

    value: Tensor
    event: Literal["subsampled_gaussian", "non_private"] | None
    public_term: Tensor | None
    sealed: Sealed | None


class Mechanism:
    """Turns private records into released directions, one step at a time.

    Guarantees: removing a unit changes `direction` of a step only through a sum that moves by at most `clip_norm` and
    carries noise_multiplier × clip_norm of Gaussian noise; every other input of a direction is public. Steps are executed
    in order, each once, at most as many as planned: two sums under one noise would reveal their difference.
    Assumes: `noise_multiplier` was calibrated for all steps of the config; a resume that is not an exact replay comes with a
    new `attempt` in the private streams and a new charge.

    Args:
        config: The trial.
        engine: Gradients at the current weights; the caller moves the weights between steps.
        sources: The data.
        randomness: The streams.
        noise_multiplier: For private methods; None where nothing private is released under noise.
        physical_batch_size: Examples a forward pass; changes nothing but rounding.

    Raises:
        BadInput: the method lacks a source, its key or its noise multiplier.
    """

    def __init__(
        self,
        config: TrialConfig,
        engine: GradientEngine,
        *,
        sources: Sources,
        randomness: Randomness,
        noise_multiplier: float | None,
        physical_batch_size: int,
    ) -> None:
        _check_inputs(config, sources, randomness, noise_multiplier)
        _check_sizes(config, sources, engine.parameter_count)
        self._config = config
        self._engine = engine
        self._sources = sources
        self._private_units = _units_of(sources.private, sources.private_units)
        self._view_units = _units_of(sources.views, sources.view_units)
        self._randomness = randomness
        self._noise_multiplier = noise_multiplier
        self._physical, self._copies = physical_batch_size, config.augmentation.multiplicity
        self._records_at_once = max(1, physical_batch_size // self._copies)
        self._next_step = 0
        self._basis: SubspaceBasis | None = None
        self._gaussian_steps = 0

    @property
    def executed(self) -> Spending | None:
        """The private releases so far, for `accounting.verify_executed`; None for a method that makes none under a finite ε."""
        if self._noise_multiplier is None:
            return None
        return Spending(self._config.sampling_prob, self._noise_multiplier, self._gaussian_steps, self._config.relation)

    @property
    def basis(self) -> SubspaceBasis | None:
        """The subspace in use, None before the first step."""
        return self._basis

    def direction(self, step: int) -> Direction:
        """The released direction of `step`, at the engine's current weights.

        Raises:
            Refused: the step is not the next one, or lies beyond the planned steps.
        """
        if step != self._next_step:
            raise Refused(f"step {step} asked, step {self._next_step} is next: a step is released once, another try is a new attempt")
        if step >= self._config.stages.private.steps:
            raise Refused(f"step {step} is beyond the {self._config.stages.private.steps} steps that the noise was calibrated for")
        self._next_step += 1
        if self._config.traits.is_unbounded:
            return self._nonprivate(step)
        method, public_term = self._config.traits, self._public_term(step)
        if self._config.is_control:
            return Direction(value=direction_of(method, public_term, None), event=None, public_term=public_term, sealed=None)
        private_term, sealed = self._private_term(step)
        value = direction_of(method, public_term, private_term)
        return Direction(value=value, event="subsampled_gaussian", public_term=public_term, sealed=sealed)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside weights and step: the subspace, where it was fitted at earlier weights. That of the
        start comes with the sources again."""
        basis = self._basis
        if basis is None or basis.directions is None or basis is self._sources.start_basis:
            return {}
        return {BASIS_KEY: basis.directions}

    def resume(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Continues before `step` with what `state` gave there.

        Raises:
            Refused: steps were already executed here. BadInput: the subspace is missing from `state`.
        """
        if self._next_step:
            raise Refused(f"{self._next_step} steps were already executed: resume a fresh mechanism")
        if step and needs_fitted_basis(self._config) and not self._fits_at(step):
            self._basis = self._basis_in(state, step)
        self._next_step = step
        self._gaussian_steps = step if self._noise_multiplier is not None else 0

    def noise_variance(self) -> Tensor:
        """Variance of the noise in each coordinate of a direction, α²σ²C²/B²·diag(VVᵀ): (P,) float64, public, for Adam's
        second moment. Zeros where no noise is added."""
        config = self._config
        if self._noise_multiplier is None or config.clip_norm is None:
            return torch.zeros(self._engine.parameter_count, dtype=torch.float64)
        basis = SubspaceBasis.full(self._engine.parameter_count) if self._basis is None else self._basis
        scale = _private_weight(config) * self._noise_multiplier * config.clip_norm / config.stages.private.expected_batch_size
        return scale**2 * basis.diagonal().to(torch.float64)

    def _private_term(self, step: int) -> tuple[Tensor, Sealed]:
        """α·(post-processed noised sum)/B as (P,) float64. This is the dangerous order; it exists nowhere else."""
        config, private, streams = self._config, self._sources.private, self._randomness.private
        if private is None or streams is None or config.clip_norm is None or self._noise_multiplier is None:
            raise BadInput(f"method {config.method} cannot take a private step without private data, key, clip_norm and noise")
        basis = self._basis_at(step)
        chosen = self._drawn_examples(streams, step)
        draws = self._draws(private, streams.stream("augmentation", step), chosen)
        total = BoundedSum.empty(basis.rank, config.clip_norm, device=self._engine.device)
        loss_sum: Tensor | float = 0.0
        merged = UnitRows(chosen)
        for some in chosen.slices(self._records_at_once):
            batch, views = self._entries(private, *draws.of(some))
            if chosen.is_single and not self._clips_projected_rows(basis):
                bounded, losses = self._bounded_sum(batch, views, basis, config.clip_norm)
            else:
                gradients = self._record_gradients(batch, views)
                bounded, losses = self._bounded(merged.complete(gradients.rows, some), basis, config.clip_norm), gradients.losses
            total = total.plus(bounded)
            loss_sum = loss_sum + losses.sum().to(torch.float64)
        self._gaussian_steps += 1
        released = add_noise(total, noise_multiplier=self._noise_multiplier, stream=streams.noise(step))
        direction = basis.lift(released.value).to(torch.float64) / config.stages.private.expected_batch_size
        return _private_weight(config) * direction, _seal(total, chosen, nonfinite=merged.nonfinite, loss_sum=loss_sum)

    def _drawn_examples(self, streams: PrivateStreams, step: int) -> Chosen:
        """Poisson over units; then of each unit its own secret choice, which no other unit moves."""
        drawn = poisson_sample(streams.stream("sampling", step), len(self._private_units), self._config.sampling_prob)
        return self._private_units.choose(drawn, self._config.examples_per_unit, lambda name: streams.stream(f"unit/{name}", step))

    def _entries(self, private: RecordSource, indices: Indices, draw: Draw) -> tuple[Batch, Batch | None]:
        """The examples, and the views of their pairs where the method has pairs."""
        batch = private.batch(indices, draw)
        if _public_weight(self._config) == 0.0 or self._config.traits.row == "gradient":
            return batch, None
        return batch, private.view_batch(indices, draw)

    def _record_gradients(self, batch: Batch, views: Batch | None) -> RowsAndLosses:
        """One row a record: the gradient, or the residual of its pair."""
        return self._engine.residual_rows_and_losses(batch, views, _public_weight(self._config), copies=self._copies)

    def _clips_projected_rows(self, basis: SubspaceBasis) -> bool:
        """Whether the clip needs each row's coordinates in the subspace."""
        return basis.directions is not None and self._config.subspace.order == "project_then_clip"

    def _bounded_sum(self, batch: Batch, views: Batch | None, basis: SubspaceBasis, clip_norm: float) -> tuple[BoundedSum, Tensor]:
        """The clipped sum in the space of the noise, without any row, and the losses.

        Under a projection rows are clipped to C/ν with ν >= ‖V‖ (`SubspaceBasis.norm_bound`). A record that adds r with ‖r‖ <= C/ν to
        the sum adds Vᵀr to the projected one, because projecting is linear, and ‖Vᵀr‖ <= ‖V‖·‖r‖ <= C. So the projected sum moves by at
        most C when a record leaves, as if each projected row had been clipped.
        """
        bound = basis.norm_bound
        public_weight, copies = _public_weight(self._config), self._copies
        bounded, losses = self._engine.clipped_sum(batch, views, public_weight, clip_norm=clip_norm / bound, copies=copies)
        return replace(bounded, value=basis.project_sum(bounded.value), l2_bound=clip_norm), losses

    def _bounded(self, rows: Tensor, basis: SubspaceBasis, clip_norm: float) -> BoundedSum:
        """The sum of rows, clipped in the space in which the noise will be drawn."""
        if basis.directions is None:
            return clip_rows(rows, clip_norm).sum()
        if self._clips_projected_rows(basis):
            return clip_rows(basis.project(rows), clip_norm).sum()
        before = clip_rows(rows, clip_norm / basis.norm_bound).sum()
        return replace(before, value=basis.project_sum(before.value), l2_bound=clip_norm)

    def _public_term(self, step: int) -> Tensor | None:
        """λ ḡ_pub (P,) float32, None where λ is 0: over units drawn independently of the private batch, and of each the mean over
        as many of its views as the private sum would take."""
        config, views, public = self._config, self._sources.views, self._randomness.public
        public_weight = _public_weight(config)
        if public_weight == 0.0:
            return None
        if views is None or config.public_batch_size is None:
            raise BadInput(f"method {config.method} needs public views for its public term")
        generator = public.generator("public_batch", step)
        drawn = choose_without_replacement(generator, len(self._view_units), config.public_batch_size, what="public_batch_size")
        chosen = self._view_units.choose(drawn, config.examples_per_unit, lambda name: public.stream(f"unit/{name}", step))
        draws = self._draws(views, public.stream("public_augmentation", step), chosen)
        return (public_weight * self._summed(views, chosen, draws) / len(drawn)).to(torch.float32)

    def _summed(self, source: ExampleSource, chosen: Chosen, draws: Draws) -> Tensor:
        """Σ over units of the mean gradient of their chosen examples and of the copies of each, unclipped: (P,) float64."""
        total = torch.zeros(self._engine.parameter_count, dtype=torch.float64, device=self._engine.device)
        for some in chosen.slices(self._records_at_once):
            weights = chosen.weights(some, device=self._engine.device)
            total += self._engine.sum_gradient(source.batch(*draws.of(some)), None if weights is None else weights.repeat(self._copies))
        return total / self._copies

    def _draws(self, source: ExampleSource, stream: RandomStream, chosen: Chosen) -> Draws:
        """The geometry of all copies of a step's examples, from one stream."""
        count = self._copies * len(chosen.examples)
        return Draws(examples=chosen.examples, copies=self._copies, draw=source.draw_geometry(stream, count))

    def _nonprivate(self, step: int) -> Direction:
        """The ceiling: the expected-size mean of the drawn gradients, released as it is."""
        private, streams = self._sources.private, self._randomness.private
        if private is None or streams is None:
            raise BadInput(f"method {self._config.method} needs the private dataset and a key for its batches")
        chosen = self._drawn_examples(streams, step)
        draws = self._draws(private, streams.stream("augmentation", step), chosen)
        value = (self._summed(private, chosen, draws) / self._config.stages.private.expected_batch_size).to(torch.float32)
        sealed = Sealed(
            batch_size=len(chosen.drawn), clipped=0, nonfinite=0, loss_sum=math.nan, drawn=chosen.drawn, examples=chosen.examples
        )
        return Direction(value=value, event="non_private", public_term=None, sealed=sealed)

    def _fits_at(self, step: int) -> bool:
        every = self._config.subspace.refresh_steps
        return step == 0 if every is None else step % every == 0

    def _basis_at(self, step: int) -> SubspaceBasis:
        if not needs_fitted_basis(self._config):
            return SubspaceBasis.full(self._engine.parameter_count)
        if self._basis is None or self._fits_at(step):
            start = self._sources.start_basis
            self._basis = self._fit(step) if step or start is None else start
        return self._basis

    def _basis_in(self, state: Mapping[str, Tensor], step: int) -> SubspaceBasis:
        """The subspace in use before `step`: the one in `state`, or that of the start where none was fitted since."""
        if BASIS_KEY in state:
            return SubspaceBasis(directions=state[BASIS_KEY], parameter_count=self._engine.parameter_count)
        start, every = self._sources.start_basis, self._config.subspace.refresh_steps
        if start is None or (every is not None and step > every):
            raise BadInput(f"the checkpoint lacks {BASIS_KEY}: start this trial again as a new attempt")
        return start

    def _fit(self, step: int) -> SubspaceBasis:
        """The subspace at the current weights."""
        return fit_to_public(
            self._config,
            self._engine,
            sources=self._sources,
            streams=self._randomness.public,
            step=step,
            physical_batch_size=self._physical,
        )


def needs_fitted_basis(config: TrialConfig) -> bool:
    """Whether the private steps of `config` project onto a subspace that is fitted to public gradients."""
    return config.traits.projects and config.subspace.rank != "full" and not config.is_control


def _public_weight(config: TrialConfig) -> float:
    return config.public_weight if config.traits.uses_views and config.public_weight is not None else 0.0


def _private_weight(config: TrialConfig) -> float:
    return config.private_weight if config.traits.uses_views and config.private_weight is not None else 1.0


def _units_of(source: ExampleSource | None, units: Units | None) -> Units:
    """The units of a source; each example is one where nothing else is said."""
    count = 0 if source is None else len(source)
    if units is None:
        return Units.single(count)
    if len(units.members) != count:
        raise BadInput(f"the units hold {len(units.members)} examples, their source has {count}: make both from one dataset")
    return units


def _seal(total: BoundedSum, chosen: Chosen, *, nonfinite: Count, loss_sum: Tensor | float) -> Sealed:
    return Sealed(
        batch_size=total.rows,
        clipped=total.clipped,
        nonfinite=total.nonfinite + nonfinite,
        loss_sum=loss_sum,
        drawn=chosen.drawn,
        examples=chosen.examples,
    )


def _check_inputs(config: TrialConfig, sources: Sources, randomness: Randomness, noise_multiplier: float | None) -> None:
    if config.traits.private_sum == "none":
        raise BadInput(f"method {config.method} takes no private steps: it is the end of its public stages")
    if config.adds_noise != (noise_multiplier is not None):
        raise BadInput(
            f"method {config.method} {'needs a' if config.adds_noise else 'takes no'} noise multiplier, given {noise_multiplier}"
        )
    if config.is_control:
        if sources.private is not None:
            raise BadInput("a control touches no private data: give it none")
        return
    if sources.private is None or randomness.private is None:
        raise BadInput(f"method {config.method} needs the private dataset and the sweep key")


def _check_sizes(config: TrialConfig, sources: Sources, parameter_count: int) -> None:
    """Says before the first step what a step would trip over: nothing is clamped, so nothing may be too small."""
    views, subspace = sources.views, config.subspace
    units = len(_units_of(views, sources.view_units))
    if config.public_batch_size is not None and views is not None and config.public_batch_size > units:
        raise BadInput(f"public_batch_size {config.public_batch_size} is more than the {units} public views (one of each unit)")
    if not isinstance(subspace.rank, int) or config.is_control:
        return
    source = sources.public if subspace.source == "public" else views
    if source is None:
        raise BadInput(f"method {config.method} needs the examples of subspace.source {subspace.source}")
    if subspace.examples > len(source):
        raise BadInput(f"subspace.examples {subspace.examples} is more than the {len(source)} examples of source {subspace.source}")
    if subspace.rank > parameter_count:
        raise BadInput(f"subspace.rank {subspace.rank} is more than the {parameter_count} trainable parameters: give rank full")
    start = sources.start_basis
    if start is not None and (start.rank, start.parameter_count) != (subspace.rank, parameter_count):
        raise BadInput(
            f"the basis of the start has rank {start.rank} in {start.parameter_count} parameters, {subspace.rank} in {parameter_count} are"
            " needed: fit it to this trial's network, or cut it with SubspaceBasis.leading"
        )
