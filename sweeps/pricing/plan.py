"""Computes what a sweep costs: before it runs (the plan), and so far (the ledger's reservations)."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import TrialConfig
from dpcore.errors import BadInput, Refused
from search_spaces.admission import admissible_grid
from search_spaces.regimes import REGIMES
from search_spaces.space import SPENDING_PATHS, Choice, SpaceFile
from sweeps.ledger.charges import FilterTerms, charges_of
from sweeps.ledger.ledger import Ledger, LedgerLine
from sweeps.ledger.lifetime import check_planned, lifetime_cap
from sweeps.ledger.room import Compose, fixed_order, total
from sweeps.ledger.totals import counted, seen_per
from sweeps.pricing.budget_split import BudgetSplit
from sweeps.pricing.halving import ladder_of
from sweeps.pricing.regimes import Basis, RegimePrice, charges_under, headline, pricing_of, promise_of, regime_prices
from sweeps.records.references import free_references

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Filtered
    from dpcore.privacy.ladder import Rung
    from dpcore.privacy.plan import PrivacyPlan
    from sweeps.records.results import SweepResults

DRAWS = 50
"""How many draws are tried to find one that spends privacy."""


@dataclass(frozen=True, kw_only=True)
class Accountant:
    """The three functions that a sweep needs for accounting.

    Attributes:
        plan: gives the calibrated plan of a trial, or None if it spends nothing.
        compose: gives ε at δ of several runs together.
        spent: gives ε of a plan after so many of its steps.
    """

    plan: Callable[[TrialConfig, Path | None], PrivacyPlan | None]
    compose: Compose
    spent: Callable[[PrivacyPlan, int, Path | None], float]


def dp_accountant(cache_dir: Path | None = None) -> Accountant:
    """The accountant of dpcore, which uses dp-accounting. The import takes about a second. `cache_dir` stores compositions."""
    from dpcore.privacy.accounting import epsilon_spent, plan_privacy
    from dpcore.privacy.composition import price

    return Accountant(plan=plan_privacy, compose=functools.partial(price, cache_dir=cache_dir), spent=epsilon_spent)


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """The trials of one ε.

    Attributes:
        trials: number of search trials (under private_selection the mean). They are priced.
        reruns: number of reruns of the winner, or of the best trial of each method. They are priced.
        control: 0 or 1; it is free.
        spendings: what a priced trial may spend. One entry if q and the steps are fixed, else the corners of the searched ranges. Empty
            if no method spends.
        ladder: the rungs of `stopper: halving`; empty: every trial takes all its steps.
        price: ε at the sweep's δ of only this group under the sweep's regime; None if an RDP filter prices the sweep.
    """

    epsilon: float
    trials: float
    reruns: int
    control: int
    spendings: tuple[Spending, ...]
    ladder: tuple[Rung, ...] = ()
    price: float | None = None

    @property
    def spending(self) -> Spending | None:
        """Spending of each priced trial; None if q or the steps are searched, or no method spends."""
        return self.spendings[0] if len(self.spendings) == 1 else None

    @property
    def searching(self) -> tuple[Spending, int] | None:
        """What the search trials spend, and how often; on a ladder all together once. None where `spending` is."""
        if self.spending is None or not self.ladder:
            return None if self.spending is None else (self.spending, round(self.trials))
        from dpcore.privacy.ladder import ladder_spending

        return ladder_spending(self.spending, self.ladder), 1


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What `--dry-run` shows.

    Attributes:
        references: ids of the free runs: floors and ceiling.
        basis: the regime, with the filter that the sweep opens or the law of its selection.
        prices: the price under each regime.
        finals: per ε, what `dpsweep train` charges for a model of the winner's settings.
        epsilon_total: the sweep's own cap. lifetime: the filter that caps the people of its dataset for all time.
        splits: where the sweep has one budget for choosing and training, what it gives a model under each procedure.
    """

    groups: tuple[PlannedGroup, ...]
    references: tuple[str, ...]
    basis: Basis
    delta: float
    prices: tuple[RegimePrice, ...]
    finals: tuple[float, ...]
    epsilon_total: float | None
    lifetime: FilterTerms | None = None
    splits: tuple[BudgetSplit, ...] = ()

    @property
    def accounting(self) -> str:
        """The regime."""
        return self.basis.accounting

    @property
    def trials(self) -> float:
        """Number of all runs, references included. Under private_selection it is the mean."""
        return len(self.references) + sum(group.trials + group.reruns + group.control for group in self.groups)

    @property
    def composed_epsilon(self) -> float | None:
        """ε of the whole sweep under `composed`."""
        return self.price_under("composed")

    @property
    def sweep_epsilon(self) -> float | None:
        """ε under the sweep's own regime; None under `unaccounted`."""
        return self.price_under(self.accounting)

    def price_under(self, accounting: str) -> float | None:
        """ε under a regime."""
        return next(price.epsilon for price in self.prices if price.accounting == accounting)

    @property
    def headline(self) -> str:
        """The price in words, the headline of a report."""
        epsilon = self.sweep_epsilon if REGIMES.get(self.accounting).is_promise else self.composed_epsilon
        return headline(self.basis, delta=self.delta, epsilon=epsilon)


