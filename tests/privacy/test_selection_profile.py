"""Private selection by privacy profiles, against the exact law of a winner, closed forms, and an attack on drawn winners."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, signal, stats

from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import FINAL_INTERVAL, Spending, compose, epsilon_of, loss_of
from dpcore.privacy.composition import AtOrder, Charge, Selected, accountant_of, epsilon_of_charge, price
from dpcore.privacy.selection import loss_of_selection
from search_spaces.space import SelectionLaw
from sweeps.pricing.selection import draw_count

DELTA = 1e-5
LAWS = [(10.0, 1.0), (24.0, 0.0), (6.0, 2.0), (17.0, 0.5), (5.0, math.inf)]
Floats = NDArray[np.float64]


def gaussian_profile(mu: float) -> Callable[[float], float]:
    """The profile of N(0, 1) against N(μ, 1) (Balle and Wang 2018, Theorem 5)."""
    cdf = stats.norm.cdf
    return lambda epsilon: float(cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * cdf(-mu / 2 - epsilon / mu))


def law_of(mean: float, shape: float) -> Floats:
    """P[K = k] for k = 0, 1, ..., of which less than 1e-13 is left out."""

    def weights(gamma: float) -> Floats:
        k = np.arange(1, 40_000)
        steps = (1 - gamma) * (k[:-1] + shape) / (k[:-1] + 1)
        found = np.concatenate([[0.0, 1.0], np.cumprod(steps)])
        return found / found.sum()

    if math.isinf(shape):
        return np.asarray(stats.poisson.pmf(np.arange(200), mean))
    gamma = optimize.brentq(lambda g: (weights(g) * np.arange(40_000)).sum() - mean, 1e-3, 0.9)
    found = weights(gamma)
    return found[: np.searchsorted(np.cumsum(found), 1 - 1e-13) + 2]


def winners(mean: float, shape: float, noise: float, sign: float) -> tuple[Floats, Floats, float]:
    """Densities of the best of K draws of N(±1, σ²) and of N(0, σ²) on a grid, and its step: f'(F) q, written out."""
    grid, step = np.linspace(-12 * noise, 12 * noise + 1, 120_001, retstep=True)
    law = law_of(mean, shape)
    slope = np.polynomial.Polynomial((law * np.arange(len(law)))[1:])
    one, other = (stats.norm(place, noise) for place in (sign, 0.0))
    first, second = (run.pdf(grid) * slope(run.cdf(grid)) for run in (one, other))
    return first, second, float(step)


