"""Changes what becomes of a sweep: goes on beyond its plan, runs failed trials again, pauses it, or removes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpcore.errors import BadInput
from sweeps.api.results import Results
from sweeps.api.sweep import Plan, existing_spec, resume
from sweeps.records.folder import locked
from sweeps.records.spec import DEFAULT_STORAGE, SweepSpec


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A sweep that is to go on beyond its plan, before anything of it was changed.

    Attributes:
        plan: of the whole sweep, with what is added.
        epsilon_before, epsilon_after: of the whole sweep, reserved so far and after it, as if all had been fixed beforehand.
    """

    plan: Plan
    epsilon_before: float
    epsilon_after: float

    def __str__(self) -> str:
        spec = self.plan.spec
        at = f"at δ = {spec.space.delta:.3g} ({spec.space.sweep.accounting})"
        return (
            f"{self.plan}\n\nprice of {spec.name}: ε = {self.epsilon_before:.3g} so far, {self.epsilon_after:.3g} at most after it, {at}: "
            "by PLD, as if all trials had been fixed beforehand. What is added was chosen on earlier results; a cap over them is held by "
            "an RDP filter"
        )


def plan_extension(
    name: str,
    *,
    trials: int = 0,
    epsilons: Sequence[float] = (),
    storage: str | Path = DEFAULT_STORAGE,
    state: str | Path | None = None,
) -> Extension:
    """Plans more trials at every ε of a sweep, or further ε, and prices the whole anew. Nothing is changed.

    Args:
        name, storage, state: as for `pause`.
        trials: more per ε. epsilons: further ones.

    Raises:
        BadInput: there is no such sweep, or nothing is added. Refused: going on would be unsound, or passes a cap; the message says why.
    """
    from sweeps.pricing.extending import extended

    return _priced(extended(existing_spec(name, storage, state), trials=trials, epsilons=epsilons))


def extend(
    name: str,
    *,
    trials: int = 0,
    epsilons: Sequence[float] = (),
    storage: str | Path = DEFAULT_STORAGE,
    state: str | Path | None = None,
) -> Results:
    """Goes on with a sweep beyond its plan: more trials at every ε, or further ε, priced anew. Arguments and errors as `plan_extension`."""
    planned = plan_extension(name, trials=trials, epsilons=epsilons, storage=storage, state=state)
    return _go_on(planned.plan.spec, storage=storage, state=state)


def plan_retry(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> Extension:
    """Plans to run every failed trial of a sweep again: the same settings, fresh noise, a reservation of its own. What the failed ones
    reserved stays charged. Nothing is changed.

    Raises:
        BadInput: there is no such sweep, or none of its trials failed. Refused: as `plan_extension`.
    """
    from sweeps.pricing.extending import require_extensible
    from sweeps.records.results import read_results as read_tables

    spec = existing_spec(name, storage, state)
    found = read_tables(spec.sweep_dir).records
    failed = [one.trial_id for one in found if one.state == "failed" and one.trial_id not in spec.set_aside and not one.is_sealed]
    if not failed:
        raise BadInput(f"no trial of {name} has failed: there is nothing to run again")
    require_extensible(spec, more_trials=spec.space.sweep.stopper == "halving")
    return _priced(spec.model_copy(update={"set_aside": (*spec.set_aside, *failed), "is_extended": True}))


def retry(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> Results:
    """Runs every failed trial of a sweep again. Arguments and errors as `plan_retry`."""
    return _go_on(plan_retry(name, storage=storage, state=state).plan.spec, storage=storage, state=state)


def _priced(spec: SweepSpec) -> Extension:
    from sweeps.ledger.lifetime import check_planned, lifetime_cap
    from sweeps.ledger.totals import counted
    from sweeps.pricing.extending import plan_of_extension, price_after
    from sweeps.pricing.plan import dp_accountant, plan_sweep, sweep_price
    from sweeps.pricing.regimes import charges_under
    from sweeps.records.charged import open_ledger

    accountant = dp_accountant(spec.places.cache_dir)
    ledger = open_ledger(spec, read_only=True)
    lines = ledger.lines(sweep=spec.name)
    cohorts = {line.cohort for line in lines if line.kind == "reserve"}
    standing = [line for line in ledger.lines() if line.cohort in cohorts]
    found = plan_of_extension(spec, plan_sweep(spec.space, accountant, cache_dir=spec.places.cache_dir), lines)
    found = replace(found, basis=replace(found.basis, is_extended=True))
    terms = lifetime_cap(standing)
    if terms is not None:
        others = [line for line in counted(standing) if line.sweep != spec.name]
        planned = charges_under(found.basis, [group for group in found.groups if group.spendings]) or []
        check_planned(terms, others, planned, unit=next((line.unit for line in lines if line.unit), "image"))
    return Extension(
        plan=Plan(spec=spec, plan=found),
        epsilon_before=sweep_price(ledger, spec.name, spec.space.delta, accountant),
        epsilon_after=price_after(spec, found, standing, accountant),
    )


def _go_on(spec: SweepSpec, *, storage: str | Path, state: str | Path | None) -> Results:
    with locked(spec):
        spec.save()
    return resume(spec.name, storage=storage, state=state)


def pause(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> str:
    """Lets the running trials of a sweep end and starts no other: nothing is lost or charged twice. `resume` goes on.

    Args:
        name: of the sweep.
        storage: folder of the sweeps, or a bucket's URI.
        state: folder of study, key and spool; None: where the sweep began.

    Returns:
        What became of it, in a sentence.

    Raises:
        BadInput: there is no such sweep. Refused: no driver runs it. Unavailable: the driver does not react.
    """
    from sweeps.remote.cancelling import pause_sweep

    return pause_sweep(existing_spec(name, storage, state))


def delete(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> str:
    """Removes a sweep's results, checkpoints, studies, key and report. Its ledger lines stay, and with them its name: what was
    promised to people does not end with a folder. MLflow's runs stay too.

    Args:
        name, storage, state: as for `pause`.

    Returns:
        What is left, in a sentence.

    Raises:
        BadInput: there is no such sweep. Refused: a process runs it. Unavailable: its bucket or the studies' database can't be reached.
    """
    from sweeps.records.folder import delete_folders
    from sweeps.records.publication import delete_published
    from sweeps.search.storage import delete_studies

    spec = existing_spec(name, storage, state)
    delete_studies(spec)
    delete_published(spec)
    left = delete_folders(spec)
    witness = "" if left is None else f"; their witness is {left}"
    return f"{name} is deleted. Its ledger lines stay{witness}, and so do its runs in MLflow. The name cannot be used again"
