"""The plan of a sweep for people: trials, noise, steps, price and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from search_spaces.space import value_at
from sweeps.pricing.advice.found import kept
from sweeps.pricing.duration import estimate_duration
from sweeps.pricing.regimes import pricing_of
from sweeps.report.overview.advice_text import advice_text
from sweeps.report.overview.worth_text import plan_worth, worth_lines
from sweeps.report.text import number, render_table
from sweeps.search.stopping import what_stopping_saves
from sweeps.search.terms import terms_of
from sweeps.terminal.lines import counted
from sweeps.terminal.program import as_called

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from sweeps.pricing.budget_split import BudgetSplit
    from sweeps.pricing.duration import Duration
    from sweeps.pricing.plan import PlannedGroup, SweepPlan
    from sweeps.pricing.regimes import RegimePrice
    from sweeps.records.spec import SweepSpec


def plan_text(spec: SweepSpec, plan: SweepPlan, duration: Duration | None = None) -> str:
    """Trials, noise, steps, price and, where it is known, time of a sweep that has not begun: what `--dry-run` prints.

    Args:
        spec, plan: of the sweep.
        duration: as it was timed; None: from an earlier sweep, if there is one.
    """
    rows = []
    for group in plan.groups:
        spending = group.spending
        noise = ["–", "–", "–", "0"]
        if spending is not None:
            noise = [_number_of_q(spending.sampling_prob), number(spending.noise_multiplier), str(spending.steps), number(group.price)]
        elif group.spendings:
            noise = [_range(group.spendings, name) for name in ("sampling_prob", "noise_multiplier", "steps")] + ["–"]
        rows.append([f"{group.epsilon:g}", "", f"{group.trials:g}", str(group.reruns), str(group.control), *noise])
    mean = " on average" if spec.space.sweep.regime.is_selection else ""
    header = ["ε", "", "trials", "fresh seeds", "controls", "q", "noise multiplier", "steps", "price at this ε"]
    parts = [
        f"plan of {spec.name}: {counted(plan.trials, 'run')}{mean}, {', '.join(plan.references) or 'no references'} once",
        render_table(header, rows),
        render_table(["accounting", "what it rests on", "sweep ε"], [_price_row(price, plan) for price in plan.prices]),
        _budget_text(spec, plan),
        "\n".join(worth_lines(spec, plan)),
        "\n".join(plan_lines(spec, plan, duration)),
        _advice_text(spec),
    ]
    return "\n\n".join(part for part in parts if part)


def _advice_text(spec: SweepSpec) -> str:
    """What can pay, where somebody has asked for this very space; else how to ask."""
    found = kept(spec.space, places=spec.places, seed=spec.seed)
    if found is None:
        return as_called("what can pay here, from PUBLIC data alone: `dpsweep advise SPACE`")
    return advice_text(found)


def _budget_text(spec: SweepSpec, plan: SweepPlan) -> str:
    """What one budget for choosing and training gives a model under each procedure, and which one is best. Empty without a budget."""
    if not plan.splits:
        return ""
    header = [
        f"total ε {spec.space.sweep.total_epsilon:g}",
        "trials",
        "fresh seeds",
        "ε of a model",
        "noise multiplier",
        "price of all",
        "set",
    ]
    rows = [
        [
            f"{'→ ' if one.is_own else '  '}{one.procedure}",
            f"{one.trials:g}",
            str(one.reruns),
            "–" if one.epsilon is None else f"{one.epsilon:g}",
            number(one.noise_multiplier),
            number(one.price),
            one.why or one.needs,
        ]
        for one in plan.splits
    ]
    best = next((one for one in plan.splits if one.is_best), None)
    said = "no procedure keeps within it" if best is None else _about_best(best)
    return f"{render_table(header, rows)}\n{said}"


def _about_best(best: BudgetSplit) -> str:
    asked = "this sweep does that" if best.is_own else f"set {best.needs}"
    return (
        f"best for as many trials on these data: {best.procedure}, whose model has the least noise (ε = {best.epsilon:g}); {asked}. Fewer "
        "trials leave more for the model and choose among less; a model that `dpsweep train` makes later is charged beside this"
    )


def _range(spendings: Sequence[Spending], name: str) -> str:
    values = [float(getattr(one, name)) for one in spendings]
    shown = _number_of_q if name == "sampling_prob" else number
    return f"{shown(min(values))} to {shown(max(values))}"


def _number_of_q(sampling_prob: float) -> str:
    """Three digits of a q that may be far below 1: 32 of 22,246 is 0.00144."""
    return f"{sampling_prob:.3f}" if sampling_prob >= 0.1 else f"{sampling_prob:.3g}"


def _price_row(price: RegimePrice, plan: SweepPlan) -> list[str]:
    mark = "→ " if price.accounting == plan.accounting else "  "
    return [f"{mark}{price.accounting}", price.basis, "–" if price.epsilon is None else number(price.epsilon)]


def steps_of(group: PlannedGroup) -> list[tuple[Spending, float]]:
    """What the search and the reruns of a group spend, each with how often."""
    if group.spending is None or group.searching is None:
        return []
    search = (group.spending, group.trials) if not group.ladder else group.searching
    return [search, (group.spending, group.reruns)]


def plan_lines(spec: SweepSpec, plan: SweepPlan, duration: Duration | None = None) -> list[str]:
    """The plan's sums: steps, the price with what `unaccounted` would not say, the cap, and the time."""
    lines = []
    if all(group.spending is not None for group in plan.groups):
        steps = sum(spending.steps * count for group in plan.groups for spending, count in steps_of(group))
        lines.append(f"private steps in all: {steps:g}")
    lines.append(plan.headline)
    if spec.warm_start is not None:
        lines.append(spec.warm_start.text(spec.name))
    trained = ", ".join(f"{number(final)} at ε = {group.epsilon:g}" for final, group in zip(plan.finals, plan.groups, strict=True))
    kept = ", for which the filter keeps room" if plan.basis.filter is not None else " beside this"
    lines.append(f"final training (dpsweep train): {trained}{kept} (each by PLD)")
    if plan.composed_epsilon is not None:
        targets = ", ".join(f"{group.epsilon:g}" for group in plan.groups)
        lines.append(
            f"unaccounted shows each trial's own epsilon ({targets}) and hides the {plan.composed_epsilon:.3g} that choosing costs"
        )
    if plan.epsilon_total is not None:
        lines.append(pricing_of(plan.accounting).cap(plan.basis, plan.epsilon_total, plan.delta))
    if plan.lifetime is not None:
        lines.append(f"cap of the dataset for all time: held by an RDP filter (order {plan.lifetime.order})")
    nominal = value_at(spec.space.trial, "data.nominal_examples")
    if isinstance(nominal, int) and plan.delta * 10 * nominal > 1 + 1e-9:
        lines.append(
            f"δ = {plan.delta:.3g} is above 1 / (10 N) = {1 / (10 * nominal):.3g}: a run may show a whole record with probability "
            f"{plan.delta * nominal:.2g}"
        )
    terms = terms_of(spec)
    if terms.stopping is not None:
        lines.append(what_stopping_saves(terms.stopping, plan.accounting))
    lines.append(terms.validation_text)
    lines += shares_lines(spec)
    duration = duration or estimate_duration(spec, plan)
    lines.append(NO_TIME if duration is None else duration.text())
    return lines


