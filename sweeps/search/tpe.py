"""TPE over all ε of a sweep at once: a study learns from the trials of its neighbours, the nearer the more.

Neighbouring ε have neighbouring optima, so that a search that starts afresh at each ε pays for the same lesson every time. ε is
treated as one more coordinate of the kernel density estimates of TPE (Bergstra et al. 2011, Algorithms for Hyper-Parameter
Optimization), of which the value is known: a trial's kernel counts by the distance of its ε. What is good is judged within each
study, as in Watanabe et al. 2023 (arXiv:2212.06751, task kernels): scores at different ε are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sweeps.internals.optuna_internals import KernelSampler, WeightedDraws, split_trials

STARTUP = 10
"""Finished trials, neighbours' counted by their weight, before the first fit; as Optuna's own `n_startup_trials`."""
NEWEST = 500
"""Finished trials that a fit sees, of all studies together: its cost does not grow after that. Regret after 800 trials at one ε, over six
surfaces: 0.0028, and 0.0023 with all trials seen, where scores have a noise of 0.002 to 0.008."""
BANDWIDTH_DECADES = 1.0
"""Of the kernel over log10 ε, at one trial; it shrinks with their number n as n^(-1/5), the rate of a density in one dimension."""
GOOD_SHARE, GOOD_AT_MOST = 0.15, 25
"""Of a study's trials, which pass for good. Optuna takes a tenth, a single trial for as long as there are ten; with eight ε of 24 trials
the regret was 0.0178 with a tenth and 0.0153 with this."""
FITTED = (TrialState.COMPLETE, TrialState.PRUNED)
SEEN = (*FITTED, TrialState.RUNNING)


@dataclass(frozen=True)
class _Seen:
    """What a fit sees of one study."""

    study: Study
    weight: float
    trials: Sequence[FrozenTrial]


class SharedTPESampler(KernelSampler):
    """Grouped, multivariate TPE with the constant liar, at one ε of several.

    Optuna asks for the joint draw before any single one, so what is seen is looked up once per trial.
    """

    def __init__(self, epsilon: float, distributions: Mapping[str, BaseDistribution], peers: Mapping[float, Study], *, seed: int) -> None:
        """Makes the sampler of the study at `epsilon`.

        Args:
            epsilon: of the study.
            distributions: of every parameter that may be active in it.
            peers: the studies of all ε, this one included; may be filled later.
            seed: of its draws.
        """
        super().__init__(seed=seed)
        self._epsilon = epsilon
        self._distributions = distributions
        self._peers = peers
        self._now: tuple[_Seen, ...] = ()
        self._is_startup = True

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together: those that are active in the same trials. None in start-up."""
        self._look_around(trial)
        if self._is_startup:
            return self.decompose(())
        every = (one for seen in self._now for one in seen.trials if one.state in FITTED)
        active = dict.fromkeys(frozenset(one.params) for one in every)
        return self.decompose({name: self._distributions[name] for name in names} for names in active)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """A draw of one parameter: uniform in start-up."""
        if self._is_startup:
            return self.draw_uniformly(study, trial, param_name, param_distribution)
        return self.draw(study, trial, {param_name: param_distribution})[param_name]

    def draw(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """A joint draw from kernels on all studies: those of their good trials against those of the others."""
        sides = (WeightedDraws(), WeightedDraws())
        for seen in self._now:
            finished = sum(one.state in FITTED for one in seen.trials)
            for side, part in zip(sides, split_trials(seen.study, seen.trials, good_count(finished)), strict=True):
                drawn = [self.params_of(one, study) for one in part]
                side.add([params for params in drawn if _lies_in(params, search_space)], seen.weight)
        return self.best_candidate(*sides, search_space)

    def _look_around(self, trial: FrozenTrial) -> None:
        """Fixes what the fits of this trial see, and whether that is enough for one."""
        every = {epsilon: peer.get_trials(deepcopy=False, states=SEEN) for epsilon, peer in self._peers.items()}
        every[self._epsilon] = [one for one in every[self._epsilon] if one.number != trial.number]
        running = {epsilon: [one for one in trials if one.state is TrialState.RUNNING] for epsilon, trials in every.items()}
        finished = {epsilon: len(trials) - len(running[epsilon]) for epsilon, trials in every.items()}
        weights = {epsilon: self._weight(epsilon, sum(finished.values())) for epsilon in every}
        self._is_startup = sum(weights[epsilon] * finished[epsilon] for epsilon in every) < STARTUP
        share = NEWEST / sum(weights.values())
        self._now = tuple(
            _Seen(
                self._peers[epsilon],
                weight,
                [*newest(every[epsilon], round(share * weight), running=len(running[epsilon])), *running[epsilon]],
            )
            for epsilon, weight in weights.items()
        )

    def _weight(self, epsilon: float, finished: int) -> float:
        """Of a trial at `epsilon`: a Gaussian kernel over log10 ε, 1 at this study's own."""
        width = BANDWIDTH_DECADES * max(1, finished) ** -0.2
        return math.exp(-0.5 * (math.log10(epsilon / self._epsilon) / width) ** 2)


def good_count(finished: int) -> int:
    """How many of a study's trials pass for good ones."""
    return min(math.ceil(GOOD_SHARE * finished), GOOD_AT_MOST)


def newest(trials: Sequence[FrozenTrial], count: int, *, running: int) -> Sequence[FrozenTrial]:
    """The last `count` finished trials, of which `running` are not: a look at the end alone, as there may be thousands."""
    if count == 0:
        return ()
    return [trial for trial in trials[-(count + running) :] if trial.state is not TrialState.RUNNING][-count:]


def _lies_in(params: Mapping[str, Any], search_space: Mapping[str, BaseDistribution]) -> bool:
    """Whether a draw, perhaps of another ε with other ranges, is one of these parameters too."""
    return all(name in params and _contains(one, params[name]) for name, one in search_space.items())


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return bool(distribution.low <= value <= distribution.high)
    raise TypeError(f"expected a categorical, float or int distribution, given {distribution}")
