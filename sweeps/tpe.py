"""TPE whose cost per ask stops growing: it fits on the newest finished trials of a study, where there are more."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

NEWEST = 500
"""Finished trials that a fit sees. An ask then takes 0.02 s at most (benchmarks/bench_search.py), and finds as good settings."""
FITTED = (TrialState.COMPLETE, TrialState.PRUNED)


class NewestTPESampler(TPESampler):
    """Optuna's TPE on the newest `NEWEST` finished trials and all running ones; the rest of the study is not looked at."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of the trials that are seen, one trial per set of parameters: grouping costs 20 µs for each."""
        return super().infer_relative_search_space(_view(study, one_per_set=True), trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """A draw of what is always, or always together, active."""
        return super().sample_relative(_view(study), trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """A draw of one parameter that no trial had yet."""
        return super().sample_independent(_view(study), trial, param_name, param_distribution)


class _Newest:
    """A study of which only the newest trials show. TPE reads trials by `Study._get_trials` alone."""

    def __init__(self, study: Study, *, one_per_set: bool) -> None:
        self._study = study
        self._one_per_set = one_per_set

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False) -> list[FrozenTrial]:
        trials = newest(self._study._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache), NEWEST)
        return list({frozenset(trial.distributions): trial for trial in trials}.values()) if self._one_per_set else trials


def newest(trials: list[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The trials without the finished ones before the last `count`, in their order."""
    surplus = sum(trial.state in FITTED for trial in trials) - count
    if surplus <= 0:
        return trials
    kept = []
    for trial in trials:
        if trial.state in FITTED and surplus > 0:
            surplus -= 1
        else:
            kept.append(trial)
    return kept


def _view(study: Study, *, one_per_set: bool = False) -> Study:
    view: Any = _Newest(study, one_per_set=one_per_set)
    return view  # type: ignore[no-any-return]
