"""What counts of right and wrong guesses prove about ε, at a stated confidence and with no model of the noise.

| bound | observations | holds for |
|---|---|---|
| `rates_epsilon` | independent runs, one coin each | any (ε, δ) mechanism: Clopper and Pearson 1934 on both error rates |
| `one_run_epsilon` | one run, a coin for each of m canaries | the same: Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, Theorem 5.2 |

Both are weak by their nature: at ε = .8 they see half the noise only from some ten thousand canaries on. `tradeoff` has the
strong bound, which knows the law of the noise that was claimed.
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
    """What a fixed rule (guess "in" where a score is high enough) got wrong on canaries that did not choose it.

    Args:
        false_positives: canaries that were out and were called in, of `out`.
        false_negatives: canaries that were in and were called out, of `inside`.

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
            raise BadInput(f"{self} are no counts of errors: each lies between 0 and a number of canaries of at least 1")

    def upper_rates(self, significance: float) -> tuple[float, float]:
        """Upper bounds of the false positive and the false negative rate that hold together with 1 − significance."""
        half = significance / 2.0
        return proportion_above(self.false_positives, self.out, half), proportion_above(self.false_negatives, self.inside, half)


def proportion_above(successes: int, trials: int, significance: float) -> float:
    """The one-sided upper bound of a proportion (Clopper and Pearson 1934): it is exceeded with at most `significance`.

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
    """A one-run attack: `correct` of `made` guesses on `canaries` fair, independent coins; it abstained from the others.

    Assumes: `made` was fixed before the run; which canaries it speaks on may depend on everything that was released.

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
    """The chance of at least that many correct guesses against an (ε, δ)-DP algorithm, at most.

    Theorem 5.2: with W ~ Binomial(made, e^ε/(1+e^ε)), it is at most P[W >= v] + 2 m δ max_i P[v > W >= v − i] / i.
    """
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(stats.binom.sf(guesses.correct - 1, guesses.made, accuracy))
    below = np.arange(guesses.correct - 1, -1, -1)
    sums = np.cumsum(stats.binom.pmf(below, guesses.made, accuracy))
    alpha = float(np.max(sums / np.arange(1, len(sums) + 1), initial=0.0))
    return min(1.0, beta + 2.0 * guesses.canaries * delta * alpha)


def one_run_epsilon(guesses: Guesses, *, delta: float, significance: float) -> float:
    """The largest ε that the guesses refute at `delta`; 0 where they refute none."""

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(guesses, epsilon=epsilon, delta=delta) < significance

    return largest_refuted(refuted)


def largest_refuted(refuted: Callable[[float], bool]) -> float:
    """The largest ε in [0, 64] with `refuted(ε)`, which holds from 0 to some ε and not beyond; 0 where it never holds."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < _LARGEST_EPSILON and refuted(high):
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