def plan_sweep(
    space: SpaceFile, accountant: Accountant, *, standing: Sequence[LedgerLine] = (), cache_dir: Path | None = None
) -> SweepPlan:
    """Prices a sweep that has not begun. Calibration takes seconds per ε and is then cached.

    Args:
        space: the search space.
        accountant: plans and composes.
        standing: the ledger's lines of the private dataset so far. A filter gets what `epsilon_total` leaves beside them.
        cache_dir: folder that stores calibrations.

    Raises:
        Refused: `epsilon_total` leaves no room for a filter.
    """
    bare = [_group(space, epsilon, accountant, cache_dir) for epsilon in space.sweep.epsilons]
    opened, law = _filter(space, bare, standing), space.sweep.selection
    basis = Basis(accounting=space.sweep.accounting, filter=opened, law=law, promise=promise_of(space))
    groups = tuple(_priced(group, basis, accountant, space.delta) for group in bare)
    finals = [max((accountant.compose([(one, 1)], space.delta) for one in group.spendings), default=0.0) for group in groups]
    return SweepPlan(
        groups=groups,
        references=tuple(reference.trial_id for reference in free_references(space, seed=0)),
        basis=basis,
        delta=space.delta,
        prices=regime_prices(basis, groups, delta=space.delta, compose=accountant.compose),
        finals=tuple(finals),
        epsilon_total=space.sweep.epsilon_total,
        lifetime=lifetime_cap(standing),
    )


def check_cap(plan: SweepPlan, standing: Sequence[LedgerLine], accountant: Accountant, *, unit: str) -> None:
    """Refuses a sweep whose plan, added to what the dataset was charged already, exceeds `epsilon_total`.

    Raises:
        Refused: it would exceed the cap. Nothing has been written.
    """
    planned = charges_under(plan.basis, [group for group in plan.groups if group.spendings]) or []
    terms = lifetime_cap(standing)
    if terms is not None:
        check_planned(terms, counted(standing), planned, unit)
    if plan.epsilon_total is None or plan.basis.filter is not None:  # a filter has been cut to the cap, and stops the sweep there
        return
    is_open = any(line.kind == "unseal" for line in standing)
    seen, reason = seen_per(counted(standing), unit)
    if reason:
        raise Refused(f"sweep.epsilon_total {plan.epsilon_total:g} cannot be held: {reason}")
    fixed = fixed_order(seen, "", plan.epsilon_total, plan.delta)  # whatever stands is of other sweeps
    after = math.inf if is_open else accountant.compose([*charges_of(seen), *planned, *fixed], plan.delta)
    if after > plan.epsilon_total:
        raise Refused(
            f"sweep.epsilon_total is {plan.epsilon_total:g}, the {plan.trials:g} planned trials would bring the dataset to {after:.4g} at "
            f"delta {plan.delta:g} (it already has {len(counted(standing))} reservations); plan fewer trials or raise the cap"
        )


def sweep_price(ledger: Ledger, sweep: str, delta: float, accountant: Accountant) -> float:
    """ε at δ of everything that a sweep has reserved so far, for the cohort that it charges most.

    With a filter it is the whole budget from the first trial on. People to train on and people to validate on are different cohorts, and
    each cohort has its own sum.

    Raises:
        Refused: the ledger went back in time, so that its sum would be too low.
    """
    ledger.require_whole()
    lines = ledger.lines(sweep=sweep)
    cohorts = {line.cohort for line in lines}
    return max((total((line for line in lines if line.cohort == cohort), delta, accountant.compose) for cohort in cohorts), default=0.0)


def priced(results: SweepResults, ledger: Ledger, accountant: Accountant) -> SweepResults:
    """The results with the price of their sweep, from the current ledger."""
    reserved = sweep_price(ledger, results.name, results.delta, accountant)
    charged = reserved if REGIMES.get(results.accounting).is_promise else None
    return replace(results, sweep_epsilon=charged, composed_epsilon=reserved)


def planned_runs(space: SpaceFile) -> int:
    """Number of all runs of a sweep, references included."""
    control = int(space.references.control and space.has_feature_methods)
    at_epsilons = (trials_at(space, epsilon) + space.reruns_at(epsilon) + control for epsilon in space.sweep.epsilons)
    return len(free_references(space, seed=0)) + sum(at_epsilons)


