"""A private run played through on public data: what changes when a proxy stands in the private part's place.

Settings are worth carrying over where a step feels the same: the same steps, learning rate and clipping norm, and the same
noise relative to the batch, σC/B, which is what the optimizer sees. So the noise is calibrated for the private dataset's own
q, the expected batch B is kept where the proxy is large enough (its q is then larger), and where it has fewer than B
examples the batch is the whole proxy and the noise shrinks with it. Torch-free.
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
        config: with the batch and N that steps really have; but for a rehearsal the trial's own.
        noise_multiplier: None where the method adds no noise.
    """

    config: TrialConfig
    noise_multiplier: float | None


def step_terms(config: TrialConfig, plan: PrivacyPlan | None) -> StepTerms:
    """The terms of a trial's steps, of a rehearsal by its proxy's size.

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
    """Holds what the config says of its proxy against the dataset.

    Raises:
        BadInput: `data.proxy_examples` is not `count`.
    """
    if config.data.proxy_examples not in (None, count):
        raise BadInput(f"data.proxy_examples is {config.data.proxy_examples}, {config.data.proxy} has {count} privacy units; correct it")
