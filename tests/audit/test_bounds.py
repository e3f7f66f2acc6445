"""Bounds from counts alone, against hand-worked numbers and the published procedure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dpcore.audit.bounds import Errors, Guesses, one_run_epsilon, one_run_p_value, proportion_above, rates_epsilon
from dpcore.errors import BadInput


def test_no_success_in_n_trials_bounds_the_proportion_by_its_closed_form() -> None:
    assert proportion_above(0, 50, 0.05) == pytest.approx(1.0 - 0.05 ** (1 / 50))
    assert proportion_above(50, 50, 0.05) == 1.0


def test_the_upper_bound_is_where_so_few_successes_are_just_that_unlikely() -> None:
    above = proportion_above(7, 40, 0.01)
    assert stats.binom.cdf(7, 40, above) == pytest.approx(0.01)


def test_epsilon_of_the_rates_is_the_hand_worked_one() -> None:
    """Both errors at 0 of 100: each rate is below p = 1 − .025^.01, so ε >= log((1 − δ − p)/p)."""
    p = 1.0 - 0.025 ** (1 / 100)
    assert rates_epsilon(Errors(0, 100, 0, 100), delta=1e-5, significance=0.05) == pytest.approx(math.log((1 - 1e-5 - p) / p))
    assert rates_epsilon(Errors(50, 100, 50, 100), delta=1e-5, significance=0.05) == 0.0


def published_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The loop of Steinke, Nasr, Jagielski 2023, appendix D."""
    q = 1.0 / (1.0 + math.exp(-epsilon))
    beta = stats.binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return float(min(beta + alpha * delta * 2 * m, 1.0))


@pytest.mark.parametrize(("m", "r", "v", "epsilon"), [(1000, 100, 80, 0.5), (1000, 40, 40, 2.0), (5000, 5000, 2600, 0.0), (100, 0, 0, 1.0)])
def test_one_run_p_value_is_the_published_one(m: int, r: int, v: int, epsilon: float) -> None:
    assert one_run_p_value(Guesses(v, r, m), epsilon=epsilon, delta=1e-5) == pytest.approx(published_p_value(m, r, v, epsilon, 1e-5))


def test_without_delta_one_run_is_a_binomial_test() -> None:
    bound = one_run_epsilon(Guesses(90, 100, 1000), delta=0.0, significance=0.05)
    assert stats.binom.sf(89, 100, 1 / (1 + math.exp(-bound))) == pytest.approx(0.05, rel=1e-6)
    assert one_run_epsilon(Guesses(50, 100, 1000), delta=0.0, significance=0.05) == 0.0


@pytest.mark.parametrize(("canaries", "one_run", "clopper_pearson"), [(1_000, 0.53, 0.39), (10_000, 0.88, 0.77), (100_000, 1.10, 1.09)])
def test_ideal_attack_on_half_the_noise(canaries: int, one_run: float, clopper_pearson: float) -> None:
    """A full-batch claim of .8 run at half its noise (true ε 1.72), with rates as expected: a thousand canaries and an (ε, δ)
    bound see nothing. Random draws of the same attack gave .62 / 1.09 / 1.06 and .45 / .93 / 1.05."""
    mu = 0.43737
    assert _best_one_run(mu, canaries) == pytest.approx(one_run, abs=0.03)
    counts = [Errors(round(canaries * stats.norm.sf(t)), canaries, round(canaries * stats.norm.cdf(t - mu)), canaries) for t in grid()]
    assert max(rates_epsilon(errors, delta=1e-5, significance=0.05) for errors in counts) == pytest.approx(clopper_pearson, abs=0.03)


def grid() -> np.ndarray:
    return np.linspace(-2.0, 4.0, 61)


def _best_one_run(mu: float, canaries: int) -> float:
    """Guesses where |score| exceeds t, right with the chance that the law gives."""
    bounds = []
    for t in np.linspace(0.5, 3.0, 26):
        right = stats.norm.sf(t - mu / 2)
        share = right + stats.norm.sf(t + mu / 2)
        made = round(canaries * share)
        bounds.append(one_run_epsilon(Guesses(round(made * right / share), made, canaries), delta=1e-5, significance=0.05))
    return max(bounds)


@pytest.mark.parametrize("counts", [(-1, 10, 0, 10), (11, 10, 0, 10), (0, 0, 0, 10)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadInput, match="not counts of errors"):
        Errors(*counts)
    with pytest.raises(BadInput, match="correct <= made"):
        Guesses(3, 2, 10)
