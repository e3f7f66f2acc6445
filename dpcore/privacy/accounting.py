"""What a private run costs, and the noise that a budget buys.

dp-accounting is the accountant. Trials and sweeps are priced by PLD (privacy loss distributions: numerically tight upper
bounds for composed, Poisson-subsampled Gaussians). Private selection is priced by RDP (Mironov 2017; Papernot and Steinke 2022,
arXiv:2110.03620), which also serves as a cross-check, or by the profile of one run (`dpcore.privacy.selection`).

A claim of replacement is priced by PLD alone, at the same noise over the same clip norm: that a replaced unit moves the sum by
up to twice the norm is in its loss distribution, no factor of 2 comes on top.

What happened is data (`Spending`), how it is bounded is code. Torch-free, so that a driver can price a sweep.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from dp_accounting import NeighboringRelation, dp_event, pld, rdp
from scipy.optimize import brentq

from dpcore.config import Relation, TrialConfig
from dpcore.errors import BadInput, NotAsPlanned, Refused
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.plan import Spending as Spending
from dpcore.privacy.remembered import Key, remembered

AccountantName = Literal["pld", "rdp"]

SEARCH_INTERVAL = 1e-3
FINAL_INTERVAL = 1e-4
"""Discretisation of the privacy loss. The coarse one is off by 6 % at ε .2 and 2,610 steps: it only starts the search."""

NOISE_TOLERANCE = 1e-5
"""Relative; the calibrated noise multiplier is at most this much larger than the smallest one that keeps the target."""

_SEARCH_ORDERS = (*range(2, 64), 128, 256, 512)
"""Whole orders only: the series of fractional ones fails to converge at large q, with a log line an order."""

SELECTION_ORDERS = (*(tenth / 10 for tenth in range(16, 100)), *range(10, 64), 128, 256, 512, 1024)
"""Where RDP bounds a private selection. With tenths 24 trials at ε 8 (q .064, 60 steps) cost 16.00 and not 16.71. Orders
whose series does not converge are left out."""

# dp-accounting logs each order that it leaves out, a line an order. The bound at the others holds all the same.
logging.getLogger("absl").addFilter(lambda record: "Excluding this order" not in record.getMessage())

LARGEST_EPSILON = 200.0
SMALLEST_NOISE, LARGEST_NOISE = 0.05, 1e6

_NEIGHBOURS: dict[Relation, NeighboringRelation] = {
    "add_remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace": NeighboringRelation.REPLACE_ONE,
}


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


def epsilon_of(spending: Spending, delta: float, *, accountant: AccountantName = "pld") -> float:
    """ε of one run at `delta`; inf for a release without noise, 0 for no steps.

    Raises:
        BadInput: delta is not in (0, 1), or the accountant is unknown.
        Refused: RDP is asked for a claim of replacement.
    """
    check_delta(delta)
    if accountant not in ("pld", "rdp"):
        raise BadInput(f"accountant must be pld or rdp, given {accountant}")
    if accountant == "pld":
        return _pld_epsilon(spending, delta, None)
    refuse_replacement(spending, "RDP")
    return _rdp_epsilon(spending.event(), delta)


def compose(spendings: Iterable[tuple[Spending, int]], delta: float, *, cache_dir: Path | None = None) -> float:
    """ε at `delta` of all runs together, each given with how often it ran. Holds for adaptive choices between them as long
    as q, noise multiplier and steps of each were fixed beforehand.

    Runs of one q and noise multiplier are joined first: one self-composition is cheaper and tighter than many. 24 different
    noise multipliers take 12 s, one 0.4 s. One run priced for replacement makes the whole sum a claim of replacement: every
    run has such a price too, and no other number would hold for all of them.

    Raises:
        BadInput: a negative count, or delta outside (0, 1).
    """
    check_delta(delta)
    steps_of: dict[tuple[float, float], int] = {}
    relation: Relation = "add_remove"
    for spending, count in spendings:
        if count < 0:
            raise BadInput(f"a run cannot have happened {count} times")
        law = spending.sampling_prob, spending.noise_multiplier
        steps_of[law] = steps_of.get(law, 0) + spending.steps * count
        if spending.relation == "replace" and count:
            relation = "replace"
    joined = tuple(Spending(*law, steps, relation) for law, steps in sorted(steps_of.items()) if steps and law[0])
    if not joined:
        return 0.0
    laws = ";".join(f"{run.sampling_prob!r},{run.noise_multiplier!r},{run.steps}" for run in joined)
    key = _key("compose", {"laws": laws, "delta": delta, "relation": relation})
    return remembered(_folder(cache_dir), key, lambda: _compose_joined(joined, delta))


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

    RDP starts the search, PLD at interval 1e-3 narrows it, PLD at 1e-4 decides: the result satisfies
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
    """The smallest noise that keeps `epsilon`, in place of that of `loudest`."""
    reachable = _pld_at(loudest, delta, FINAL_INTERVAL)
    if reachable > epsilon:
        raise BadInput(
            f"epsilon {epsilon:g} is out of reach at delta {delta:g} over {loudest.steps} steps: the largest noise multiplier,"
            f" {LARGEST_NOISE:g}, gives {reachable:.2g}; raise epsilon or delta, or take fewer steps"
        )

    def rdp_gap(noise: float) -> float:
        return _rdp_epsilon(replace(loudest, noise_multiplier=noise).event(), delta, orders=_SEARCH_ORDERS) - epsilon

    def pld_gap(noise: float, interval: float) -> float:
        return _pld_at(replace(loudest, noise_multiplier=noise), delta, interval) - epsilon

    # RDP with orders up to 512 certifies no ε below about log(1/δ)/511 (.02 at δ = 1e-5), whatever the noise
    start = 1.0 if rdp_gap(LARGEST_NOISE) > 0.0 else _smallest_passing(rdp_gap, start=1.0, factor=2.0, tolerance=1e-2)
    if pld_gap(LARGEST_NOISE, SEARCH_INTERVAL) <= 0.0:
        start = _smallest_passing(lambda noise: pld_gap(noise, SEARCH_INTERVAL), start=start, factor=1.2, tolerance=1e-3)
    return _smallest_passing(lambda noise: pld_gap(noise, FINAL_INTERVAL), start=start, factor=1.01, tolerance=NOISE_TOLERANCE)


def _smallest_passing(gap: Callable[[float], float], *, start: float, factor: float, tolerance: float) -> float:
    """The smallest noise seen with gap(noise) <= 0, within `tolerance` (relative) of the root of the decreasing `gap`, which is
    at most 0 at LARGEST_NOISE."""
    seen: dict[float, float] = {}

    def remember(log_noise: float) -> float:
        seen[math.exp(log_noise)] = value = gap(math.exp(log_noise))
        return value

    low = high = math.log(start)
    reach, most = math.log(factor), math.log(LARGEST_NOISE)
    while remember(high) > 0.0 and high < most:
        high, low, reach = min(high + reach, most), high, 2.0 * reach
    reach = math.log(factor)
    while low == high or remember(low) <= 0.0:
        low, high, reach = low - reach, low, 2.0 * reach
        if low < math.log(SMALLEST_NOISE):
            raise BadInput(f"a noise multiplier below {SMALLEST_NOISE} would do for this epsilon: lower epsilon or take method nonprivate")
    root = brentq(remember, low, high, xtol=tolerance / 4, rtol=1e-12)
    if remember(root) > 0.0:
        remember(root + tolerance / 2)
    return min(noise for noise, value in seen.items() if value <= 0.0)


def _pld_epsilon(spending: Spending, delta: float, cache_dir: Path | None) -> float:
    law: Key = {
        "sampling_prob": spending.sampling_prob,
        "noise_multiplier": spending.noise_multiplier,
        "steps": spending.steps,
        "delta": delta,
        "relation": spending.relation,
    }
    return remembered(_folder(cache_dir), _key("epsilon", law), lambda: _pld_at(spending, delta, FINAL_INTERVAL))


@functools.lru_cache(maxsize=4096)
def _pld_at(spending: Spending, delta: float, interval: float) -> float:
    if spending.steps == 0 or spending.sampling_prob == 0.0:
        return 0.0
    accountant = pld.PLDAccountant(_NEIGHBOURS[spending.relation], interval)
    return float(accountant.compose(spending.event()).get_epsilon(delta))


def loss_of(spending: Spending) -> pld.privacy_loss_distribution.PrivacyLossDistribution:
    """The privacy loss distribution of one run that adds or removes a unit, at FINAL_INTERVAL.

    Raises:
        Refused: a claim of replacement.
    """
    refuse_replacement(spending, "a composition with private selections")
    one = pld.privacy_loss_distribution.from_gaussian_mechanism(
        spending.noise_multiplier, value_discretization_interval=FINAL_INTERVAL, sampling_prob=spending.sampling_prob
    )
    return one.self_compose(spending.steps)


@functools.lru_cache(maxsize=256)
def _compose_joined(joined: tuple[Spending, ...], delta: float) -> float:
    accountant = pld.PLDAccountant(_NEIGHBOURS[joined[0].relation], FINAL_INTERVAL)
    for spending in joined:
        accountant.compose(spending.event())
    return float(accountant.get_epsilon(delta))


def _rdp_epsilon(event: dp_event.DpEvent, delta: float, *, orders: Sequence[float] | None = None) -> float:
    return float(rdp.RdpAccountant(orders).compose(event).get_epsilon(delta))


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
