"""Rehearses a private run on public data: what changes if a proxy replaces the private part.

Settings carry over only if the steps are alike: the same number of steps, learning rate and clipping norm, and the same noise relative to
the batch, σC/B. So the noise is calibrated for the q of the private dataset. If the proxy is large enough, the expected batch B
stays, and only q is larger. If the proxy has fewer than B examples, the batch is the whole proxy, and the noise shrinks with it.
Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from dpcore.privacy.plan import PrivacyPlan


@dataclass(frozen=True, kw_only=True)
class StepTerms:
    """How the private steps of a trial run.

    Attributes:
        config: the trial's config. In a rehearsal, with the batch and N that the steps really have.
        noise_multiplier: None if the method adds no noise.
    """

    config: TrialConfig
    noise_multiplier: float | None


def step_terms(config: TrialConfig, plan: PrivacyPlan | None) -> StepTerms:
    """The terms of a trial's steps. In a rehearsal they depend on the size of the proxy.

    Guarantees: in a rehearsal noise_multiplier · C / B equals the private run's, to rounding.

    Args:
        config: the trial.
        plan: of the trial, of a rehearsal that of the private run it stands for; None where no noise is added.

    Raises:
        BadInput: the trial adds noise and has no plan. Refused: the plan is another trial's.
    """
    if (plan is None) == config.adds_noise:
        raise BadInput(f"method {config.method} {'adds noise: give it its plan' if config.adds_noise else 'adds no noise and has no plan'}")
    if plan is not None:
        plan.check_fits(config)
    noise = None if plan is None else plan.noise_multiplier
    count = config.data.proxy_examples
    if count is None:
        return StepTerms(config=config, noise_multiplier=noise)
    wanted = config.stages.private.expected_batch_size
    batch = min(wanted, count)
    running = config.changed(**{"data.nominal_examples": count, "stages.private.expected_batch_size": batch})
    return StepTerms(config=running, noise_multiplier=None if noise is None else noise * batch / wanted)


def check_proxy_size(config: TrialConfig, count: int) -> None:
    """Compares the size of the proxy in the config with the dataset.

    Raises:
        BadInput: `data.proxy_examples` is not `count`.
    """
    if config.data.proxy_examples not in (None, count):
        raise BadInput(f"data.proxy_examples is {config.data.proxy_examples}, {config.data.proxy} has {count} privacy units; correct it")
