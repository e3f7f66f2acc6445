"""The exact trade-off against closed forms and simulation, and the ε that counts of errors refute."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpcore.audit.bounds import Errors
from dpcore.audit.tradeoff import Rule, choose_rule, refuted_epsilon, smallest_miss_rate, step_scores
from dpcore.privacy.accounting import Spending, epsilon_of

RATES = (0.01, 0.1, 0.3, 0.6)
POISSON = Spending(0.25, 1.2041, 8)
SIGNIFICANCE = 1e-4


def simulated(claim: Spending, count: int, *, factor: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and coins of an ideal attack on the claim, run at `factor` times its noise."""
    generator = np.random.default_rng(seed)
    inside = generator.random(count) < 0.5
    scores = np.zeros(count)
    for _ in range(claim.steps):
        drawn = generator.random(count) < claim.sampling_prob
        shift = drawn * np.where(inside, 1.0, 0.0 if claim.relation == "add_remove" else -1.0)
        scores += step_scores(shift + factor * claim.noise_multiplier * generator.standard_normal(count), claim)
    return scores, inside


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("relation", "shift"), [("add_remove", 1.0), ("replace", 2.0)])
def test_full_batch_is_gaussian_dp(rate: float, relation: str, shift: float) -> None:
    """q = 1: f(α) = Φ(Φ⁻¹(1 − α) − √T·shift/s)."""
    claim = Spending(1.0, 5.0, 9, relation)  # type: ignore[arg-type]
    assert smallest_miss_rate(claim, rate) == pytest.approx(stats.norm.cdf(stats.norm.isf(rate) - 3.0 * shift / 5.0), abs=2e-4)


@pytest.mark.parametrize("relation", ["add_remove", "replace"])
def test_poisson_sampling_matches_a_simulation_of_the_law(relation: str) -> None:
    """At every threshold the ideal attack lies on the curve: not below it, and above it only by what a symmetric curve gives
    away at the high end."""
    claim = Spending(0.25, 1.2041, 8, relation)  # type: ignore[arg-type]
    count = 400_000
    scores, inside = simulated(claim, count)
    without, with_it = scores[~inside], scores[inside]
    for rate, slack in zip(RATES, (0.004, 0.004, 0.004, 0.03), strict=True):
        missed = float(np.mean(with_it < np.quantile(without, 1.0 - rate)))
        assert -0.004 <= missed - smallest_miss_rate(claim, rate) <= slack


def test_scores_are_log_likelihood_ratios() -> None:
    values = np.asarray([-1.0, 0.0, 0.5, 2.0])
    q, s = 0.3, 0.8
    mixed = (1 - q) * stats.norm.pdf(values, 0, s) + q * stats.norm.pdf(values, 1, s)
    antipode = (1 - q) * stats.norm.pdf(values, 0, s) + q * stats.norm.pdf(values, -1, s)
    np.testing.assert_allclose(step_scores(values, Spending(q, s, 1)), np.log(mixed / stats.norm.pdf(values, 0, s)), atol=1e-14)
    np.testing.assert_allclose(step_scores(values, Spending(q, s, 1, "replace")), np.log(mixed / antipode))


def bound(claim: Spending, count: int, *, factor: float = 1.0, seed: int = 0) -> float:
    scores, inside = simulated(claim, count, factor=factor, seed=seed)
    quarter = count // 4
    rule = choose_rule(scores[:quarter], inside[:quarter], claim=claim, significance=SIGNIFICANCE)
    return refuted_epsilon(rule.errors(scores[quarter:], inside[quarter:]), claim, delta=1e-5, significance=SIGNIFICANCE)


@pytest.mark.parametrize("claim", [POISSON, Spending(1.0, 3.058, 8), Spending(0.25, 1.9, 8, "replace")])
def test_an_honest_law_is_never_refuted_and_the_bound_is_tight(claim: Spending) -> None:
    epsilon = epsilon_of(claim, 1e-5)
    assert 0.75 * epsilon <= bound(claim, 100_000) <= epsilon


@pytest.mark.parametrize("factor", [0.5, 0.8])
def test_too_little_noise_is_refuted(factor: float) -> None:
    claimed, true = epsilon_of(POISSON, 1e-5), epsilon_of(Spending(0.25, 1.2041 * factor, 8), 1e-5)
    assert claimed < bound(POISSON, 100_000, factor=factor) <= true


def test_more_noise_than_claimed_is_not_refuted_and_gives_less() -> None:
    assert bound(POISSON, 20_000, factor=2.0) <= 1.2


def test_a_leak_in_either_direction_is_found() -> None:
    """Canaries that push scores down instead of up, as a sign error in a public term would."""
    scores, inside = simulated(POISSON, 20_000)
    rule = choose_rule(-3.0 * scores, inside, claim=POISSON, significance=SIGNIFICANCE)
    assert rule.sign == -1


def test_an_exact_value_parts_the_canaries() -> None:
    """Half of those that are in give one value nobody else has: no false positives at the right threshold."""
    inside = np.arange(4000) % 2 == 0
    scores = np.where(inside & (np.arange(4000) % 4 == 0), 9.0, 0.0)
    rule = choose_rule(scores, inside, claim=POISSON, significance=SIGNIFICANCE)
    assert rule.errors(scores, inside) == Errors(0, 2000, 1000, 2000)


def test_useless_guesses_refute_nothing() -> None:
    assert refuted_epsilon(Errors(500, 1000, 500, 1000), POISSON, delta=1e-5, significance=SIGNIFICANCE) == 0.0


def test_rule_counts_its_errors() -> None:
    rule = Rule(1, 0.5)
    assert rule.errors(np.asarray([0.5, 0.1, 0.9, 0.2]), np.asarray([True, True, False, False])) == Errors(1, 2, 1, 2)