def trials_at(space: SpaceFile, epsilon: float) -> int:
    """The number of search trials at `epsilon`, for regimes in which it is not secret."""
    asked = space.sweep.trials_per_epsilon
    return len(admissible_grid(space, epsilon)) if asked is None else asked


def _group(space: SpaceFile, epsilon: float, accountant: Accountant, cache_dir: Path | None) -> PlannedGroup:
    law = space.sweep.selection
    return PlannedGroup(
        epsilon=epsilon,
        trials=trials_at(space, epsilon) if law is None else law.mean_trials,
        reruns=space.reruns_at(epsilon),
        control=int(space.references.control and space.has_feature_methods),
        spendings=spendings_at(space, epsilon, accountant, cache_dir),
        ladder=() if law is not None else ladder_of(space, trials_at(space, epsilon)),
    )


def _priced(group: PlannedGroup, basis: Basis, accountant: Accountant, delta: float) -> PlannedGroup:
    charges = None if basis.filter is not None else charges_under(basis, [group])
    return replace(group, price=accountant.compose(charges, delta) if charges else None if charges is None else 0.0)


def price_at(space: SpaceFile, accountant: Accountant, cache_dir: Path | None) -> float:
    """ε of the whole procedure of a space whose q and steps are fixed: all trials and fresh seeds under its regime; where choosing reads no
    private data, the final training.

    Raises:
        Refused: the regime cannot price it.
    """
    groups = [_group(space, epsilon, accountant, cache_dir) for epsilon in space.sweep.epsilons]
    spending = [group for group in groups if group.spendings]
    if not space.sweep.regime.reads_private:
        return max((accountant.compose([(one, 1)], space.delta) for group in spending for one in group.spendings), default=0.0)
    basis = Basis(accounting=space.sweep.accounting, law=space.sweep.selection, promise=promise_of(space))
    charges = charges_under(basis, spending)
    if charges is None:
        raise Refused(
            f"{space.sweep.accounting} cannot price this sweep: {pricing_of(space.sweep.accounting).compared(basis, groups, fits=False)}"
        )
    return accountant.compose(charges, space.delta) if charges else 0.0


def _filter(space: SpaceFile, groups: Sequence[PlannedGroup], standing: Sequence[LedgerLine]) -> Filtered | None:
    """The filter of a sweep that searches q or the steps.

    Its budget allows every trial, rerun and one final training per ε to be the most expensive corner of the space. `epsilon_total` can
    make it smaller.
    """
    spending = [([*group.spendings], round(group.trials) + group.reruns + 1) for group in groups if group.spendings]
    if not space.sweep.regime.reads_private or not space.searches_spending or not spending:
        return None
    from dpcore.privacy.composition import open_filter

    return open_filter(spending, space.delta, cap=space.sweep.epsilon_total, standing=charges_of(counted(standing)))


def spendings_at(space: SpaceFile, epsilon: float, accountant: Accountant, cache_dir: Path | None) -> tuple[Spending, ...]:
    """What a private trial at `epsilon` may spend. One entry if the space fixes q and the steps, else one per corner of their ranges and
    value of their choices."""
    config = private_config(space, epsilon)
    if config is None:
        return ()
    searched = {path: p for path, p in space.parameters_at(epsilon).items() if path in SPENDING_PATHS}
    ends = [p.choice if isinstance(p, Choice) else p.bounds for p in searched.values()]
    found: dict[Spending, None] = {}
    refusal: BadInput | None = None
    for corner in itertools.product(*ends):
        try:
            plan = accountant.plan(config.changed(**dict(zip(searched, corner, strict=True))), cache_dir)
        except BadInput as error:  # TrialConfig refuses this corner, for example a batch larger than N
            refusal = error
            continue
        if plan is not None:
            found[plan.spending] = None
    if not found and not searched:
        raise BadInput(f"epsilon {epsilon:g}: {refusal}")
    if not found:
        raise BadInput(f"no corner of {', '.join(searched)} is admissible at epsilon {epsilon:g}: {refusal}; narrow their ranges")
    return tuple(found)


def private_config(space: SpaceFile, epsilon: float) -> TrialConfig | None:
    """A draw that spends privacy, or would without its proxy; None if there is none. Constraints are left out of account: what a
    trial spends does not depend on them, and one that makes private draws rare must not make them look free."""
    generator, space = random.Random(0), space.unconstrained
    for _ in range(DRAWS):
        for method in sorted(space.private_methods):
            try:
                config = space.trial_config(epsilon, space.draw(epsilon, generator, forced={"method": method})).without_proxy()
            except BadInput:
                continue
            if config.spends_privacy:
                return config
    return None
