"""Bounds on ε from counts of right and wrong guesses, at a stated confidence and without a model of the noise.

| bound | observations | holds for |
|---|---|---|
| `rates_epsilon` | independent runs, one coin each | any (ε, δ) mechanism: Clopper and Pearson 1934 on both error rates |
| `one_run_epsilon` | one run, a coin for each of m canaries | the same: Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, Theorem 5.2 |

Both bounds are weak. At ε = .8 they detect half the noise only with about ten thousand canaries or more. `tradeoff` has the strong bound,
which uses the claimed law of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dpcore.errors import BadInput

_HALVINGS = 40
_LARGEST_EPSILON = 64.0


@dataclass(frozen=True)
class Errors:
    """The errors of a fixed rule (guess "in" if a score is high enough) on canaries that were not used to choose the rule.

    Args:
        false_positives: canaries of `out` that were guessed "in".
        false_negatives: canaries of `inside` that were guessed "out".

    Raises:
        BadInput: more errors than canaries, or no canary on one side.
    """

    false_positives: int
    out: int
    false_negatives: int
    inside: int

    def __post_init__(self) -> None:
        sound = 0 <= self.false_positives <= self.out and 0 <= self.false_negatives <= self.inside
        if not sound or not self.out or not self.inside:
            raise BadInput(f"{self} are not counts of errors: each must be between 0 and the number of canaries, which is at least 1")

    def upper_rates(self, significance: float) -> tuple[float, float]:
        """Upper bounds of the false positive and false negative rates that hold together with probability 1 − significance."""
        half = significance / 2.0
        return proportion_above(self.false_positives, self.out, half), proportion_above(self.false_negatives, self.inside, half)


def proportion_above(successes: int, trials: int, significance: float) -> float:
    """The one-sided upper bound of a proportion (Clopper and Pearson 1934). It fails with probability `significance` at most.

    Raises:
        BadInput: significance outside (0, 1).
    """
    if not 0.0 < significance < 1.0:
        raise BadInput(f"significance must lie in (0, 1), given {significance}")
    return 1.0 if successes == trials else float(stats.beta.isf(significance, successes + 1, trials - successes))


def rates_epsilon(errors: Errors, *, delta: float, significance: float) -> float:
    """The largest ε that the two error rates refute at `delta`: Kairouz, Oh, Viswanath 2015, FPR + e^ε FNR >= 1 − δ both ways."""
    positive, negative = errors.upper_rates(significance)

    def refuted(wrong: float, missed: float) -> float:
        return -math.inf if 1.0 - delta - missed <= 0.0 else math.log((1.0 - delta - missed) / wrong)

    return max(0.0, refuted(positive, negative), refuted(negative, positive))


@dataclass(frozen=True)
class Guesses:
    """A one-run attack: `correct` of `made` guesses on `canaries` fair, independent coins. It did not guess the others.

    Assumes: `made` was fixed before the run. Which canaries are guessed may depend on everything that was released.

    Raises:
        BadInput: not 0 <= correct <= made <= canaries.
    """

    correct: int
    made: int
    canaries: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries:
            raise BadInput(f"expected 0 <= correct <= made <= canaries, given {self}")


def one_run_p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    """An upper bound of the probability of at least that many correct guesses against an (ε, δ)-DP algorithm.

    Theorem 5.2: with W ~ Binomial(made, e^ε/(1+e^ε)), it is P[W >= v] + 2 m δ max_i P[v > W >= v − i] / i.
    """
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(stats.binom.sf(guesses.correct - 1, guesses.made, accuracy))
    below = np.arange(guesses.correct - 1, -1, -1)
    sums = np.cumsum(stats.binom.pmf(below, guesses.made, accuracy))
    alpha = float(np.max(sums / np.arange(1, len(sums) + 1), initial=0.0))
    return min(1.0, beta + 2.0 * guesses.canaries * delta * alpha)


def one_run_epsilon(guesses: Guesses, *, delta: float, significance: float) -> float:
    """The largest ε that the guesses refute at `delta`, or 0."""

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(guesses, epsilon=epsilon, delta=delta) < significance

    return largest_refuted(refuted)


def largest_refuted(refuted: Callable[[float], bool]) -> float:
    """The largest ε in [0, 64] for which `refuted(ε)` holds, or 0. It must hold from 0 up to some ε and not beyond."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < _LARGEST_EPSILON and refuted(high):
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
