"""A score on private people: what one of them can move, how much noise that takes, and what it costs."""

import numpy as np
import pytest

from dpcore.errors import BadInput
from dpcore.privacy.accounting import Spending, compose
from dpcore.privacy.randomness import NumpyStream, PrivateStreams, SweepKey
from dpcore.privacy.score_release import ScoreRelease, calibrate_release

RELEASE = ScoreRelease(noise_multiplier=2.0, nominal_units=100)


@pytest.mark.parametrize(("people", "points"), [(500, 4.5), (2958, 0.76)])
def test_the_noise_of_24_scores_at_epsilon_eight_tenths(people: int, points: float) -> None:
    release = calibrate_release(24, epsilon=0.8, delta=1e-5, nominal_units=people)
    assert 100 * release.noise_stddev == pytest.approx(points, abs=0.06)
    assert compose([(Spending(1.0, release.noise_multiplier, 1), 24)], 1e-5) <= 0.8


def test_all_scores_together_stay_within_epsilon_and_less_noise_would_not() -> None:
    noise = calibrate_release(7, epsilon=1.0, delta=1e-5, nominal_units=500).noise_multiplier
    assert compose([(Spending(1.0, noise, 1), 7)], 1e-5) <= 1.0 < compose([(Spending(1.0, 0.99 * noise, 1), 7)], 1e-5)


def test_a_person_removed_or_replaced_moves_the_sum_by_at_most_one() -> None:
    """Under one stream the noise is one number: what is left of the difference is the people's."""
    key = SweepKey.fresh()

    def released(scores: list[float]) -> float:
        return RELEASE.noised(np.array(scores), PrivateStreams(key=key, trial_id="t").stream("validation", 3))

    whole = released([1.0, 0.25, 0.5])
    assert whole - released([0.25, 0.5]) == pytest.approx(1.0 / 100)
    assert whole - released([0.0, 0.25, 0.5]) == pytest.approx(1.0 / 100)


def test_the_divisor_is_the_nominal_number_and_the_noise_has_its_deviation() -> None:
    stream = NumpyStream(np.random.default_rng(3))
    draws = np.array([RELEASE.noised(np.full(50, 0.5), stream) for _ in range(4000)])
    assert draws.mean() == pytest.approx(0.25, abs=4 * 0.02 / 4000**0.5)
    assert 0.95 < draws.std() / RELEASE.noise_stddev < 1.05


@pytest.mark.parametrize("scores", [[1.5], [-0.1], [np.nan], [[0.5]]])
def test_what_one_person_could_move_by_more_is_refused(scores: list[float]) -> None:
    with pytest.raises(BadInput, match=r"\[0, 1\]"):
        RELEASE.noised(np.array(scores), NumpyStream(np.random.default_rng(0)))
