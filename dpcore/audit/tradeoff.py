"""Computes exactly what a claim allows an attacker: the trade-off between the two error rates of any membership test.

A run of T Poisson-subsampled Gaussian steps under (q, noise multiplier) is dominated by one pair of laws. In units of the
clip norm, a canary's released value of a step is N(0, s²) without the canary and (1 − q) N(0, s²) + q N(1, s²) with it (a
claim of replacement: −1 in place of nothing). So a test that guesses "in" with a false positive rate of α has a false negative rate
of at least f(α) (f-DP: Dong, Roth, Su 2022):

    f(α) = sup over ε >= 0 of max(1 − δ(ε) − e^ε α, e^−ε (1 − δ(ε) − α)),   δ(ε) the privacy profile of the claim, by PLD.

Why the bound is valid. The likelihood ratio is only a score: error rates below f refute the claim for any law of the scores.
Clopper-Pearson bounds the rates on canaries that did not choose the threshold. PLD over-estimates δ(ε), and a grid of ε
under-estimates the supremum, so the f in use lies below the true one. The claims of one (q, T) are ordered by their noise, and f
grows with it. So if every noise above s is refuted, ε is at least that of s. As a bound on ε this holds within the family, as in Nasr
et al. 2023 (arXiv:2302.07956). The refutation of the claim itself holds without this assumption.
Assumes: canaries share no coordinate, so that their scores are independent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from dp_accounting import NeighboringRelation, pld
from numpy.typing import NDArray

from dpcore.audit.bounds import Errors
from dpcore.privacy.accounting import Spending, epsilon_of
from dpcore.privacy.grid import SEARCH_INTERVAL

Floats = NDArray[np.float64]

SELECTION_SHARE = 0.15
"""Share of the canaries that choose the threshold. The optimum is flat, and canaries used here cannot be counted."""

_THRESHOLDS = 64
_LADDER = np.geomspace(8.0, 0.4, 14)
_LADDER_COARSER = 5.0
_EPSILONS = np.concatenate([[0.0], np.geomspace(1e-3, 40.0, 600)])
_LARGEST_RATIO, _SMALLEST_RATIO = 16.0, 0.5
_SMALLEST_NOISE = 0.25
"""Smallest noise; below it PLD needs gigabytes."""

_RATIO_TOLERANCE = 2e-3


def step_scores(values: Floats, claim: Spending) -> Floats:
    """log(likelihood with the canary / likelihood with its neighbour) of one step's values, in units of the clip norm.

    For an add/remove claim the neighbour is nothing. For a claim of replacement it is the antipode, which moves the sum by 2.
    """
    against_nothing = _added(values, claim)
    return against_nothing if claim.relation == "add_remove" else against_nothing - _added(-values, claim)


def _added(values: Floats, claim: Spending) -> Floats:
    q, shift = claim.sampling_prob, (2.0 * values - 1.0) / (2.0 * claim.noise_multiplier**2)
    return shift if q == 1.0 else np.asarray(np.logaddexp(math.log1p(-q), math.log(q) + shift))


def smallest_miss_rate(claim: Spending, false_positive_rate: float) -> float:
    """f(α): a lower bound, tight to 1e-4, of the false negative rate that the claim leaves at a false positive rate."""
    return float(_floors(claim, np.asarray([false_positive_rate]))[0])


def _floors(claim: Spending, rates: Floats, coarser: float = 1.0) -> Floats:
    """f at several false positive rates (n,)."""
    profile, alpha = _profile(claim, coarser), rates[:, None]
    either = np.maximum(1.0 - profile - np.exp(_EPSILONS) * alpha, np.exp(-_EPSILONS) * (1.0 - profile - alpha))
    return np.asarray(np.maximum(0.0, either.max(axis=1)), dtype=np.float64)


@functools.lru_cache(maxsize=256)
def _profile(claim: Spending, coarser: float) -> Floats:
    """δ(ε) on the grid."""
    return np.asarray(_accountant(claim, coarser).get_delta(_EPSILONS), dtype=np.float64)


def _accountant(claim: Spending, coarser: float = 1.0) -> pld.PLDAccountant:
    # a step's losses spread as 1/noise: with a proportional interval every law takes equally long, and f is too low by 4e-5 at T = 300
    interval = coarser * SEARCH_INTERVAL * max(1.0, 3.0 / claim.noise_multiplier)
    neighbours = NeighboringRelation.ADD_OR_REMOVE_ONE if claim.relation == "add_remove" else NeighboringRelation.REPLACE_ONE
    return pld.PLDAccountant(neighbours, interval).compose(claim.event())


def epsilon_at(claim: Spending, delta: float) -> float:
    """ε of the claim at any δ of its curve, to three digits."""
    return float(_accountant(claim).get_epsilon(delta))


def refuted_epsilon(errors: Errors, claim: Spending, *, delta: float, significance: float) -> float:
    """The ε at `delta` that the errors refute: see `noisiest_epsilon`."""
    positive, negative = errors.upper_rates(significance)
    return noisiest_epsilon(claim, delta=delta, refuted=lambda other: negative < smallest_miss_rate(other, positive))


def noisiest_epsilon(claim: Spending, *, delta: float, refuted: Callable[[Spending], bool]) -> float:
    """ε at `delta` of the noisiest claim with the same q and T that is not `refuted`.

    It exceeds the claim's ε exactly if the claim itself is refuted. It is 0 if almost nothing is refuted. If half of the noise is
    refuted too, the search ends there and returns its ε, which is still a lower bound.

    Args:
        claim: q, T and the noise around which to search.
        delta: δ of the answer.
        refuted: whether a claim cannot be true. It must hold from some noise upwards.
    """

    def with_ratio(ratio: float) -> Spending:
        return replace(claim, noise_multiplier=ratio * claim.noise_multiplier)

    if not refuted(with_ratio(_LARGEST_RATIO)):
        return 0.0
    smallest = max(_SMALLEST_RATIO, min(1.0, _SMALLEST_NOISE / claim.noise_multiplier))
    low, high = (smallest, 1.0) if refuted(claim) else (1.0, _LARGEST_RATIO)
    if refuted(with_ratio(low)):
        high = low
    while high / low > 1.0 + _RATIO_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(with_ratio(middle)) else (middle, high)
    # below the claim's noise three digits are enough, and take a tenth of the time
    return epsilon_of(with_ratio(high), delta) if high > 1.0 else epsilon_at(with_ratio(high), delta)


@dataclass(frozen=True)
class Rule:
    """Guesses "in" if sign × score >= threshold."""

    sign: int
    threshold: float

    def errors(self, scores: Floats, inside: NDArray[np.bool_]) -> Errors:
        """The errors on canaries with these scores (n,); the canaries of `inside` (n,) were in."""
        called = self.sign * scores >= self.threshold
        return Errors(int(np.sum(called & ~inside)), int(np.sum(~inside)), int(np.sum(~called & inside)), int(np.sum(inside)))


def choose_rule(scores: Floats, inside: NDArray[np.bool_], *, claim: Spending, significance: float) -> Rule:
    """The rule that refutes the claim at the most noise, on a coarse ladder of noise.

    Both directions are tried, because a broken mechanism may move scores either way.
    """
    # no threshold in the outermost per cent: there a few lucky canaries look like a leak and would choose a useless rule
    shares = np.linspace(0.01, 0.99, _THRESHOLDS)
    rules = [Rule(sign, float(at)) for sign in (1, -1) for at in np.quantile(sign * scores, shares)]
    positive, negative = np.asarray([rule.errors(scores, inside).upper_rates(significance) for rule in rules]).T
    floors = [_floors(replace(claim, noise_multiplier=ratio * claim.noise_multiplier), positive, _LADDER_COARSER) for ratio in _LADDER]
    margins = negative - np.stack(floors)
    # a rule refutes the rungs with a negative margin, from the most noise down; the first rung parts those that refute none
    depths = [np.interp(0.0, column, np.arange(len(_LADDER))) - max(float(column[0]), 0.0) for column in margins.T]
    return rules[int(np.argmax(depths))]
