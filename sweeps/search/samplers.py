"""Optuna samplers for the studies of a sweep, by the names of `search_spaces.samplers`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study

from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from search_spaces.samplers import Sampler
from sweeps.search.tpe import SharedTPESampler


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a sampler is made from.

    Attributes:
        epsilon: of the study.
        distributions: of every parameter that may be active in it, by its dotted path.
        studies: of all ε, this one included; filled as they are opened.
        seed: of its draws; another one after each resume, so that the first draws do not come again.
    """

    epsilon: float
    distributions: Mapping[str, BaseDistribution]
    studies: Mapping[float, Study]
    seed: int


def build_sampler(sampler: Sampler, request: Request) -> BaseSampler:
    """The Optuna sampler of a study.

    Raises:
        BadInput: the builder does not load, or gives something else.
    """
    built = loaded(sampler.builder, what=f"sampler {sampler.name}")(request)
    if not isinstance(built, BaseSampler):
        raise BadInput(f"sampler {sampler.name}: its builder must give an optuna BaseSampler, it gave {built!r}")
    return built


def tpe(request: Request) -> BaseSampler:
    """TPE over all ε together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate and group are experimental in optuna 5
        return SharedTPESampler(request.epsilon, request.distributions, request.studies, seed=request.seed)


def independent(request: Request) -> BaseSampler:
    """Uniform draws; what a grid enqueues is taken first."""
    return RandomSampler(seed=request.seed)
