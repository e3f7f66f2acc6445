"""How lines of the ledger turn into charges, and what a filter stops."""

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.errors import Corrupt, Refused
from dpcore.privacy.accounting import Spending, compose
from dpcore.privacy.composition import Filtered, Selected, SelectionAccountant, epsilon_of_charge, price, rdp_of
from sweeps.ledger.charges import FilterTerms, SelectionTerms, charges_of, own_charge, read_terms
from sweeps.ledger.ledger import Ledger, Reservation

RUN = Spending(0.1, 4.0, 5)
BUDGET = FilterTerms(sweep="s", order=8, rdp=2.5 * rdp_of(RUN, 8))


def reservation(number: int, *, terms: FilterTerms | SelectionTerms | None = None, steps: int = 5) -> Reservation:
    return Reservation(
        sweep="s",
        trial_id=f"e1-{number:03d}",
        dataset="d",
        cohort="dd",
        sampling_prob=0.1,
        noise_multiplier=4.0,
        steps=steps,
        epsilon=2.0,
        delta=1e-5,
        priced_by="" if terms is None else terms.text(),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


UNKNOWN = '{"selection":{"accountant":"other","mean_trials":3,"shape":1}}'


@pytest.mark.parametrize(
    "terms",
    [
        BUDGET,
        SelectionTerms(mean_trials=10.0, shape=0.5),
        SelectionTerms(mean_trials=3.0, shape=math.inf),
        SelectionTerms(mean_trials=7.0, shape=0.0, accountant="profile"),
    ],
)
def test_terms_come_back_from_their_text(terms: FilterTerms | SelectionTerms) -> None:
    assert read_terms(terms.text()) == terms


@pytest.mark.parametrize(
    "text", ["{}", "[1]", '{"filter":{}}', '{"other":{}}', "nonsense", '{"selection":{"mean_trials":"x","shape":1}}', UNKNOWN]
)
def test_terms_that_nobody_writes_are_corrupt(text: str) -> None:
    with pytest.raises(Corrupt, match="priced_by"):
        read_terms(text)


def test_runs_behind_a_filter_count_as_the_filter_once_and_in_full() -> None:
    lines = [reservation(0), reservation(1), reservation(2, terms=BUDGET), reservation(3, terms=BUDGET, steps=2)]
    assert charges_of(lines) == [(RUN, 2), (Filtered(8, BUDGET.rdp), 1)]
    assert own_charge(lines[3]) == Spending(0.1, 4.0, 2)
    assert own_charge(reservation(0, terms=SelectionTerms(mean_trials=3.0, shape=1.0))) == Selected(RUN, 3.0, 1.0)


def test_an_adaptively_chosen_run_is_priced_by_the_filter_and_never_by_pld(ledger: Ledger) -> None:
    for number in range(2):
        ledger.reserve(reservation(number, terms=BUDGET))
    assert ledger.epsilon_total(1e-5, price) == Filtered(8, BUDGET.rdp).epsilon(1e-5)
    assert ledger.epsilon_total(1e-5, price) > compose([(RUN, 2)], 1e-5)


def test_a_filter_that_is_used_up_stops_the_next_run_without_a_cap(ledger: Ledger) -> None:
    for number in range(2):
        ledger.reserve(reservation(number, terms=BUDGET))
    ledger.reserve(reservation(1, terms=BUDGET))
    with pytest.raises(Refused, match="RDP filter"):
        ledger.reserve(reservation(2, terms=BUDGET))
    ledger.reserve(reservation(3, terms=BUDGET, steps=2))
    ledger.reserve(reservation(4))
    assert ledger.verify(epsilon_of_charge) == ()


def test_verify_names_the_line_that_passes_its_filter(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sweeps.ledger.ledger.passes_filter", lambda lines, wanted: False)
        for number in range(3):
            ledger.reserve(reservation(number, terms=BUDGET))
    assert ledger.verify(epsilon_of_charge) == ("line 3 (s e1-002): passes the budget of its RDP filter",)


def test_a_selection_of_an_earlier_ledger_is_one_by_rdp() -> None:
    assert read_terms('{"selection":{"mean_trials":7.0,"shape":0.0}}') == SelectionTerms(mean_trials=7.0, shape=0.0, accountant="rdp")


@pytest.mark.parametrize("accountant", ["rdp", "profile"])
def test_verify_recomputes_a_selection_from_its_law(ledger: Ledger, accountant: SelectionAccountant) -> None:
    law = SelectionTerms(mean_trials=10.0, shape=1.0, accountant=accountant)
    true = epsilon_of_charge(Selected(RUN, 10.0, 1.0, accountant), 1e-5)
    ledger.reserve(replace(reservation(0, terms=law), epsilon=true))
    ledger.reserve(replace(reservation(1, terms=law), epsilon=true / 2))
    assert [finding.partition(" (")[0] for finding in ledger.verify(epsilon_of_charge)] == ["line 2"]


def test_terms_are_under_the_hash(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(reservation(0, terms=BUDGET))
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("update lines set priced_by = ''")
    connection.close()
    assert "something was changed" in ledger.verify(epsilon_of_charge)[0]


def test_a_ledger_of_the_first_version_is_brought_up_and_still_verifies(tmp_path: Path, ledger: Ledger) -> None:
    ledger.reserve(reservation(0))
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("alter table lines drop column priced_by")
    connection.close()
    again = Ledger(ledger.url)
    again.reserve(reservation(1, terms=BUDGET))
    assert [line.priced_by for line in again.lines()] == ["", BUDGET.text()]
    assert again.verify(epsilon_of_charge) == ()
