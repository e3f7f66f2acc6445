"""The privacy losses behind a price: dp-accounting's distributions, and the grid on which they are taken. Imported only to compute.

A distribution lies on a grid of losses. "Connect the dots" (Doroshenko et al. 2022, arXiv:2207.04380) rounds it to the private side,
so ε on any grid is an upper bound: a coarse grid costs privacy on paper, never in fact.

`dpcore.privacy.grid` says how coarse.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np
from dp_accounting import NeighboringRelation, dp_event, rdp
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from numpy.typing import NDArray

from dpcore.config import Relation
from dpcore.privacy.convolution import epsilon_at_delta, self_composed
from dpcore.privacy.grid import on_fitting_grid
from dpcore.privacy.plan import Spending

_NEIGHBOURS: dict[Relation, NeighboringRelation] = {
    "add_remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace": NeighboringRelation.REPLACE_ONE,
}


# dp-accounting logs each order that it leaves out, a line an order. The bound at the others holds all the same.
logging.getLogger("absl").addFilter(lambda record: "Excluding this order" not in record.getMessage())


@functools.lru_cache(maxsize=4096)
def epsilon_at_interval(spending: Spending, delta: float, interval: float) -> float:
    """ε of one run at `delta` on the grid of `interval`: an upper bound, whatever the interval."""
    return _epsilon_on((spending,), delta, interval)


@functools.lru_cache(maxsize=1024)
def epsilon_of_all(runs: tuple[Spending, ...], delta: float) -> float:
    """ε at `delta` of runs of unlike noise together, all of one relation, on the grid that fits it.

    Guarantees: an upper bound. Each law is composed with itself once, by the power of a transform, however often it ran.
    """
    spread = max((_spread(run) for run in runs), default=0.0)
    return on_fitting_grid(lambda interval: _epsilon_on(runs, delta, interval), spread=spread)


def _spread(run: Spending) -> float:
    """Standard deviation of the likelihood ratio of one step: about that of its loss where both are small."""
    inverse = math.inf if run.noise_multiplier == 0.0 else run.noise_multiplier**-2.0
    return run.sampling_prob * math.sqrt(math.expm1(min(inverse, 100.0)))


def _epsilon_on(runs: Sequence[Spending], delta: float, interval: float) -> float:
    spending = [run for run in runs if run.steps and run.sampling_prob]
    if any(run.noise_multiplier == 0.0 for run in spending):
        return math.inf
    losses = [loss_of_steps(run, interval) for run in spending]
    if not losses:
        return 0.0
    return epsilon_at_delta(functools.reduce(PrivacyLossDistribution.compose, losses), delta)


def loss_of_steps(run: Spending, interval: float) -> PrivacyLossDistribution:
    """The privacy loss distribution of all steps of one run, rounded to the private side."""
    return self_composed(_loss_of_a_step(run.sampling_prob, run.noise_multiplier, run.relation, interval), run.steps)


@functools.lru_cache(maxsize=8)
def _loss_of_a_step(sampling_prob: float, noise: float, relation: Relation, interval: float) -> PrivacyLossDistribution:
    if sampling_prob == 1.0 or relation != "add_remove":
        return from_gaussian_mechanism(
            noise,
            value_discretization_interval=interval,
            sampling_prob=sampling_prob,
            neighboring_relation=_NEIGHBOURS[relation],
            pessimistic_estimate=True,
        )
    removed, added = (_pmf_of(sampling_prob, noise, kind, interval) for kind in (AdjacencyType.REMOVE, AdjacencyType.ADD))
    return PrivacyLossDistribution(removed, added)


def _pmf_of(sampling_prob: float, noise: float, kind: AdjacencyType, interval: float) -> pld_pmf.PLDPmf:
    """What dp-accounting's `from_gaussian_mechanism` builds, from arrays: it inverts the loss point by point, eight tenths of its time."""
    loss = GaussianPrivacyLoss(noise, sampling_prob=sampling_prob, adjacency_type=kind)
    bounds = loss.connect_dots_bounds()
    low, high = math.floor(bounds.epsilon_lower / interval), math.ceil(bounds.epsilon_upper / interval)
    deltas = _profile(loss, noise, np.arange(low, high + 1) * interval)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, low, high, deltas)


def _profile(loss: GaussianPrivacyLoss, noise: float, epsilons: NDArray[np.float64]) -> NDArray[np.float64]:
    """δ of one step at each ε. With s = +1 for a unit removed and -1 for one added, its loss at x is s log(1 - q + q e^(s u)), where u is
    the loss without sampling; the outcomes with a loss above ε are those below one x."""
    q = loss.sampling_prob
    sign = 1.0 if loss.adjacency_type == AdjacencyType.REMOVE else -1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = sign * epsilons - math.log(q)  # log(e^(s ε) / q); 1 + (e^(s ε) - 1)/q is e^(s u)
        unsampled = sign * (whole + np.log1p(-np.exp(math.log1p(-q) - math.log(q) - whole)))
    below = sign * epsilons <= math.log1p(-q)  # no outcome has such a loss where a unit is added, all have it where one is removed
    cutoffs = np.where(below | np.isnan(unsampled), sign * np.inf, (0.0 if sign > 0 else 1.0) - 0.5 - unsampled * noise**2)
    deltas = loss.mu_upper_cdf(cutoffs) - np.exp(epsilons + loss.mu_lower_log_cdf(cutoffs))
    return np.clip(np.asarray(deltas, dtype=np.float64), 0.0, 1.0)


def rdp_epsilon(event: dp_event.DpEvent, delta: float, *, orders: Sequence[float] | None = None) -> float:
    """ε of an event by RDP at the best of `orders` (None: dp-accounting's own)."""
    return composed_rdp_epsilon([(event, 1)], delta, orders=orders)


def composed_rdp_epsilon(events: Iterable[tuple[dp_event.DpEvent, int]], delta: float, *, orders: Sequence[float] | None = None) -> float:
    """ε by RDP of events together, each with how often it happened; infinite where no order bounds them.

    An order whose divergence came out negative bounds nothing and is left out: dp-accounting takes its ε for 0. Rounding makes such orders
    where a step hardly moves (small q, much noise).
    """
    accountant = rdp.RdpAccountant(orders)
    for event, count in events:
        accountant.compose(event, count)
    kept = [(order, divergence) for order, divergence in zip(accountant.orders, accountant.rdp, strict=True) if divergence >= 0.0]
    if not kept:
        return math.inf
    return float(compute_epsilon([order for order, _ in kept], [divergence for _, divergence in kept], delta)[0])
