"""TPE over all ε of a sweep at once: a study learns from trials at other ε, and most from the nearest ones.

Neighbouring ε have similar optima. A search that starts from nothing at each ε repeats the same work. Here ε is one more
coordinate of TPE's kernel density estimates (Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization), with a known
value: the weight of a trial's kernel depends on the distance of its ε. Each study decides by itself which of its trials are good, as
in Watanabe et al. 2023 (arXiv:2212.06751, task kernels). Scores at different ε are never compared.
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
"""Finished trials before the first fit, like Optuna's `n_startup_trials`. Trials at other ε count with their weight."""
NEWEST = 500
"""Finished trials that a fit uses, over all studies. So its cost stops growing. Regret after 800 trials at one ε, over six surfaces:
0.0028, and 0.0023 if all trials are used. The noise of the scores is 0.002 to 0.008."""
BANDWIDTH_DECADES = 1.0
"""Width of the kernel over log10 ε at one trial. With n trials it shrinks as n^(-1/5), the rate of a density in one dimension."""
GOOD_SHARE, GOOD_AT_MOST = 0.15, 25
"""Share and largest number of a study's trials that count as good. Optuna takes a tenth, so a single trial of ten. With eight ε and 24
trials each, the regret was 0.0178 with a tenth and 0.0153 with this share."""
FITTED = (TrialState.COMPLETE, TrialState.PRUNED)
SEEN = (*FITTED, TrialState.RUNNING)


@dataclass(frozen=True)
class _Seen:
    """What a fit uses of one study."""

    study: Study
    weight: float
    trials: Sequence[FrozenTrial]


class SharedTPESampler(KernelSampler):
    """Grouped, multivariate TPE with the constant liar, at one ε of several.

    Optuna asks for the joint draw before any single draw, so the trials to use are looked up once per trial.
    """

    def __init__(self, epsilon: float, distributions: Mapping[str, BaseDistribution], peers: Mapping[float, Study], *, seed: int) -> None:
        """Makes the sampler of the study at `epsilon`.

        Args:
            epsilon: ε of the study.
            distributions: distribution of every parameter that may be active in the study.
            peers: the studies of all ε, including this one. It may be filled later.
            seed: seed of the draws.
        """
        super().__init__(seed=seed)
        self._epsilon = epsilon
        self._distributions = distributions
        self._peers = peers
        self._now: tuple[_Seen, ...] = ()
        self._is_startup = True

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together: those that are active in the same trials. Empty during start-up."""
        self._look_around(trial)
        if self._is_startup:
            return self.decompose(())
        every = (one for seen in self._now for one in seen.trials if one.state in FITTED)
        active = dict.fromkeys(frozenset(one.params) for one in every)
        return self.decompose({name: self._distributions[name] for name in names} for names in active)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Draws one parameter, uniformly during start-up."""
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
        """Decides which trials the fits of this trial use, and whether they are enough for a fit."""
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
        """Weight of a trial at `epsilon`: a Gaussian kernel over log10 ε, which is 1 at this study's ε."""
        width = BANDWIDTH_DECADES * max(1, finished) ** -0.2
        return math.exp(-0.5 * (math.log10(epsilon / self._epsilon) / width) ** 2)


def good_count(finished: int) -> int:
    """How many of a study's trials count as good."""
    return min(math.ceil(GOOD_SHARE * finished), GOOD_AT_MOST)


def newest(trials: Sequence[FrozenTrial], count: int, *, running: int) -> Sequence[FrozenTrial]:
    """The last `count` finished trials, read from the end, because there may be thousands. `running` trials are not finished."""
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
