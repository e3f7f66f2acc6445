"""What dpsweep uses of Optuna's private TPE: kernel density estimates over draws that the caller chooses and weights.

Optuna's public sampler fits on the trials of one study, all with equal weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import _split_trials
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial

SEEN_WITH = "5.0.0"


@dataclass(frozen=True, kw_only=True)
class WeightedDraws:
    """Draws to fit kernels on, each with the weight of its kernel. Grows by `add`."""

    draws: list[dict[str, Any]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, draws: Sequence[dict[str, Any]], weight: float) -> None:
        """Takes draws in, all with the same weight."""
        self.draws.extend(draws)
        self.weights.extend([weight] * len(draws))


class KernelSampler(TPESampler):
    """Grouped, multivariate TPE with the constant liar. A subclass chooses the draws of both sides."""

    def __init__(self, *, seed: int) -> None:
        """Makes a sampler without start-up trials: what start-up is, the subclass decides."""
        super().__init__(multivariate=True, group=True, constant_liar=True, n_startup_trials=0, seed=seed)

    @abstractmethod
    def draw(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """A joint draw of these parameters."""

    def decompose(self, spaces: Iterable[Mapping[str, BaseDistribution]]) -> dict[str, BaseDistribution]:
        """Splits parameters into groups that are active in the same trials, and keeps the groups for the next joint draws."""
        groups = _SearchSpaceGroup()
        for space in spaces:
            groups.add_distributions(dict(space))
        self._search_space_group = groups
        return {name: one for group in groups.search_spaces for name, one in sorted(group.items()) if not one.single()}

    def draw_uniformly(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A draw of one parameter without a fit."""
        return self._random_sampler.sample_independent(study, trial, name, distribution)

    def params_of(self, trial: FrozenTrial, study: Study) -> dict[str, Any]:
        """A trial's parameters, those of a running one included."""
        return dict(self._get_params(trial, study))

    def best_candidate(self, good: WeightedDraws, others: WeightedDraws, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The candidate that the good kernels like most beside the others (Bergstra et al. 2011, eq. 1)."""
        good_kernels, other_kernels = self._kernels(good, search_space), self._kernels(others, search_space)
        candidates = good_kernels.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(candidates, self._compute_acquisition_func(candidates, good_kernels, other_kernels))
        return {name: search_space[name].to_external_repr(value) for name, value in best.items()}

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self.draw(study, trial, search_space)

    def _kernels(self, side: WeightedDraws, search_space: dict[str, BaseDistribution]) -> _ParzenEstimator:
        values = {name: np.asarray([one.to_internal_repr(draw[name]) for draw in side.draws]) for name, one in search_space.items()}
        return _ParzenEstimator(values, search_space, self._parzen_estimator_parameters, np.asarray(side.weights))


def split_trials(study: Study, trials: Sequence[FrozenTrial], good_count: int) -> tuple[Sequence[FrozenTrial], Sequence[FrozenTrial]]:
    """The best `good_count` trials of a study, and the others."""
    good, others = _split_trials(study, list(trials), good_count)
    return good, others
