"""What a private run costs, and the noise that a budget buys.

dp-accounting is the accountant. Trials and sweeps are priced by PLD (privacy loss distributions: numerically tight upper
bounds for composed, Poisson-subsampled Gaussians). Private selection is priced by RDP (Mironov 2017; Papernot and Steinke 2022,
arXiv:2110.03620), which also serves as a cross-check, or by the profile of one run (`dpcore.privacy.selection`).

A claim of replacement is priced by PLD alone, at the same noise over the same clip norm: that a replaced unit moves the sum by
up to twice the norm is in its loss distribution, no factor of 2 comes on top.

What happened is data (`Spending`), how it is bounded is code. Torch-free, so that a driver can price a sweep. What was computed once
is read from disk, and the accountant, a second of imports (`dpcore.privacy.losses`), is imported only to compute.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dpcore.config import Relation, TrialConfig
from dpcore.errors import BadInput, NotAsPlanned, Refused
from dpcore.privacy.grid import FINAL_INTERVAL, LARGEST_EPSILON, LARGEST_NOISE, RULE
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.plan import Spending as Spending
from dpcore.privacy.remembered import Key, remembered

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

AccountantName = Literal["pld", "rdp"]

SELECTION_ORDERS = (*(tenth / 10 for tenth in range(16, 100)), *range(10, 64), 128, 256, 512, 1024)
"""Where RDP bounds a private selection. With tenths 24 trials at ε 8 (q .064, 60 steps) cost 16.00 and not 16.71. Orders
whose series does not converge are left out."""


def plan_privacy(config: TrialConfig, cache_dir: Path | None = None) -> PrivacyPlan | None:
    """The calibrated plan of a trial; None for one that spends nothing or (nonprivate) has no finite ε.

    Guarantees: epsilon_planned <= config.epsilon at config.delta under config.relation for all private steps, by PLD at interval
    1e-4.
    """
    if not config.spends_privacy:
        return None
    if config.epsilon is None or config.delta is None:
        raise BadInput(f"method {config.method} needs epsilon and delta")
    steps, relation = config.stages.private.steps, config.relation
    noise = calibrate(config.sampling_prob, steps, delta=config.delta, epsilon=config.epsilon, relation=relation, cache_dir=cache_dir)
    planned = _pld_epsilon(Spending(config.sampling_prob, noise, steps, relation), config.delta, cache_dir)
    if planned > config.epsilon:
        raise Refused(f"calibration spends {planned} where {config.epsilon} was granted: the accountant is not deterministic here")
    return PrivacyPlan(
        sampling_prob=config.sampling_prob,
        steps=steps,
        noise_multiplier=noise,
        delta=config.delta,
        epsilon_target=config.epsilon,
        epsilon_planned=planned,
        relation=relation,
        privacy_unit=config.privacy_unit,
    )


def epsilon_spent(plan: PrivacyPlan, steps_done: int, cache_dir: Path | None = None) -> float:
    """ε at the plan's δ after `steps_done` of its steps: 0 before the first, `epsilon_planned` after the last.

    Raises:
        BadInput: steps_done is not between 0 and plan.steps.
    """
    if not 0 <= steps_done <= plan.steps:
        raise BadInput(f"steps_done must lie between 0 and the {plan.steps} planned steps, given {steps_done}")
    if steps_done == 0:
        return 0.0
    if steps_done == plan.steps:
        return plan.epsilon_planned
    return _pld_epsilon(replace(plan.spending, steps=steps_done), plan.delta, cache_dir)


def verify_executed(plan: PrivacyPlan, executed: Spending) -> None:
    """Holds what the mechanism did against what was reserved.

    Raises:
        NotAsPlanned: another q, noise multiplier or relation was used, or more steps were taken than planned.
    """
    if replace(executed, steps=plan.steps) != plan.spending or executed.steps > plan.steps:
        raise NotAsPlanned(f"executed {executed} does not fit the plan {plan.spending}: charge what was executed and stop this trial")


def epsilon_of(spending: Spending, delta: float, *, accountant: AccountantName = "pld", cache_dir: Path | None = None) -> float:
    """ε of one run at `delta`; inf for a release without noise, 0 for no steps. `cache_dir` remembers what PLD gives.

    Raises:
        BadInput: delta is not in (0, 1), or the accountant is unknown.
        Refused: RDP is asked for a claim of replacement.
    """
    check_delta(delta)
    if accountant not in ("pld", "rdp"):
        raise BadInput(f"accountant must be pld or rdp, given {accountant}")
    if accountant == "pld":
        return _pld_epsilon(spending, delta, cache_dir)
    refuse_replacement(spending, "RDP")
    from dpcore.privacy.losses import rdp_epsilon

    return rdp_epsilon(spending.event(), delta)


def compose(spendings: Iterable[tuple[Spending, int]], delta: float, *, cache_dir: Path | None = None) -> float:
    """ε at `delta` of all runs together, each given with how often it ran. Holds for adaptive choices between them as long
    as q, noise multiplier and steps of each were fixed beforehand.

    Runs of one q and noise multiplier are joined first: one self-composition is cheaper and tighter than many. Above ε 10 the grid
    grows with ε (`dpcore.privacy.grid`): there the number is at most a thousandth above that at 1e-4, never below it. One run priced for
    replacement makes the whole sum a claim of replacement: every run has such a price too, and no other number would hold for all.

    Raises:
        BadInput: a negative count, or delta outside (0, 1).
    """
    check_delta(delta)
    runs: Counter[Spending] = Counter()
    for spending, count in spendings:
        if count < 0:
            raise BadInput(f"a run cannot have happened {count} times")
        if count and spending.steps and spending.sampling_prob:
            runs[spending] += count
    joined = _joined(runs)
    if not joined:
        return 0.0
    if sum(runs.values()) == 1:
        return _pld_epsilon(joined[0], delta, cache_dir)
    laws = ";".join(f"{run.sampling_prob!r},{run.noise_multiplier!r},{run.steps}" for run in joined)
    key: Key = {"laws": laws, "delta": delta, "relation": joined[0].relation, "grid": RULE}
    return remembered_price("compose", key, cache_dir, lambda: _epsilon_of_all(joined, delta))


def _joined(runs: Mapping[Spending, int]) -> tuple[Spending, ...]:
    """One run per q and noise multiplier, with the steps of all."""
    relation: Relation = "replace" if any(run.relation == "replace" for run in runs) else "add_remove"
    steps_of: Counter[tuple[float, float]] = Counter()
    for run, count in runs.items():
        steps_of[run.sampling_prob, run.noise_multiplier] += run.steps * count
    return tuple(Spending(*law, steps, relation) for law, steps in sorted(steps_of.items()))


def _epsilon_of_all(joined: tuple[Spending, ...], delta: float) -> float:
    from dpcore.privacy.losses import epsilon_of_all

    return epsilon_of_all(joined, delta)


def calibrate(
    sampling_prob: float,
    steps: int,
    *,
    delta: float,
    epsilon: float,
    relation: Relation = "add_remove",
    cache_dir: Path | None = None,
) -> float:
    """The smallest noise multiplier (to 1e-5 of itself, on the private side) that spends at most `epsilon` at `delta`.

    A closed form starts the search, PLD at interval 1e-3 narrows it, PLD at 1e-4 decides (`noise_search`): the result satisfies
    epsilon_of(..., "pld") <= epsilon, exactly as evaluated. Remembered on disk by (q, T, δ, ε, relation).

    Raises:
        BadInput: an argument out of range; an ε above 200, where the method nonprivate says more honestly what is done; an ε
            below what the largest noise multiplier reaches.
    """
    check_delta(delta)
    if not (0.0 < epsilon <= LARGEST_EPSILON):
        raise BadInput(f"epsilon must lie in (0, {LARGEST_EPSILON:g}], given {epsilon}")
    if not 0.0 < sampling_prob <= 1.0 or steps < 1:
        raise BadInput(f"calibration needs sampling_prob in (0, 1] and steps of at least 1, given {sampling_prob} and {steps}")
    law: Key = {"sampling_prob": sampling_prob, "steps": steps, "delta": delta, "epsilon": epsilon, "relation": relation}
    loudest = Spending(sampling_prob, LARGEST_NOISE, steps, relation)
    return remembered(_folder(cache_dir), _key("calibrate", law), lambda: _search_noise(loudest, delta=delta, epsilon=epsilon))


def _search_noise(loudest: Spending, *, delta: float, epsilon: float) -> float:
    from dpcore.privacy.noise_search import search_noise

    return search_noise(loudest, delta=delta, epsilon=epsilon)


def _pld_epsilon(spending: Spending, delta: float, cache_dir: Path | None) -> float:
    law: Key = {
        "sampling_prob": spending.sampling_prob,
        "noise_multiplier": spending.noise_multiplier,
        "steps": spending.steps,
        "delta": delta,
        "relation": spending.relation,
    }
    return remembered(_folder(cache_dir), _key("epsilon", law), lambda: _pld_at(spending, delta, FINAL_INTERVAL))


def _pld_at(spending: Spending, delta: float, interval: float) -> float:
    from dpcore.privacy.losses import epsilon_at_interval

    return epsilon_at_interval(spending, delta, interval)


def loss_of(spending: Spending) -> PrivacyLossDistribution:
    """The privacy loss distribution of one run that adds or removes a unit, at FINAL_INTERVAL.

    Raises:
        Refused: a claim of replacement.
    """
    refuse_replacement(spending, "a composition with private selections")
    from dpcore.privacy.losses import loss_of_steps

    return loss_of_steps(spending, FINAL_INTERVAL)


def refuse_replacement(spending: Spending, what: str) -> None:
    """Stops whoever has no bound for a claim of replacement.

    Raises:
        Refused: `spending` is priced for one.
    """
    if spending.relation == "replace":
        raise Refused(f"{what} gives no bound for a unit replaced by another: take PLD, or relation add_remove")


def remembered_price(what: str, law: Key, cache_dir: Path | None, compute: Callable[[], float]) -> float:
    """A price that depends on `law`, the grid of losses and the library alone, kept below `cache_dir`."""
    return remembered(_folder(cache_dir), _key(what, law), compute)


def _key(what: str, law: Key) -> Key:
    return {"what": what, **law, "interval": FINAL_INTERVAL, "dp_accounting": _library_version()}


@functools.cache
def _library_version() -> str:
    return version("dp-accounting")


def _folder(cache_dir: Path | None) -> Path | None:
    return None if cache_dir is None else cache_dir / "accounting"


def check_delta(delta: float) -> None:
    """Refuses a δ outside (0, 1).

    Raises:
        BadInput: it lies there.
    """
    if not 0.0 < delta < 1.0:
        raise BadInput(f"delta must lie in (0, 1), given {delta}")
