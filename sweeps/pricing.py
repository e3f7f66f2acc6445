"""What a sweep costs: before it runs (the plan) and as it stands (the ledger's reservations)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import PRIVATE_METHODS, TrialConfig
from dpcore.errors import Refused
from search_spaces.admission import admissible_grid
from search_spaces.space import SpaceFile, value_at
from sweeps.ledger import Compose, Ledger, total
from sweeps.references import free_references

if TYPE_CHECKING:
    from dpcore.privacy.accounting import PrivacyPlan, Spending

NO_GUARANTEE = "no end-to-end guarantee"


@dataclass(frozen=True, kw_only=True)
class Accountant:
    """The two questions that a sweep asks of accounting.

    Attributes:
        plan: a trial's calibrated plan, None for one that spends nothing.
        compose: ε at δ of runs together.
    """

    plan: Callable[[TrialConfig, Path | None], PrivacyPlan | None]
    compose: Compose


def dp_accountant() -> Accountant:
    """dp-accounting by way of dpcore; the import takes about a second."""
    from dpcore.privacy.accounting import plan_privacy
    from dpcore.privacy.composition import price

    return Accountant(plan=plan_privacy, compose=price)


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """The trials of one ε.

    Attributes:
        trials: of the search; reruns: of the winner. Both are priced. control: 0 or 1, free.
        spending: of each priced trial; None where q or the steps are searched, or no method spends.
        price: ε at the sweep's δ of this group alone; None where `spending` is.
    """

    epsilon: float
    trials: int
    reruns: int
    control: int
    spending: Spending | None
    price: float | None


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What `--dry-run` shows.

    Attributes:
        references: ids of the free runs: floors and ceiling.
        composed_epsilon: of the whole sweep under `composed`; None where q or the steps are searched.
        sweep_epsilon: under the sweep's own regime; None under `unaccounted`.
    """

    groups: tuple[PlannedGroup, ...]
    references: tuple[str, ...]
    accounting: str
    delta: float
    composed_epsilon: float | None
    sweep_epsilon: float | None
    epsilon_total: float | None

    @property
    def trials(self) -> int:
        """All runs, references included."""
        return len(self.references) + sum(group.trials + group.reruns + group.control for group in self.groups)

    @property
    def headline(self) -> str:
        """The price in words; the first thing that a report says."""
        composed = "priced as it goes (q or the steps are searched)" if self.composed_epsilon is None else f"{self.composed_epsilon:.3g}"
        return headline(self.accounting, self.delta, composed)


def headline(accounting: str, delta: float, composed: str) -> str:
    """One line on what the sweep as a whole guarantees."""
    if accounting == "unaccounted":
        return f"{NO_GUARANTEE} (accounting unaccounted; composed would be epsilon {composed} at delta {delta:g})"
    return f"sweep epsilon {composed} at delta {delta:g} (composition of all its trials)"


def plan_sweep(space: SpaceFile, accountant: Accountant, *, cache_dir: Path | None = None) -> SweepPlan:
    """Prices a sweep that has not begun. Calibration takes seconds per ε, then it is cached."""
    spendings = {epsilon: _spending_at(space, epsilon, accountant, cache_dir) for epsilon in space.sweep.epsilons}
    groups, events = [], []
    for epsilon, spending in spendings.items():
        trials, reruns = trials_at(space, epsilon), space.references.winner_seeds
        own = [] if spending is None else [(spending, trials + reruns)]
        events += own
        groups.append(
            PlannedGroup(
                epsilon=epsilon,
                trials=trials,
                reruns=reruns,
                control=int(space.references.control and space.has_feature_methods),
                spending=spending,
                price=accountant.compose(own, space.delta) if own else None,
            )
        )
    composed = accountant.compose(events, space.delta) if len(events) == len(groups) else None
    return SweepPlan(
        groups=tuple(groups),
        references=tuple(reference.trial_id for reference in free_references(space, seed=0)),
        accounting=space.sweep.accounting,
        delta=space.delta,
        composed_epsilon=composed,
        sweep_epsilon=composed if space.sweep.accounting == "composed" else None,
        epsilon_total=space.sweep.epsilon_total,
    )


def check_cap(plan: SweepPlan, ledger: Ledger | None, *, cohort: str, accountant: Accountant) -> None:
    """Refuses a sweep whose plan, on top of what the dataset has been charged already, passes `epsilon_total`.

    Raises:
        Refused: it would; nothing has been touched.
    """
    if plan.epsilon_total is None:
        return
    standing: Sequence[Spending] = (
        ()
        if ledger is None
        else [line.spending for line in ledger.lines(cohort=cohort) if line.kind == "reserve" and line.event == "gaussian"]
    )
    planned = [(group.spending, group.trials + group.reruns) for group in plan.groups if group.spending is not None]
    after = accountant.compose([*((spending, 1) for spending in standing), *planned], plan.delta)
    if after > plan.epsilon_total:
        raise Refused(
            f"sweep.epsilon_total is {plan.epsilon_total:g}, the {plan.trials} planned trials would bring the dataset to {after:.4g} at "
            f"delta {plan.delta:g} ({len(standing)} reservations stand already); plan fewer trials or raise the cap"
        )


def sweep_price(ledger: Ledger, sweep: str, delta: float, accountant: Accountant) -> float:
    """ε at δ of all that a sweep has reserved so far, of the cohort that it charges most: people to train on and people to
    validate on are others, and each is promised their own sum."""
    lines = ledger.lines(sweep=sweep)
    cohorts = {line.cohort for line in lines}
    return max((total((line for line in lines if line.cohort == cohort), delta, accountant.compose) for cohort in cohorts), default=0.0)


def planned_runs(space: SpaceFile) -> int:
    """All runs of a sweep, references included."""
    per_epsilon = space.references.winner_seeds + int(space.references.control and space.has_feature_methods)
    return len(free_references(space, seed=0)) + sum(trials_at(space, epsilon) + per_epsilon for epsilon in space.sweep.epsilons)


def trials_at(space: SpaceFile, epsilon: float) -> int:
    """The number of search trials at `epsilon`."""
    asked = space.sweep.trials_per_epsilon
    return len(admissible_grid(space, epsilon)) if asked is None else asked


def _spending_at(space: SpaceFile, epsilon: float, accountant: Accountant, cache_dir: Path | None) -> Spending | None:
    """What every private trial at `epsilon` spends, when the space fixes it: no draw moves q or the steps."""
    paths = ("stages.private.steps", "stages.private.expected_batch_size", "data.nominal_examples")
    if any(path in space.parameters_at(epsilon) for path in paths) or not PRIVATE_METHODS.intersection(space.methods):
        return None
    values = {
        "method": "dpsgd",
        "epsilon": epsilon,
        "delta": space.delta,
        "clip_norm": 1.0,
        "data": space.trial.get("data"),
        "stages": {"private": value_at(space.trial, "stages.private")},
        "relation": space.trial.get("relation", "add_remove"),
    }
    plan = accountant.plan(TrialConfig.model_validate(values), cache_dir)
    return None if plan is None else plan.spending
