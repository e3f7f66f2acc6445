"""The time of a sweep that nobody has run yet: some steps of each method are timed on this machine, on PUBLIC people."""

from __future__ import annotations

import random
from statistics import mean
from typing import TYPE_CHECKING

from dpcore.config import TrialConfig
from dpcore.errors import Refused
from search_spaces.admission import is_admissible
from search_spaces.space import SpaceFile
from sweeps.pricing.duration import Duration, at_a_time

if TYPE_CHECKING:
    from dpcore.train.timing import StepTimes
    from sweeps.pricing.plan import SweepPlan
    from sweeps.records.spec import SweepSpec

DRAWS_PER_METHOD = 64


def timed_duration(spec: SweepSpec, plan: SweepPlan) -> Duration:
    """The estimate of a plan. Stages and features that a cache has already are counted as if it had not: it is at most this.

    Raises:
        Refused: the sweep would run on other machines than this one. BadInput: a trial of the space could not run.
    """
    if spec.address is not None or spec.gpus_per_trial:
        raise Refused("--time: steps are timed on this machine's CPUs, and the sweep would run elsewhere; leave --time out")
    import torch

    from dpcore.train.timing import time_steps

    torch.set_num_threads(spec.trial_runtime.threads)
    timed = [(config, time_steps(config, spec.trial_runtime, spec.places)) for config in one_of_each_method(spec.space)]
    each = mean(_trial_s(config, times, spec) for config, times in timed)
    runs = sum(group.trials + group.reruns + group.control for group in plan.groups) + len(plan.references)
    return Duration(trial_s=runs * each, at_a_time=at_a_time(spec), source=None, measured=len(timed), once_s=_once_s(timed, spec))


def one_of_each_method(space: SpaceFile) -> list[TrialConfig]:
    """A random admissible trial of each private method at the first ε."""
    epsilon, generator, found = space.sweep.epsilons[0], random.Random(0), dict[str, TrialConfig]()
    for method in space.private_methods:
        for _ in range(DRAWS_PER_METHOD):
            draw = space.draw(epsilon, generator, forced={"method": method})
            if is_admissible(space, epsilon, draw) and (config := space.trial_config(epsilon, draw)).method == method:
                found[method] = config
                break
    return list(found.values())


def _trial_s(config: TrialConfig, times: StepTimes, spec: SweepSpec) -> float:
    """One trial whose public stages and features are there."""
    steps = config.stages.private.steps
    reports = 1 + (steps - 1) // spec.trial_runtime.report_every_steps
    return times.start_s + steps * times.private_step_s + reports * times.evaluation_s


def _once_s(timed: list[tuple[TrialConfig, StepTimes]], spec: SweepSpec) -> float:
    """What the first trial that needs it computes for all: the public stages, and features of every private person and every view."""
    total = max((config.stages.public.steps * times.public_step_s for config, times in timed), default=0.0)
    splits = len(spec.space.splits_in_use)
    for config, times in timed:
        stage = config.stages.public_view
        if stage is not None and times.view_step_s:
            total += splits * (stage.steps or stage.max_steps) * times.view_step_s
            break
    features = max((times.feature_s * config.data.nominal_examples for config, times in timed), default=0.0)
    return total + features * (1 + splits)
