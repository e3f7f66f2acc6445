"""The plan of a trial: what it is going to spend, fixed when it is reserved, and what its reports are held against.

    calibrated once → reserved → handed to the worker → executed → every report compared with it

Light: neither torch nor the accountant, so that driver, worker and tables can hold a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from dpcore.config import PrivacyUnit, Relation, TrialConfig
from dpcore.errors import BadInput, NotAsPlanned, Refused

if TYPE_CHECKING:
    from dp_accounting.dp_event import DpEvent

TOLERANCE = 1e-6
"""Relative, of an ε. Accounting is deterministic; the last digits of a machine's transforms are not."""


@dataclass(frozen=True)
class Spending:
    """`steps` releases of a Gaussian mechanism on Poisson samples. A noise multiplier of 0 is a release without privacy.

    `relation` says for which neighbours it is priced; the mechanism is the same.

    Raises:
        BadInput: q outside [0, 1], a negative or non-finite noise multiplier, negative steps.
    """

    sampling_prob: float
    noise_multiplier: float
    steps: int
    relation: Relation = "add_remove"

    def __post_init__(self) -> None:
        if not 0.0 <= self.sampling_prob <= 1.0:
            raise BadInput(f"sampling_prob must lie in [0, 1], given {self.sampling_prob}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0.0):
            raise BadInput(f"noise_multiplier must be finite and not negative, given {self.noise_multiplier}")
        if self.steps < 0:
            raise BadInput(f"steps must not be negative, given {self.steps}")
        if self.relation not in get_args(Relation):
            raise BadInput(f"relation must be {' or '.join(get_args(Relation))}, given {self.relation}")

    def event(self, count: int = 1) -> DpEvent:
        """The same as a dp-accounting event, `count` times over."""
        from dp_accounting import dp_event

        step = dp_event.PoissonSampledDpEvent(self.sampling_prob, dp_event.GaussianDpEvent(self.noise_multiplier))
        return dp_event.SelfComposedDpEvent(step, self.steps * count)


EpsilonAt = Callable[["PrivacyPlan", int], float]
"""ε of a plan after so many of its steps."""


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What a trial will spend: calibrated for its whole horizon, so that epsilon_planned <= epsilon_target.

    Attributes:
        sampling_prob, noise_multiplier: of each step. steps: the whole horizon.
        delta, epsilon_target, epsilon_planned: what was asked for, and what all steps together spend.
        relation, privacy_unit: what two neighbouring datasets differ in. accountant: who says so.
        from_step: where a later attempt, or a later rung of a ladder, goes on. The steps before it were reserved earlier.
        until: where a rung of a ladder ends; None: at the horizon. No step beyond it is reserved yet.
        epsilon_reserved: of the steps between the two; None where that is all of them.
    """

    sampling_prob: float
    steps: int
    noise_multiplier: float
    delta: float
    epsilon_target: float
    epsilon_planned: float
    relation: Relation = "add_remove"
    privacy_unit: PrivacyUnit = "image"
    accountant: Literal["pld"] = "pld"
    from_step: int = 0
    epsilon_reserved: float | None = None
    until: int | None = None

    @property
    def last_step(self) -> int:
        """The last step that is reserved."""
        return self.steps if self.until is None else self.until

    @property
    def spending(self) -> Spending:
        """The events of all steps."""
        return Spending(self.sampling_prob, self.noise_multiplier, self.steps, self.relation)

    @property
    def reserved(self) -> Reserved:
        """What this attempt reserves on this rung: its steps, and their ε."""
        epsilon = self.epsilon_planned if self.epsilon_reserved is None else self.epsilon_reserved
        return Reserved(steps=self.last_step - self.from_step, epsilon=epsilon)

    def rest_from(self, step: int, compose: Callable[[Sequence[tuple[Spending, int]], float], float]) -> PrivacyPlan:
        """The plan of an attempt that goes on from `step`: fewer of the same releases, so a smaller ε."""
        return self._between(step, self.until, compose)

    def to_rung(self, until: int, compose: Callable[[Sequence[tuple[Spending, int]], float], float]) -> PrivacyPlan:
        """The plan of a trial that goes on to the rung at step `until`: what was reserved before, no more."""
        start = self.last_step if self.until is not None else self.from_step
        return self._between(start, None if until == self.steps else until, compose)

    def _between(self, step: int, until: int | None, compose: Callable[[Sequence[tuple[Spending, int]], float], float]) -> PrivacyPlan:
        if (step, until) == (self.from_step, self.until):
            return self
        part = replace(self.spending, steps=(self.steps if until is None else until) - step)
        return replace(self, from_step=step, until=until, epsilon_reserved=compose([(part, 1)], self.delta))

    def check_fits(self, config: TrialConfig) -> None:
        """Holds the plan against the trial that is to run under it.

        Raises:
            Refused: it is the plan of another trial.
        """
        asked = {
            "sampling_prob": config.sampling_prob,
            "steps": config.stages.private.steps,
            "delta": config.delta,
            "epsilon_target": config.epsilon,
            "relation": config.relation,
            "privacy_unit": config.privacy_unit,
        }
        differing = _differing({name: getattr(self, name) for name in asked}, asked)
        if differing:
            raise Refused(f"the plan is another trial's ({_told(differing, 'planned', 'configured')}): plan this config with plan_privacy")

    def spent(self, steps: int, epsilon: float) -> Spent:
        """What an honest trial says after `steps` steps, with the ε that the accountant gives for them."""
        return Spent(
            sampling_prob=self.sampling_prob,
            noise_multiplier=self.noise_multiplier,
            steps=steps,
            planned_steps=self.steps,
            delta=self.delta,
            epsilon=epsilon,
            relation=self.relation,
        )


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """What one attempt puts into the ledger."""

    steps: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a trial says in a report that it has spent so far.

    Attributes:
        sampling_prob, noise_multiplier, relation: of the mechanism that ran. steps: that it has taken.
        planned_steps: the horizon that it believes in.
        epsilon: after `steps`, at `delta`.
    """

    sampling_prob: float
    noise_multiplier: float
    steps: int
    planned_steps: int
    delta: float
    epsilon: float
    relation: Relation = "add_remove"


def check_spent(plan: PrivacyPlan | None, spent: Spent | None, *, step: int, done: bool, epsilon_at: EpsilonAt) -> None:
    """Holds a report against the plan that was reserved.

    | plan | report | verdict |
    |---|---|---|
    | none | says nothing of a spending | fulfilled: nothing private was read |
    | none | says that something was spent | not as planned |
    | a plan | says nothing of a spending | not as planned |
    | a plan | same q, noise multiplier, horizon, δ and relation, as many steps as it reports, their ε to 1e-6 | fulfilled |
    | a plan | anything else, or the last report before the last step | not as planned |

    Args:
        plan: of the trial; None where it spends nothing.
        spent: what the report says; step, done: of the report.
        epsilon_at: ε of the plan after so many steps.

    Raises:
        NotAsPlanned: the message names each quantity, reported and reserved.
    """
    if plan is None and spent is None:
        return
    if plan is None:
        raise NotAsPlanned(f"the report of step {step} says that privacy was spent, and nothing was reserved")
    if spent is None:
        raise NotAsPlanned(f"the report of step {step} says nothing of what it has spent")
    if not 0 <= step <= plan.last_step:
        raise NotAsPlanned(f"a report of step {step} came, {plan.last_step} steps were reserved")
    honest = plan.spent(step, spent.epsilon)
    differing = _differing(vars(spent), vars(honest))
    expected = epsilon_at(plan, step)
    if not abs(spent.epsilon - expected) <= TOLERANCE * expected:
        differing["epsilon"] = spent.epsilon, expected
    if done and step != plan.steps:
        differing["last step"] = step, plan.steps
    if differing:
        raise NotAsPlanned(f"the report of step {step} is not what was reserved ({_told(differing, 'reported', 'reserved')})")


def _differing(given: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (given[name], value) for name, value in wanted.items() if given[name] != value}


def _told(differing: dict[str, tuple[Any, Any]], given: str, wanted: str) -> str:
    return "; ".join(f"{name} {one} {given}, {other} {wanted}" for name, (one, other) in differing.items())
