"""What the best of a random number of runs costs by the privacy profile of one run (Koskela et al., ICML 2024, arXiv:2402.06701).

The number K of runs has the generating function f, the mean m = f'(1), and the score of a run the distribution function F. The winner's
density is then q(y) f'(F(y)), where q is that of one run (equal scores: an independent uniform number decides). For a neighbour, with q'
and F', let c bound log f'(F) / f'(F') at every y. As f' grows, f'(F) ≤ m, and for every set S

    P[S] - e^ε P'[S]  ≤  ∫_S f'(F) [q - e^(ε - c) q']  ≤  m δ(ε - c),

where δ is the profile of one run: its smallest δ at each ε. So the winner's profile is at most m δ(ε - c).

| law of K | c |
|---|---|
| truncated negative binomial, shape η ≥ 0 | (η + 1) ε₁ at the least ε₁ with δ(ε₁) ≤ (e^ε₁ - 1) γ / (1 - γ) |
| Poisson | m δ(0) |

First row: f'(F) / f'(F') = ((γ + (1 - γ)(1 - F')) / (γ + (1 - γ)(1 - F)))^(η + 1), and 1 - F' ≤ e^ε₁ (1 - F) + δ(ε₁) since "scores more
than y" is an event. Second row: f'(F) / f'(F') = e^(m (F - F')). Torch-free.
"""

from __future__ import annotations

import math

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from numpy.typing import NDArray
from scipy.optimize import brentq

TAIL = 1e-13
"""The δ of one run at which the grid ends; what lies beyond counts as an infinite loss."""


def gamma_of(mean_trials: float, shape: float) -> float:
    """γ of the truncated negative binomial law with that mean: the mean falls from infinity to 1 as γ goes from 0 to 1."""
    if mean_trials == 1.0:
        return 1.0

    def mean_at(log_gamma: float) -> float:
        gamma = math.exp(log_gamma)
        if shape == 0:
            return (1 / gamma - 1) / -log_gamma
        return shape * (1 - gamma) / (gamma * -math.expm1(shape * log_gamma))

    return math.exp(brentq(lambda x: mean_at(x) - mean_trials, -60.0, -1e-9, xtol=1e-14))


def shift_of(run: PrivacyLossDistribution, *, mean_trials: float, shape: float) -> float:
    """c of the table above, for the loss of one run; 0 where there is always one run."""
    if math.isinf(shape):
        return mean_trials * float(run.get_delta_for_epsilon(0.0))
    gamma = gamma_of(mean_trials, shape)
    if gamma == 1.0:
        return 0.0

    def excess(epsilon: float) -> float:
        return float(run.get_delta_for_epsilon(epsilon)) - math.expm1(epsilon) * gamma / (1 - gamma)

    most = 1.0
    while excess(most) > 0:
        most *= 2
    root = float(brentq(excess, 0.0, most, xtol=1e-12))
    while excess(root) > 0:
        root = math.nextafter(root, math.inf) * (1 + 1e-12)
    return (shape + 1) * root


def loss_of_selection(run: PrivacyLossDistribution, *, mean_trials: float, shape: float, interval: float) -> PrivacyLossDistribution:
    """A privacy loss distribution that dominates the winner's, for composition with others of the same `interval`.

    The bound m δ(ε - c) for ε ≥ 0 holds for both neighbours, so it gives one for ε < 0 too: 1 - e^ε + e^ε δ(-ε). Between the two lies
    their common tangent, as a profile is convex in e^ε. The distribution has this profile at every multiple of `interval`.

    Args:
        run: the loss of one run. mean_trials, shape: the law of the number of runs (see `dpcore.privacy.composition.Selected`).
        interval: of the grid of losses.
    """
    shift = shift_of(run, mean_trials=mean_trials, shape=shape)
    tail = max(TAIL, 2.0 * float(run.get_delta_for_epsilon(math.inf)))
    steps = math.ceil((shift + (float(run.get_epsilon_for_delta(tail)) if tail < 1.0 else 0.0)) / interval)
    above = _profile(np.arange(steps + 1, dtype=np.float64) * np.float64(interval), run, mean_trials=mean_trials, shift=shift)
    growth = np.exp(-np.arange(1, steps + 1) * interval)
    below = 1.0 - growth + growth * above[1:]
    deltas = np.minimum.accumulate(np.concatenate([below[::-1], above]))
    return PrivacyLossDistribution(pld_pmf.create_pmf_pessimistic_connect_dots(interval, np.arange(-steps, steps + 1), deltas))


def _profile(epsilons: NDArray[np.float64], run: PrivacyLossDistribution, *, mean_trials: float, shift: float) -> NDArray[np.float64]:
    """The winner's profile at ε ≥ 0: the tangent from (e^ε, δ) = (-1, 1), which is its own mirror image, then m δ(ε - c)."""
    raw = np.minimum(1.0, mean_trials * np.asarray(run.get_delta_for_epsilon(epsilons - shift), dtype=np.float64))
    growth = np.exp(epsilons)
    slopes = (1.0 - raw) / (growth + 1.0)
    touches = int(np.argmax(slopes))
    profile: NDArray[np.float64] = np.where(np.arange(len(raw)) < touches, 1.0 - slopes[touches] * (growth + 1.0), raw)
    return profile