@pytest.mark.parametrize(("mean", "shape"), LAWS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_winner_of_gaussian_scores_leaks_more_than_its_price(mean: float, shape: float, sign: float) -> None:
    noise = 1.3
    loss = loss_of_selection(loss_of(Spending(1.0, noise, 1)), mean_trials=mean, shape=shape, interval=FINAL_INTERVAL)
    first, second, step = winners(mean, shape, noise, sign)
    for epsilon in (-1.2, -0.4, 0.0, 0.3, 0.9, 1.7, 2.6, 3.4):
        exact = max(np.clip(a - math.exp(epsilon) * b, 0, None).sum() * step for a, b in ((first, second), (second, first)))
        assert exact <= float(loss.get_delta_for_epsilon(epsilon)) * (1 + 1e-6)


@pytest.mark.parametrize(("mean", "shape"), LAWS)
def test_the_price_of_one_is_the_closed_form(mean: float, shape: float) -> None:
    """(η + 1) ε₁ + ε₂ over the exact profile of the Gaussian, and for the Poisson law m δ(0) + ε₂."""
    noise, steps = 1.9, 3
    profile = gaussian_profile(math.sqrt(steps) / noise)
    second = optimize.brentq(lambda epsilon: mean * profile(epsilon) - DELTA, 0, 60)
    if math.isinf(shape):
        shift = mean * profile(0.0)
    else:
        law = law_of(mean, shape)
        gamma = 1 - law[2] / law[1] * 2 / (1 + shape)
        shift = (shape + 1) * optimize.brentq(lambda epsilon: profile(epsilon) - gamma / (1 - gamma) * math.expm1(epsilon), 1e-9, 60)
    found = price([(Selected(Spending(1.0, noise, steps), mean, shape, "profile"), 1)], DELTA)
    assert shift + second <= found * (1 + 1e-7)
    assert found == pytest.approx(shift + second, rel=2e-3)


def test_two_winners_together_leak_no_more_than_both_are_priced() -> None:
    mean, shape, noise = 10.0, 1.0, 1.3
    interval = 1e-3
    first, second, step = winners(mean, shape, noise, 1.0)
    kept = (first > 0) & (second > 0)
    losses = np.floor(np.log(first[kept] / second[kept]) / interval).astype(int)  # rounded down: at most the truth
    lowest = losses.min()
    masses = np.bincount(losses - lowest, weights=first[kept] * step)
    both = signal.fftconvolve(masses, masses)
    values = (np.arange(len(both)) + 2 * lowest) * interval

    def exact(epsilon: float) -> float:
        return float((both * np.clip(-np.expm1(epsilon - values), 0, None))[values > epsilon].sum()) - DELTA

    least = optimize.brentq(exact, 0.1, 20.0)
    selected = Selected(Spending(1.0, noise, 1), mean, shape, "profile")
    assert 0.4 * price([(selected, 2)], DELTA) < least < price([(selected, 2)], DELTA) < 2 * price([(selected, 1)], DELTA)


@pytest.mark.parametrize(
    ("epsilon", "noise", "shape", "profile", "rdp"),
    [(0.8, 2.5642, 1.0, 1.482, 2.094), (0.8, 2.5642, 0.0, 1.347, 1.709), (2.0, 1.36782, 1.0, 3.510, 4.857)],
)
def test_24_trials_of_60_steps_cost_less_than_by_rdp(epsilon: float, noise: float, shape: float, profile: float, rdp: float) -> None:
    run = Spending(0.064, noise, 60)
    assert epsilon_of(run, DELTA) == pytest.approx(epsilon, abs=1e-3)
    assert price([(Selected(run, 24.0, shape, "profile"), 1)], DELTA) == pytest.approx(profile, abs=2e-3)
    assert price([(Selected(run, 24.0, shape), 1)], DELTA) == pytest.approx(rdp, abs=2e-3)


def test_one_run_for_certain_costs_one_run() -> None:
    run = Spending(0.07, 1.7, 9)
    assert price([(Selected(run, 1.0, 1.0, "profile"), 1)], DELTA) == pytest.approx(epsilon_of(run, DELTA), abs=2 * FINAL_INTERVAL)


def test_beside_runs_a_selection_composes_by_pld_and_beside_another_kind_by_rdp() -> None:
    run = Spending(0.07, 1.7, 9)
    selected, by_rdp = Selected(run, 7.0, 1.0, "profile"), Selected(run, 7.0, 1.0)
    charges: list[tuple[Charge, int]] = [(selected, 1), (run, 3)]
    alone = epsilon_of_charge(selected, DELTA)
    assert max(alone, compose([(run, 3)], DELTA)) < price(charges, DELTA) < alone + compose([(run, 3)], DELTA)
    assert accountant_of(charges) == "PLD"
    mixed: list[tuple[Charge, int]] = [*charges, (by_rdp, 1)]
    assert accountant_of(mixed) == "RDP"
    assert price(mixed, DELTA) == pytest.approx(price([(by_rdp, 2), (run, 3)], DELTA))
    filtered: list[tuple[Charge, int]] = [*charges, (AtOrder(8), 1)]
    assert price(filtered, DELTA) == pytest.approx(price([(by_rdp, 1), (run, 3), (AtOrder(8), 1)], DELTA))
    with pytest.raises(Refused, match="private selection gives no bound"):
        Selected(Spending(0.07, 1.7, 9, "replace"), 7.0, 1.0, "profile")


@pytest.mark.parametrize(("mean", "shape"), [(0.5, 1.0), (math.inf, 1.0), (5.0, -0.5), (5.0, math.nan)])
def test_a_law_that_is_not_proved_for_is_refused(mean: float, shape: float) -> None:
    with pytest.raises(BadInput, match=r"^(mean_trials|shape) must be"):
        Selected(Spending(0.07, 1.7, 9), mean, shape, "profile")


def refuted(noise: float, *, law: SelectionLaw, count: int) -> float:
    """The ε at DELTA that drawn winners refute with confidence 1 - 1e-4: the scores are N(1, σ²) with the canary, N(0, σ²) without."""
    generator = np.random.default_rng()
    uniform = generator.uniform(size=(2, count))
    numbers = np.searchsorted(np.cumsum(law_of(law.mean_trials, law.shape_number)), uniform)
    assert all(draw_count(law, float(one)) == number for one, number in zip(uniform[0, :200], numbers[0, :200], strict=True))
    best = stats.norm.ppf(generator.uniform(size=(2, count)) ** (1 / numbers)) * noise + np.array([[1.0], [0.0]])
    bounds = []
    for threshold in np.quantile(best[1], [0.9, 0.97, 0.99]):
        inside, outside = (best > threshold).sum(axis=1)
        least = stats.beta.ppf(1e-5, inside, count - inside + 1)
        most = stats.beta.ppf(1 - 1e-5, outside + 1, count - outside)
        bounds.append(math.log(max(least - DELTA, 1e-300) / most))
    return max(bounds)


def test_an_attack_on_winners_leaves_the_price_standing_and_catches_a_fifth_of_the_noise() -> None:
    law, noise = SelectionLaw(mean_trials=10, shape=1.0, accountant="profile"), 3.0
    claimed = price([(Selected(Spending(1.0, noise, 1), 10.0, 1.0, "profile"), 1)], DELTA)
    assert refuted(noise, law=law, count=200_000) < claimed < refuted(noise / 5, law=law, count=200_000)