NO_TIME = "wall time: no earlier run to estimate from; `dpsweep run SPACE --dry-run --time` times some steps of each method"


def shares_lines(spec: SweepSpec) -> list[str]:
    """How the trials are divided among the methods, where there are several."""
    space, trials = spec.space, spec.space.sweep.trials_per_epsilon
    several = [epsilon for epsilon in space.sweep.epsilons if len(space.methods_at(epsilon)) > 1]
    if not several or trials is None:
        return []
    shares = space.shares_at(several[0], trials)
    if not shares:
        return [
            "trials per method: the sampler decides, so methods may get unequal searches (sweep.method_shares equal gives each as many); "
            "the report says how many each had"
        ]
    if len(set(shares.values())) == 1:
        return [f"trials per method: {next(iter(shares.values()))} of each at every ε"]
    told = ", ".join(f"{method} {share}" for method, share in shares.items())
    return [f"trials per method are unequal: {told}; a number of trials that {len(shares)} divides makes them equal"]


def plan_document(spec: SweepSpec, plan: SweepPlan, duration: Duration | None = None) -> dict[str, Any]:
    """The plan as JSON: `groups` (one per ε), `prices` (one per regime), and `seconds`, None where no earlier run tells it and nothing
    was timed. Arguments as `plan_text`."""
    duration = duration or estimate_duration(spec, plan)
    return {
        "name": spec.name,
        "accounting": plan.accounting,
        "delta": plan.delta,
        "runs": plan.trials,
        "references": list(plan.references),
        "groups": [_group_document(group, final) for group, final in zip(plan.groups, plan.finals, strict=True)],
        "prices": [asdict(price) for price in plan.prices],
        "sweep_epsilon": plan.sweep_epsilon,
        "epsilon_total": plan.epsilon_total,
        "total_epsilon": spec.space.sweep.total_epsilon,
        "splits": [asdict(one) for one in plan.splits],
        "worth": None if (worth := plan_worth(spec, plan)) is None else worth.document(),
        "seconds": None if duration is None else duration.wall_s,
    }


def _group_document(group: PlannedGroup, final: float) -> dict[str, Any]:
    return {
        "epsilon": group.epsilon,
        "trials": group.trials,
        "reruns": group.reruns,
        "control": group.control,
        "spendings": [asdict(one) for one in group.spendings],
        "price": group.price,
        "final_training": final,
    }
