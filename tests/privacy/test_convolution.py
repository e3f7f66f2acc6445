"""A loss composed with itself and the ε that is read off it: against exact convolutions and dp-accounting's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld.pld_pmf import DensePLDPmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism
from hypothesis import given
from hypothesis import strategies as st
from scipy import fft

from dpcore.privacy.convolution import ROUNDING, TAIL, epsilon_at_delta, kept_range, self_composed

MASSES = st.lists(st.sampled_from([0.0, 1e-13, 3.7e-6, 0.011, 0.4, 1.0]), min_size=1, max_size=9).filter(any)


def convolved(probs: np.ndarray, times: int) -> np.ndarray:
    """Without a transform: every entry is a sum of products of numbers above 0, so small ones keep their digits."""
    whole = np.ones(1)
    for _ in range(times):
        whole = np.convolve(whole, probs)
    return whole


@given(masses=MASSES, times=st.sampled_from([1, 2, 7, 61, 301]))
def test_what_is_cut_is_at_most_the_mass_that_is_counted_as_infinite(masses: list[float], times: int) -> None:
    probs = np.array(masses) / sum(masses)
    whole, (low, high) = convolved(probs, times), kept_range(probs, times)
    assert 0 <= low <= high < len(whole)
    assert whole[:low].sum() <= TAIL / 2
    assert whole[high + 1 :].sum() <= TAIL / 2


def test_many_steps_are_cut_where_their_tails_end() -> None:
    """An order that was never searched would keep everything, and the transform would be as long."""
    probs = np.full(1001, 1 / 1001)
    low, high = kept_range(probs, 10_000)
    deviation = math.sqrt(10_000 * (1001**2 - 1) / 12)
    assert high - low < 2 * 8.5 * deviation


@pytest.mark.parametrize("times", [1, 13, 1009])
@pytest.mark.parametrize("interval", [0.0137, 0.11])
def test_a_loss_with_itself_is_what_dp_accounting_makes_of_it(times: int, interval: float) -> None:
    loss = from_gaussian_mechanism(0.973, sampling_prob=0.0643, value_discretization_interval=interval)
    ours, theirs = self_composed(loss, times), loss.self_compose(times)
    for epsilon in (0.3, 2.7, 19.1):
        expected = theirs.get_delta_for_epsilon(epsilon)
        assert ours.get_delta_for_epsilon(epsilon) == pytest.approx(expected, rel=1e-9, abs=2 * (TAIL + times * ROUNDING))


@given(
    masses=MASSES,
    lowest=st.integers(-7, 4),
    infinite=st.sampled_from([0.0, 1e-9, 0.02]),
    delta=st.sampled_from([1e-12, 1.3e-5, 0.02, 0.37, 0.99]),
    interval=st.sampled_from([0.13, 1.0, 97.3]),
)
def test_epsilon_is_what_dp_accounting_reads(masses: list[float], lowest: int, infinite: float, delta: float, interval: float) -> None:
    """Intervals of 97 reach losses whose mass under the other law is 0 in float64."""
    probs = np.array(masses) / sum(masses) * (1 - infinite)
    loss = PrivacyLossDistribution(DensePLDPmf(interval, lowest, probs, infinite, True))
    assert epsilon_at_delta(loss, delta) == pytest.approx(loss.get_epsilon_for_delta(delta), rel=1e-12, abs=1e-12)


def test_epsilon_may_lie_below_every_loss() -> None:
    """All mass at a loss of 5: δ = 1 - e^(ε - 5) down to an ε of 0."""
    loss = PrivacyLossDistribution(DensePLDPmf(1.0, 2, np.array([0.0, 0.0, 0.0, 1.0]), 0.0, True))
    assert epsilon_at_delta(loss, 0.99) == pytest.approx(5 + math.log(0.01)) == pytest.approx(loss.get_epsilon_for_delta(0.99))
    assert epsilon_at_delta(loss, 0.994) == 0.0


def test_both_neighbours_count() -> None:
    """A unit that is removed and one that is added have unlike losses: the larger ε is promised."""
    few, many = (DensePLDPmf(1.0, 0, np.array(probs), 0.0, True) for probs in ([0.97, 0.03], [0.2, 0.8]))
    for loss in (PrivacyLossDistribution(few, many), PrivacyLossDistribution(many, few)):
        assert epsilon_at_delta(loss, 0.1) == pytest.approx(PrivacyLossDistribution(many).get_epsilon_for_delta(0.1))
        twice = self_composed(loss, 2)
        assert twice.get_delta_for_epsilon(0.5) == pytest.approx(loss.self_compose(2).get_delta_for_epsilon(0.5))


@pytest.mark.parametrize(("noise", "interval", "times"), [(0.973, 0.0137, 1009), (2.56, 0.0103, 75_013)])
def test_rounding_never_promises_less_than_extended_precision(noise: float, interval: float, times: int) -> None:
    """Without its margin a float64 transform takes 6e-14 and 1e-12 off δ here, and dp-accounting's own does too."""
    loss = from_gaussian_mechanism(noise, sampling_prob=0.0643, value_discretization_interval=interval)
    one, found = loss._pmf_remove.to_dense_pmf(), self_composed(loss, times)
    low, high = kept_range(one._probs, times)
    length = max(high - low + 1, len(one._probs))
    whole = np.roll(fft.irfft(fft.rfft(one._probs.astype(np.longdouble), length) ** times, length), -low)
    losses = (np.arange(length) + one._lower_loss * times + low) * np.longdouble(interval)
    infinite = -np.expm1(times * np.log1p(-np.longdouble(one._infinity_mass)))
    for delta in (1e-7, 1e-3):
        epsilon = np.longdouble(epsilon_at_delta(found, delta))
        above = losses > epsilon
        exact = infinite + np.sum(whole[above] * -np.expm1(epsilon - losses[above]))
        assert delta * (1 - 1e-3) <= exact <= delta
