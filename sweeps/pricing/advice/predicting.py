"""Measures and predicts what each method of a space can gain at each ε, from PUBLIC data alone.

The gradients of PUBLIC people at the public start (`dpcore.advice.measurement`) and the noise of the plan give, for each method, split,
rank and ε, the share of the gain without privacy that a step keeps (`dpcore.advice.prediction`). Nothing private is opened: of the private
data only `data.nominal_examples` is used.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcore.advice.measurement import GradientsAsked, PublicGradients, measured_gradients
from dpcore.advice.prediction import (
    Gradients,
    Moments,
    Noise,
    Recipe,
    bare_moments,
    free_moments,
    kept_by,
    mean_cosine,
    moments_of,
    residual_ratio,
)
from dpcore.config import METHODS, Method, Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.errors import BadInput
from search_spaces.space import STRATEGY_PATH, Choice, FloatRange, IntRange, SpaceFile, value_at
from sweeps.pricing.advice.found import LEAST_DIFFERENCE, AdviceAt, Scene, SpaceAdvice, judged, stand_in_of
from sweeps.pricing.plan import DRAWS, Accountant, private_config

if TYPE_CHECKING:
    from dpcore.data.shards import ShardSet

WANTED_SHARE = 0.5
"""Of what is not free: the N at which a method keeps so much is said."""
GRID = 9
"""Values that are tried of a range of C; half as many of λ and of the rank."""
GROUPS = 8
"""Of people, each left out once for a standard error."""


def advise_on(
    space: SpaceFile,
    accountant: Accountant,
    *,
    places: Places,
    runtime: RuntimeFlags,
    seed: int = 0,
    stand_in: str | None = None,
    on_scene: Callable[[str], None] = lambda what: None,
    on_progress: Callable[[int, int], None] = lambda done, count: None,
) -> SpaceAdvice:
    """Measures and predicts. Nothing private is opened.

    Args:
        space: the search space.
        accountant: gives the noise of each ε.
        places, runtime: where PUBLIC data and caches lie, and how gradients are computed.
        seed: of the sweep, where the space fixes none.
        stand_in: a PUBLIC dataset; None: `stand_in_of`.
        on_scene: hears what is measured next. on_progress: how many gradients of how many are there.

    Raises:
        BadInput: a dataset is missing or does not fit, or no method of the space spends privacy.
    """
    configs = {epsilon: config for epsilon in space.sweep.epsilons if (config := private_config(space, epsilon)) is not None}
    if not configs:
        raise BadInput("no method of this space spends privacy: there is nothing to advise on")
    name = stand_in_of(space) if stand_in is None else stand_in
    people = open_dataset(name, places)
    public_name = str(value_at(space.trial, "data.public"))
    public = people if public_name == name else open_dataset(public_name, places).as_skeleton(people.skeleton)
    noise = {epsilon: _noise(config, accountant, places) for epsilon, config in configs.items()}
    notes: list[str] = []
    scenes = []
    for key, config in _scenes(space, seed):
        on_scene(key.text)
        view = _View(space=space, key=key, config=config)
        measured = view.measured(people, public, places=places, runtime=runtime, on_progress=on_progress)
        notes += view.notes(measured)
        scenes.append(view.scene(measured, noise))
    any_config = next(iter(configs.values()))
    return SpaceAdvice(
        stand_in=name,
        nominal_examples=any_config.data.nominal_examples,
        scenes=tuple(scenes),
        notes=tuple(dict.fromkeys([*notes, *_notes(space, name)])),
    )


def _noise(config: TrialConfig, accountant: Accountant, places: Places) -> Noise:
    plan = accountant.plan(config, places.cache_dir)
    if plan is None:
        raise BadInput(f"method {config.method} spends nothing: there is no noise to advise on")
    return Noise(
        noise_multiplier=plan.noise_multiplier,
        sampling_prob=plan.sampling_prob,
        examples=config.data.nominal_examples,
    )


@dataclass(frozen=True, kw_only=True)
class _Key:
    """What makes a scene."""

    split: str | None
    start: str
    strategy: str | None

    @property
    def text(self) -> str:
        views = "no views" if self.split is None else f"views {self.split}"
        return ", ".join([f"start {self.start}", views, *([] if self.strategy is None else [f"freeze {self.strategy}"])])


def _scenes(space: SpaceFile, seed: int) -> Iterator[tuple[_Key, TrialConfig]]:
    """Each start, split and part that trains, with a config that has them."""
    generator, free = random.Random(0), space.unconstrained
    seeded = {} if value_at(space.trial, "seed") is not None else {"seed": seed}
    found: dict[_Key, TrialConfig] = {}
    for epsilon, strategy in itertools.product(space.sweep.epsilons, space.strategies or (None,)):
        for method in sorted(space.private_methods):
            for _ in range(DRAWS):
                draw = free.draw(epsilon, generator, forced={"method": method, **({} if strategy is None else {STRATEGY_PATH: strategy})})
                try:
                    config = free.trial_config(epsilon, draw, overrides=seeded).without_proxy()
                except BadInput:
                    continue
                key = _Key(split=None if config.split is None else config.split.name, start=config.start, strategy=strategy)
                # a projected config knows the source of its subspace
                if key not in found or config.traits.projects > found[key].traits.projects:
                    found[key] = config
    with_views = {(key.start, key.strategy) for key in found if key.split is not None}
    for key, config in found.items():
        if key.split is not None or (key.start, key.strategy) not in with_views:
            yield key, config


def _values(space: SpaceFile, epsilon: float, path: str, *, count: int, otherwise: Sequence[Any]) -> list[Any]:
    """What a draw can have at a path: the choices, or a grid over the range, or the fixed value."""
    parameter = space.parameters_at(epsilon).get(path)
    if isinstance(parameter, Choice):
        return [value for value in parameter.choice if value is not None]
    if isinstance(parameter, (IntRange, FloatRange)):
        ends = [parameter.value_at(place / (count - 1)) for place in range(count - 1)]
        return list(dict.fromkeys([*ends, parameter.bounds[1]]))
    fixed = value_at(space.trial, path)
    return list(otherwise) if fixed is None else [fixed]


@dataclass(frozen=True, kw_only=True)
class _View:
    """One scene: measured, then predicted."""

    space: SpaceFile
    key: _Key
    config: TrialConfig

    def ranks(self, epsilon: float) -> list[int]:
        """The ranks to be looked at, without the full space."""
        values = _values(self.space, epsilon, "subspace.rank", count=GRID // 2 + 1, otherwise=[])
        return sorted({value for value in values if isinstance(value, int)})

    def measured(
        self, people: ShardSet, public: ShardSet, *, places: Places, runtime: RuntimeFlags, on_progress: Callable[[int, int], None]
    ) -> PublicGradients:
        """The gradients of this scene."""
        asked = itertools.chain.from_iterable(map(self.ranks, self.space.sweep.epsilons))
        ranks = sorted(set(asked)) if self._methods(projecting=True) else []
        residuals = self.config.public_weight if self.config.subspace.gradients == "residual" else None
        return measured_gradients(
            self.config,
            stand_in=people,
            public=public,
            wanted=GradientsAsked(ranks=tuple(ranks), residuals=residuals),
            places=places,
            runtime=runtime,
            on_progress=on_progress,
        )

    def notes(self, measured: PublicGradients) -> Iterator[str]:
        """What of this scene was not measured."""
        if measured.left_out:
            yield (
                f"{self.key.text}: ranks {', '.join(map(str, measured.left_out))} not measured: only {measured.basis_people} other people "
                "were there to fit a subspace to"
            )

    def scene(self, measured: PublicGradients, noise: Mapping[float, Noise]) -> Scene:
        """All methods at all ε."""
        gradients, full = measured.gradients, measured.gradients.full
        batch = next(iter(noise.values())).batch
        bare = bare_moments(gradients).gain(0.0, batch)
        if bare <= 0:
            raise BadInput(
                f"{self.key.text}: the mean gradient of {measured.people} people shows no way down, so there is nothing to compare with; "
                "the public start fits these people already: give other PUBLIC people with --on"
            )
        views = free_moments(gradients, self._public_batch)
        free = 0.0 if views is None else views.gain(0.0, batch) / bare
        weights = sorted({weight for epsilon in noise for weight in self._weights(epsilon)})
        ratios = {weight: residual_ratio(full, weight) for weight in weights} if views is not None else {}
        best_weight = min(ratios, key=ratios.__getitem__, default=None)
        found = [self._best(method, epsilon, measured, noise[epsilon], free=free) for epsilon in noise for method in self._methods()]
        kept = [kept_by(gradients, rank) for rank in sorted(gradients.projected)]
        return Scene(
            split=self.key.split,
            start=self.key.start,
            strategy=self.key.strategy,
            people=measured.people,
            basis_people=measured.basis_people,
            parameters=measured.parameters,
            residual_ratio=None if best_weight is None else ratios[best_weight],
            public_weight=best_weight,
            cosine=mean_cosine(full),
            median_norm=float(np.median(full.norms(0.0))),
            free=free,
            kept_by_rank=tuple((one.rank, one.signal, one.fisher) for one in kept),
            methods=tuple(judged(found, free=free)),
        )

    @property
    def _public_batch(self) -> int:
        return self.config.public_batch_size or Recipe.public_batch

    def _methods(self, *, projecting: bool = False) -> list[Method]:
        """The private methods that this scene can have, the simpler ones first."""
        known = [METHODS.get(name) for name in self.space.private_methods]
        fit = [one for one in known if one.direction is None and (self.key.split is not None or not one.uses_views)]
        return sorted((one for one in fit if one.projects or not projecting), key=lambda one: (one.projects, one.uses_views))

    def _weights(self, epsilon: float) -> list[float]:
        return [float(value) for value in _values(self.space, epsilon, "public_weight", count=GRID // 2 + 1, otherwise=[1.0])]

    def _recipes(self, method: Method, epsilon: float, gradients: Gradients) -> Iterator[Recipe]:
        """Every λ, k and C of the space that was measured."""
        ranks: list[int | None] = [None]
        if method.projects:
            asked = _values(self.space, epsilon, "subspace.rank", count=GRID // 2 + 1, otherwise=[])
            ranks = [rank for rank in self.ranks(epsilon) if rank in gradients.projected]
            ranks += [None] if "full" in asked else []
        weights: list[float | None] = [*self._weights(epsilon)] if method.uses_views else [None]
        for rank, weight, clip in itertools.product(ranks, weights, _values(self.space, epsilon, "clip_norm", count=GRID, otherwise=[])):
            yield Recipe(
                public_weight=weight,
                rank=rank,
                clip_norm=float(clip),
                clips_after=rank is not None and self.config.subspace.order == "project_then_clip",
                private_weight=self.config.private_weight if method.uses_views and self.config.private_weight is not None else 1.0,
                public_batch=self._public_batch,
            )

    def _best(self, method: Method, epsilon: float, measured: PublicGradients, noise: Noise, *, free: float) -> AdviceAt | None:
        """The recipe that keeps the most; None where none was measured."""
        gradients, bare = measured.gradients, bare_moments(measured.gradients).gain(0.0, noise.batch)
        tried = [(recipe, moments_of(gradients, recipe)) for recipe in self._recipes(method, epsilon, gradients)]
        if not tried:
            return None
        recipe, moments = max(tried, key=lambda one: one[1].gain(noise.stddev(one[0]), noise.batch))
        stddev = noise.stddev(recipe)
        wanted = bare * (free + WANTED_SHARE * (1 - free))
        return AdviceAt(
            epsilon=epsilon,
            method=method.name,
            kept=moments.gain(stddev, noise.batch) / bare,
            stderr=_stderr(gradients, recipe, noise),
            public_weight=recipe.public_weight,
            rank=recipe.rank,
            clip_norm=recipe.clip_norm,
            noise_stddev=stddev,
            noise_to_signal=moments.noise_to_signal(stddev),
            needed=_needed(tried, noise, wanted) if free < 1 - LEAST_DIFFERENCE else None,
        )


def _needed(tried: Sequence[tuple[Recipe, Moments]], noise: Noise, gain: float) -> int | None:
    """The smallest N, to two digits, at which one of the recipes gains so much at the same q, T and ε; None where none does."""
    sizes = [
        noise.examples * growth
        for recipe, moments in tried
        if (growth := moments.growth_for(gain, noise.stddev(recipe), noise.batch)) is not None
    ]
    if not sizes:
        return None
    exact = max(1.0, min(sizes))
    unit = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return int(math.ceil(exact / unit) * unit)


def _stderr(gradients: Gradients, recipe: Recipe, noise: Noise) -> float:
    """The standard error of what a recipe keeps: a jackknife over groups of people."""
    count = len(gradients.full.plain)
    kept = []
    for group in range(GROUPS):
        some = gradients.of(np.arange(count) % GROUPS != group)
        bare = bare_moments(some).gain(0.0, noise.batch)
        kept.append(moments_of(some, recipe).gain(noise.stddev(recipe), noise.batch) / bare if bare > 0 else 0.0)
    return float(math.sqrt((GROUPS - 1) / GROUPS * sum((one - sum(kept) / GROUPS) ** 2 for one in kept)))


def _notes(space: SpaceFile, stand_in: str) -> Iterator[str]:
    """What holds for all scenes."""
    if stand_in == value_at(space.trial, "data.public"):
        yield (
            f"{stand_in} stands for the private people, and the public start was trained on it: the shift from PUBLIC to PRIVATE people is "
            "not seen. --on NAME gives other PUBLIC people"
        )
    elif stand_in == value_at(space.trial, "data.validation"):
        yield f"{stand_in} stands for the private people: what is chosen by this advice was chosen on validation people"
    fixed = {"public_weight", "clip_norm", "subspace.rank", "method", "split", "start", STRATEGY_PATH}
    ours = [path for path in space.search if path.startswith(("model.", "loss", "subspace.")) and path not in fixed]
    if ours:
        yield f"searched, and taken at one value each here: {', '.join(ours)}"
    own = [name for name in space.private_methods if METHODS.get(name).direction is not None]
    if own:
        yield f"no prediction for {', '.join(own)}: a method with a direction of its own"
