"""A cap is not composed anew for every trial, and is never passed."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpcore.errors import Refused
from dpcore.privacy.composition import AtOrder
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.room import Room


def reservation(number: int, *, noise: float = 2.0, cohort: str = "dd", sweep: str = "s") -> Reservation:
    return Reservation(
        sweep=sweep, trial_id=f"e{noise:g}-{number:04d}", dataset="d", cohort=cohort, sampling_prob=0.1, noise_multiplier=noise, steps=5,
        epsilon=1 / noise, delta=1e-5,
    )  # fmt: skip


class Counting:
    """Composition by addition, which counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, charges: Sequence[tuple[Any, int]], delta: float) -> float:
        self.calls += 1
        return sum(count / charge.noise_multiplier for charge, count in charges if not isinstance(charge, AtOrder))


def test_random_orders_of_reservations_fill_a_cap_as_far_as_it_goes_and_no_further(tmp_path: Path) -> None:
    for seed in range(5):
        ledger, compose, generator = Ledger(f"sqlite:///{tmp_path / f'{seed}.sqlite'}"), Counting(), random.Random(seed)
        spent, cap = 0.0, generator.uniform(5, 40)
        for number in range(150):
            noise = generator.choice((1.0, 2.0, 4.0, 8.0))
            fits = spent + 1 / noise <= cap
            if fits:
                ledger.reserve(reservation(number, noise=noise), cap=cap, compose=compose)
                spent += 1 / noise
            else:
                with pytest.raises(Refused, match="would be passed"):
                    ledger.reserve(reservation(number, noise=noise), cap=cap, compose=compose)
        assert sum(line.epsilon or 0.0 for line in ledger.lines()) == pytest.approx(spent)


def test_far_below_a_cap_hundreds_of_trials_are_composed_a_few_times(tmp_path: Path) -> None:
    ledger, compose = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Counting()
    for number in range(200):
        ledger.reserve(reservation(number, noise=(1.0, 2.0, 4.0, 8.0)[number % 4]), cap=1e6, compose=compose)
    assert compose.calls <= 4


def test_what_another_process_reserved_in_between_counts(tmp_path: Path) -> None:
    url, compose = f"sqlite:///{tmp_path / 'ledger.sqlite'}", Counting()
    one, other = Ledger(url), Ledger(url)
    one.reserve(reservation(0), cap=40.0, compose=compose)  # finds room for 64 more
    for number in range(78):
        other.reserve(reservation(number, sweep="other"))
    one.reserve(reservation(1), cap=40.0, compose=compose)
    with pytest.raises(Refused, match=r"would bring it to 40\.5"):
        one.reserve(reservation(2), cap=40.0, compose=compose)


def test_room_that_was_found_for_some_people_or_some_cap_says_nothing_of_others() -> None:
    room, compose = Room(), Counting()
    room.check(reservation(0), (), cap=100.0, compose=compose)
    with pytest.raises(Refused):
        room.check(reservation(0), (), cap=0.4, compose=compose)
    calls = compose.calls
    room.check(reservation(0, cohort="others"), (), cap=100.0, compose=compose)
    assert compose.calls > calls


def test_a_smaller_delta_asks_anew(tmp_path: Path) -> None:
    """At a smaller δ the same reservations cost more."""

    def shrinking(charges: Sequence[tuple[Any, int]], delta: float) -> float:
        return sum(Counter(dict(charges)).values()) * (1e-5 / delta)

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.reserve(reservation(0), cap=10.0, compose=shrinking)
    with pytest.raises(Refused, match="at delta 1e-06"):
        ledger.reserve(replace(reservation(1), delta=1e-6), cap=10.0, compose=shrinking)
