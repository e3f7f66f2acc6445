"""The ledger: idempotent, chained, capped, safe for several writers."""

import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.privacy.composition import AtOrder
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.witness import Witness

ONE = Reservation(
    sweep="s",
    trial_id="e1-000",
    dataset="d",
    cohort="dd",
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
    if isinstance(spending, AtOrder):
        return 0.0
    return 1 / spending.noise_multiplier if spending.noise_multiplier else math.inf


def compose(spendings: object, delta: float) -> float:
    return sum(count * epsilon_of(spending, delta) for spending, count in spendings)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_the_same_attempt_is_reserved_once_and_another_attempt_again(ledger: Ledger) -> None:
    assert ledger.reserve(ONE) == ledger.reserve(ONE)
    ledger.reserve(replace(ONE, attempt=1))
    assert [line.attempt for line in ledger.lines()] == [0, 1]


@pytest.mark.parametrize("change", [{"steps": 6}, {"cohort": "other"}, {"fingerprint": "other"}, {"key_id": "other"}])
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
    assert ledger.epsilon_total(1e-5, compose, cohort="dd") == 0.5
    assert ledger.epsilon_total(1e-5, compose, cohort="other") == 0.0


def test_a_reservation_that_would_pass_the_cap_is_not_made(ledger: Ledger) -> None:
    for number in (0, 1):
        ledger.reserve(numbered(number), cap=1.0, compose=compose)
    ledger.reserve(numbered(1), cap=1.0, compose=compose)
    with pytest.raises(Refused, match="epsilon_total 1 on d would be passed"):
        ledger.reserve(numbered(2), cap=1.0, compose=compose)
    ledger.reserve(numbered(3, cohort="other"), cap=1.0, compose=compose)
    assert len(ledger.lines(cohort="dd")) == 2


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


def rewrite(tmp_path: Path, *statements: str) -> None:
    """Changes the file as somebody would who has it: constraints do not hold them back."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("create table copy as select * from lines")
        connection.execute("drop table lines")
        connection.execute("alter table copy rename to lines")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_line_missing_at_the_end_is_named_which_the_chain_alone_cannot_show(tmp_path: Path, ledger: Ledger) -> None:
    for number in range(3):
        ledger.reserve(numbered(number))
    ledger.close()
    rewrite(tmp_path, "delete from lines where number = 3")
    assert ledger.verify(epsilon_of) == (
        "line 3: it was written once (ledger.sqlite.witness remembers it) and is not there: lines were removed",
    )


def test_a_repeated_line_is_named_also_under_a_number_and_hash_of_its_own(tmp_path: Path, ledger: Ledger) -> None:
    for number in range(2):
        ledger.reserve(numbered(number))
    first, last = ledger.lines()
    copy = replace(first, number=3, previous=last.hash, hash="")
    ledger.close()
    rewrite(
        tmp_path,
        "insert into lines select * from lines where number = 1",
        f"update lines set number = 3, previous = '{last.hash}', hash = '{copy.computed_hash()}' where rowid = 3",
    )
    assert ledger.verify(epsilon_of) == ("line 3 (s e1-000): repeats line 1",)


def test_a_ledger_that_was_written_anew_with_a_sound_chain_is_named(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(ONE)
    (line,) = ledger.lines()
    forged = replace(line, noise_multiplier=4.0, epsilon=0.25)
    ledger.close()
    rewrite(tmp_path, f"update lines set noise_multiplier = 4.0, epsilon = 0.25, hash = '{forged.computed_hash()}'")
    assert ledger.verify(epsilon_of) == ("line 1: ledger.sqlite.witness remembers another hash: the ledger was written anew",)


def test_a_lost_witness_is_a_finding_where_it_should_have_seen_every_line(tmp_path: Path, ledger: Ledger) -> None:
    line = ledger.reserve(ONE)
    (tmp_path / "ledger.sqlite.witness").unlink()
    assert "cannot be told" in ledger.verify(epsilon_of)[0]
    of_a_sweep = Witness(tmp_path / "state" / "ledger.witness", sees_all=False)
    assert of_a_sweep.findings([line]) == []
    of_a_sweep.remember(line)
    of_a_sweep.read()
    assert of_a_sweep.findings([line]) == [] != of_a_sweep.findings([])


def test_settling_something_else_than_was_reserved_is_named(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(ONE)
    ledger.settle(ONE, steps_done=5, outcome="done")
    ledger.close()
    rewrite(tmp_path, "update lines set cohort = 'others' where number = 2")
    assert "line 2 (s e1-000): settled something else than line 1 reserved" in ledger.verify(epsilon_of)


SEALED = replace(ONE, trial_id="ceiling", event="non_private", noise_multiplier=0.0, epsilon=None)


def test_a_sealed_run_costs_nothing_until_it_is_shown_and_then_everything(ledger: Ledger) -> None:
    ledger.reserve(ONE)
    ledger.reserve(SEALED, cap=0.6, compose=compose)
    assert ledger.epsilon_total(1e-5, compose, cohort="dd") == 0.5
    with pytest.raises(Refused, match="epsilon_total is 3"):
        ledger.unseal(SEALED, cap=3.0)
    ledger.unseal(SEALED)
    assert ledger.epsilon_total(1e-5, compose, cohort="dd") == math.inf
    assert ledger.verify(epsilon_of) == ()
    with pytest.raises(Refused, match="would be passed"):
        ledger.reserve(numbered(1), cap=100.0, compose=compose)


def test_a_run_without_noise_that_names_an_epsilon_is_found(ledger: Ledger) -> None:
    ledger.reserve(replace(SEALED, epsilon=0.5))
    assert "one of them was changed" in ledger.verify(epsilon_of)[0]


def test_a_column_of_a_later_version_is_added_at_its_default_and_the_chain_still_holds(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(ONE)
    ledger.close()
    rewrite(tmp_path, "alter table lines drop column key_id", "alter table lines drop column event")
    later = Ledger(ledger.url)
    assert later.verify(epsilon_of) == ()
    later.settle(ONE, steps_done=5, outcome="done")
    assert [line.event for line in later.lines()] == ["gaussian", "gaussian"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("alter table lines rename column cohort to dataset_digest", "does not know: dataset_digest; columns it lacks: cohort"),
        ("alter table lines add column later text", "does not know: later"),
    ],
)
def test_a_ledger_of_an_incompatible_version_is_refused_by_its_columns(tmp_path: Path, ledger: Ledger, change: str, said: str) -> None:
    ledger.close()
    rewrite(tmp_path, change)
    with pytest.raises(Refused, match=said):
        Ledger(ledger.url)


def test_the_time_of_a_line_is_a_day(ledger: Ledger) -> None:
    assert len(ledger.reserve(ONE).at) == len("2026-01-31")


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


def first_ledger(path: Path) -> None:
    """A ledger as it was before lines named a relation: their table lacks the column, their hashes do not cover it."""
    ledger = Ledger(f"sqlite:///{path}")
    ledger.reserve(ONE)
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("alter table lines drop column relation")
    connection.close()


def test_a_ledger_without_relations_is_read_continued_and_verified(tmp_path: Path) -> None:
    first_ledger(tmp_path / "ledger.sqlite")
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.reserve(numbered(1, relation="replace"))
    assert [line.relation for line in ledger.lines()] == ["add_remove", "replace"]
    assert ledger.verify(epsilon_of) == ()


@pytest.mark.parametrize(("was", "becomes"), [("replace", "add_remove"), ("add_remove", "replace")])
def test_a_changed_relation_is_named(tmp_path: Path, ledger: Ledger, was: str, becomes: str) -> None:
    ledger.reserve(replace(ONE, relation=was))
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(f"update lines set relation = '{becomes}'")
    connection.close()
    assert any("something was changed" in text for text in ledger.verify(epsilon_of))


def test_verify_prices_a_line_under_its_relation(ledger: Ledger) -> None:
    def dearer_when_replaced(spending: object, delta: float) -> float:
        return epsilon_of(spending, delta) * (2 if spending.relation == "replace" else 1)

    ledger.reserve(ONE)
    ledger.reserve(numbered(1, relation="replace"))
    assert ledger.verify(dearer_when_replaced) == ("line 2 (s e1-001): says epsilon 0.5, its steps and noise give 1",)


def test_a_process_that_is_killed_while_it_writes_leaves_whole_lines_that_verify(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    script = (
        "import sys; from dataclasses import replace; sys.path.insert(0, sys.argv[1]); from test_ledger import ONE, Ledger\n"
        f"ledger = Ledger({url!r})\n"
        "for number in range(100000): ledger.reserve(replace(ONE, trial_id=str(number)))"
    )
    ledger = Ledger(url)
    with subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent)]) as writer:
        while len(ledger.lines()) < 20 and writer.poll() is None:
            time.sleep(0.01)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    there = ledger.lines()
    assert [line.trial_id for line in there] == [str(number) for number in range(len(there))]
    assert ledger.verify(epsilon_of) == ()
    assert ledger.reserve(ONE).number == len(there) + 1


def test_a_witness_that_a_full_disk_cut_short_raises_no_alarm_and_goes_on_in_a_line_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(3):
        ledger.reserve(numbered(number))
    path = tmp_path / "ledger.sqlite.witness"
    path.write_text(path.read_text()[:-20])
    ledger.reserve(numbered(3))
    assert [line.partition(" ")[0] for line in path.read_text().splitlines()] == ["1", "2", "3", "3", "4"]
    assert ledger.verify(epsilon_of) == ()


def test_a_kill_before_the_first_line_was_witnessed_is_no_loss_of_the_witness(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Witness, line: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Witness, "remember", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.reserve(ONE)
    assert ledger.verify(epsilon_of) == ()


def test_lines_that_were_exchanged_whole_are_named(tmp_path: Path, ledger: Ledger) -> None:
    """Each line is sound by itself; what does not fit is the hash before it."""
    for number in range(3):
        ledger.reserve(numbered(number))
    first, second, third = ledger.lines()
    exchanged = replace(third, trial_id="e1-777", previous=first.hash, hash="")
    ledger.close()
    rewrite(
        tmp_path, f"update lines set trial_id = 'e1-777', previous = '{first.hash}', hash = '{exchanged.computed_hash()}' where number = 3"
    )
    (tmp_path / "ledger.sqlite.witness").write_text(f"1 {first.hash}\n2 {second.hash}\n")
    assert [text.partition(":")[0] for text in ledger.verify(epsilon_of)] == ["line 3 (s e1-777)"]
