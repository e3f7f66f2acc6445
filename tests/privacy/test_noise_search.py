"""The search for the smallest noise: on the private side, close, and with few prices on the fine grid."""

from __future__ import annotations

from collections import Counter

import pytest

from dpcore.config import Relation
from dpcore.errors import BadInput
from dpcore.privacy import noise_search
from dpcore.privacy.grid import FINAL_INTERVAL, LARGEST_NOISE, NOISE_TOLERANCE
from dpcore.privacy.losses import epsilon_at_interval
from dpcore.privacy.noise_search import search_noise
from dpcore.privacy.plan import Spending

DELTA = 1e-5


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Counter[float]:
    """How often ε was computed on the grid of each interval."""
    counts: Counter[float] = Counter()

    def counted(spending: Spending, delta: float, interval: float) -> float:
        counts[interval] += 1
        return epsilon_at_interval(spending, delta, interval)

    monkeypatch.setattr(noise_search, "epsilon_at_interval", counted)
    return counts


@pytest.mark.parametrize(
    ("q", "steps", "epsilon", "relation", "most"),
    [
        (0.064, 60, 0.2, "add_remove", 4),
        (0.064, 60, 4.0, "add_remove", 2),
        (1.0, 5, 1.0, "add_remove", 3),
        (0.06, 60, 0.8, "replace", 3),
        (0.037, 1, 0.3, "add_remove", 4),
    ],
)
def test_few_prices_on_the_fine_grid_find_the_smallest_noise(
    priced: Counter[float], q: float, steps: int, epsilon: float, relation: Relation, most: int
) -> None:
    """One of them is that of the largest noise, which says whether the target can be reached."""
    noise = search_noise(Spending(q, LARGEST_NOISE, steps, relation), delta=DELTA, epsilon=epsilon)
    assert priced[FINAL_INTERVAL] <= most
    assert epsilon_at_interval(Spending(q, noise, steps, relation), DELTA, FINAL_INTERVAL) <= epsilon
    assert epsilon_at_interval(Spending(q, noise * (1 - 2 * NOISE_TOLERANCE), steps, relation), DELTA, FINAL_INTERVAL) > epsilon


def test_a_target_that_hardly_any_noise_keeps_is_refused_without_ever_pricing_less_than_the_smallest_noise(
    priced: Counter[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def noted(spending: Spending, delta: float, interval: float) -> float:
        asked.append(spending.noise_multiplier)
        return 0.0

    monkeypatch.setattr(noise_search, "epsilon_at_interval", noted)
    with pytest.raises(BadInput, match=r"a noise multiplier below 0\.05 would do"):
        search_noise(Spending(0.1, LARGEST_NOISE, 10), delta=DELTA, epsilon=1.0)
    assert min(asked) > 0.05
