"""A sweep that goes on after its results were seen: more trials, more ε, or trials again that failed.

What is added was chosen on earlier results, so the whole is two sweeps on one ledger. Each of the two was fixed before it began, and PLD
prices it. Their sum by PLD is what the ledger says of any two sweeps: as if all had been fixed beforehand. A cap over them is a filter.

| regime, stopper | what is refused, and why |
|---|---|
| private_selection | all: the number of trials is one draw of a law, and the price holds for that draw |
| halving | more trials: how many go on at each rung was fixed before the first trial, and the price rests on it |
| q or the steps searched | all: the RDP filter was fixed before the first trial, with room for the planned trials |
| validation private | all: the noise of the scores was fixed for the planned number of releases |
| grid | more trials: it has each point once |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dpcore.config import parse_config
from dpcore.errors import BadInput, Refused
from search_spaces.space import SpaceFile
from sweeps.records.trial_id import TrialId, epsilon_name

if TYPE_CHECKING:
    from sweeps.ledger.lines import LedgerLine, Reservation
    from sweeps.pricing.plan import Accountant, SweepPlan
    from sweeps.records.spec import SweepSpec


def extended(spec: SweepSpec, *, trials: int, epsilons: Sequence[float]) -> SweepSpec:
    """The spec with `trials` more at each ε, and with further ε.

    Raises:
        BadInput: nothing is added, or an ε is there already. Refused: it would be unsound; the message says why.
    """
    sweep = spec.space.sweep
    if not trials and not epsilons:
        raise BadInput("extend: give --trials +N, --epsilons E,E, or both")
    there = [epsilon for epsilon in epsilons if epsilon in sweep.epsilons]
    if there:
        named = ", ".join(map(epsilon_name, there))
        raise BadInput(f"extend --epsilons: {named} is searched already; --trials +N adds trials at every ε")
    require_extensible(spec, more_trials=bool(trials))
    document = spec.space.document()
    document["sweep"]["epsilons"] = [*sweep.epsilons, *epsilons]
    if trials and sweep.trials_per_epsilon is not None:
        document["sweep"]["trials_per_epsilon"] = sweep.trials_per_epsilon + trials
    space = parse_config(SpaceFile, document)
    return spec.model_copy(update={"space": space, "is_extended": True})


def require_extensible(spec: SweepSpec, *, more_trials: bool) -> None:
    """Refuses a sweep that must not go on beyond its plan. `more_trials`: at an ε that it has searched.

    Raises:
        Refused: why, and what to do instead.
    """
    sweep = spec.space.sweep
    instead = f"begin a sweep of another --name; --warm-start {spec.name} gives it the best settings of this one"
    if sweep.regime.is_selection:
        raise Refused(f"{sweep.accounting}: the number of trials is one draw of its law, and the price is for that draw; {instead}")
    if spec.privacy_filter is not None:
        raise Refused(f"the RDP filter of {spec.name} was fixed before its first trial, with room for the planned trials; {instead}")
    if sweep.validation == "private":
        raise Refused(f"validation private: the noise of the scores was fixed for the planned number of releases; {instead}")
    if more_trials and sweep.stopper == "halving":
        raise Refused(f"stopper halving: how many trials go on at each rung was fixed before the first one, as its price is; {instead}")
    if more_trials and sweep.sampler_traits.is_listed:
        raise Refused(f"sampler {sweep.sampler} has each point once; {instead}")


def plan_of_extension(spec: SweepSpec, plan: SweepPlan, standing: Sequence[LedgerLine]) -> SweepPlan:
    """The plan of an extended sweep with the reruns that stand already: where the winner changes, its reruns come on top."""
    reruns: dict[float, int] = {}
    for line in standing:
        trial = TrialId.parse(line.trial_id)
        is_again = str(trial.trial) in spec.set_aside
        if line.sweep == spec.name and line.kind == "reserve" and trial.kind == "seed" and trial.epsilon is not None and not is_again:
            reruns[trial.epsilon] = reruns.get(trial.epsilon, 0) + 1
    groups = tuple(replace(group, reruns=group.reruns + reruns.get(group.epsilon, 0)) for group in plan.groups)
    return replace(plan, groups=groups)


def price_after(spec: SweepSpec, plan: SweepPlan, standing: Sequence[LedgerLine], accountant: Accountant) -> float:
    """ε of the whole sweep once the extension has run, at most; what it was charged beyond its plan (retries, failed trials) included.

    Raises:
        Refused: `epsilon_total`, held by an RDP filter from now on, leaves no room.
    """
    from dpcore.privacy.composition import AtOrder, order_for
    from sweeps.ledger.charges import charges_of
    from sweeps.ledger.totals import counted
    from sweeps.pricing.regimes import charges_under

    own = [line for line in counted(standing) if line.sweep == spec.name]
    planned = charges_under(plan.basis, [group for group in plan.groups if group.spendings]) or []
    failed = _beyond_the_plan(spec, own)
    after = accountant.compose([*planned, *charges_of(failed)], plan.delta)
    cap = plan.epsilon_total
    if cap is not None:
        others = charges_of([line for line in counted(standing) if line.sweep != spec.name])
        everything = [*others, *planned, *charges_of(failed), (AtOrder(order_for(cap, plan.delta)), 1)]
        capped = accountant.compose(everything, plan.delta)
        if capped > cap:
            raise Refused(
                f"sweep.epsilon_total is {cap:g}, and the extended sweep would bring its people to {capped:.4g} at delta {plan.delta:g}, "
                "by an RDP filter, because what is added was chosen on earlier results; add fewer trials"
            )
    total = spec.space.sweep.total_epsilon
    if total is not None and after > total:
        raise Refused(
            f"sweep.total_epsilon of {spec.name} is {total:g}, and the extended sweep would cost {after:.4g} at delta {plan.delta:g}; "
            "begin a sweep of another --name with another budget"
        )
    return after


def _beyond_the_plan(spec: SweepSpec, own: Sequence[LedgerLine | Reservation]) -> list[LedgerLine | Reservation]:
    """Reservations that no planned run makes again: later attempts, and trials that were set aside."""
    return [line for line in own if line.attempt or str(TrialId.parse(line.trial_id).trial) in spec.set_aside]
