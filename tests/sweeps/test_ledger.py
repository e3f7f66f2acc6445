"""The ledger: idempotent, chained, capped, safe for several writers."""

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.ledger import Ledger, Reservation

ONE = Reservation(
    sweep="s",
    trial_id="e1-000",
    dataset="d",
    dataset_digest="dd",
    sampling_prob=0.1,
    noise_multiplier=2.0,
    steps=5,
    epsilon=0.5,
    delta=1e-5,
)


def numbered(number: int, **changes: object) -> Reservation:
    return replace(ONE, trial_id=f"e1-{number:03d}", **changes)


def epsilon_of(spending: object, delta: float) -> float:
    """Stands for the accountant: 1 / noise."""
    return 1 / spending.noise_multiplier


def compose(spendings: object, delta: float) -> float:
    return sum(count * epsilon_of(spending, delta) for spending, count in spendings)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_the_same_attempt_is_reserved_once_and_another_attempt_again(ledger: Ledger) -> None:
    assert ledger.reserve(ONE) == ledger.reserve(ONE)
    ledger.reserve(replace(ONE, attempt=1))
    assert [line.attempt for line in ledger.lines()] == [0, 1]


@pytest.mark.parametrize("change", [{"steps": 6}, {"dataset_digest": "other"}, {"fingerprint": "other"}, {"key_id": "other"}])
def test_another_release_under_the_same_attempt_is_refused(ledger: Ledger, change: dict[str, object]) -> None:
    ledger.reserve(ONE)
    with pytest.raises(
        Refused, match=f"{next(iter(change)) if 'steps' not in change else 'spending'}.*another release needs another attempt"
    ):
        ledger.reserve(replace(ONE, **change))
    assert len(ledger.lines()) == 1


def test_a_run_whose_key_was_lost_can_still_be_settled(ledger: Ledger) -> None:
    ledger.reserve(ONE)
    assert ledger.settle(replace(ONE, key_id="new"), steps_done=2, outcome="failed").kind == "settle"


def test_a_larger_delta_does_not_slip_under_the_cap(ledger: Ledger) -> None:
    def shrinking(spendings: object, delta: float) -> float:
        return compose(spendings, delta) * (1e-5 / delta)

    ledger.reserve(ONE, cap=0.6, compose=shrinking)
    with pytest.raises(Refused, match="at delta 1e-05"):
        ledger.reserve(numbered(1, delta=1e-2), cap=0.6, compose=shrinking)


def test_settling_needs_a_reservation_and_happens_once(ledger: Ledger) -> None:
    with pytest.raises(Refused, match="never reserved"):
        ledger.settle(ONE, steps_done=5, outcome="done")
    ledger.reserve(ONE)
    assert [line.trial_id for line in ledger.open_reservations("s")] == ["e1-000"]
    assert ledger.settle(ONE, steps_done=5, outcome="done") == ledger.settle(ONE, steps_done=2, outcome="failed")
    assert ledger.open_reservations("s") == ()


def test_a_settled_run_counts_in_full(ledger: Ledger) -> None:
    ledger.reserve(ONE)
    ledger.settle(ONE, steps_done=1, outcome="failed")
    assert ledger.epsilon_total(1e-5, compose, dataset_digest="dd") == 0.5
    assert ledger.epsilon_total(1e-5, compose, dataset_digest="other") == 0.0


def test_a_reservation_that_would_pass_the_cap_is_not_made(ledger: Ledger) -> None:
    for number in (0, 1):
        ledger.reserve(numbered(number), cap=1.0, compose=compose)
    ledger.reserve(numbered(1), cap=1.0, compose=compose)
    with pytest.raises(Refused, match="epsilon_total 1 on d would be passed"):
        ledger.reserve(numbered(2), cap=1.0, compose=compose)
    ledger.reserve(numbered(3, dataset_digest="other"), cap=1.0, compose=compose)
    assert len(ledger.lines(dataset_digest="dd")) == 2


def test_another_sweep_on_the_same_data_counts_under_the_cap(ledger: Ledger) -> None:
    for sweep in ("one", "two"):
        ledger.reserve(numbered(0, sweep=sweep), cap=1.0, compose=compose)
    with pytest.raises(Refused, match="epsilon_total 1 on d would be passed"):
        ledger.reserve(numbered(0, sweep="three"), cap=1.0, compose=compose)


def test_a_sound_ledger_verifies(ledger: Ledger) -> None:
    for number in range(3):
        ledger.reserve(numbered(number))
        ledger.settle(numbered(number), steps_done=5, outcome="done")
    assert ledger.verify(epsilon_of) == ()


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("update lines set epsilon = 0.1 where number = 3", "line 3"),
        ("update lines set steps = 1 where number = 2", "line 2"),
        ("update lines set at = 'never' where number = 4", "line 4"),
        ("delete from lines where number = 2", "line 3"),
    ],
)
def test_a_changed_or_dropped_line_is_named(tmp_path: Path, ledger: Ledger, statement: str, finding: str) -> None:
    for number in range(4):
        ledger.reserve(numbered(number))
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    findings = ledger.verify(epsilon_of)
    assert any(text.startswith(finding) for text in findings)


def test_an_epsilon_smaller_than_what_the_steps_give_is_named(ledger: Ledger) -> None:
    ledger.reserve(replace(ONE, epsilon=0.2))
    assert ledger.verify(epsilon_of) == ("line 1 (s e1-000): says epsilon 0.2, its steps and noise give 0.5",)


def test_two_writers_lose_no_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledgers = [Ledger(url), Ledger(url)]

    def write(which: int) -> None:
        for number in range(10):
            ledgers[which].reserve(numbered(10 * which + number))

    threads = [threading.Thread(target=write, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.number for line in ledgers[0].lines()] == list(range(1, 21))
    assert ledgers[0].verify(epsilon_of) == ()


def test_a_wrong_url_and_a_missing_ledger_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no database URL"):
        Ledger("nonsense")
    with pytest.raises(Unavailable, match="is not there"):
        Ledger(f"sqlite:///{tmp_path / 'none.sqlite'}", must_exist=True)
