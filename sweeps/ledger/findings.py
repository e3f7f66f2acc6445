"""What does not add up in a ledger's lines, one text per finding that names its line. Nothing is priced before the chain is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from sweeps.ledger.charges import FilterTerms, own_charge, read_terms
from sweeps.ledger.lines import GENESIS, LINE_WORDS, UNFULFILLED, Kind, LedgerLine

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Selected

EpsilonOf = Callable[["Spending | Selected", float], float]
"""ε of one line at δ: `dpcore.privacy.composition.epsilon_of_charge`."""

TOLERANCE = 1e-6
"""Relative. Accounting is deterministic; libraries' last digits are not."""


def place_of(line: LedgerLine) -> str:
    """How a finding names a line."""
    return f"line {line.number} ({line.sweep} {line.trial_id})"


def chain_findings(lines: Iterable[LedgerLine]) -> Iterator[str]:
    """Lines that were changed, dropped or put elsewhere."""
    previous, number = GENESIS, 0
    for line in lines:
        number += 1
        if line.number != number:
            yield f"{place_of(line)}: expected line {number} here: lines are missing"
            number = line.number
        if line.previous != previous or line.hash != line.computed_hash():
            yield f"{place_of(line)}: its hash does not follow from its content and the line before: something was changed"
        previous = line.hash


def run_findings(lines: Iterable[LedgerLine]) -> Iterator[str]:
    """Runs that stand twice, and ends that are not of what was reserved."""
    seen: dict[tuple[tuple[str, str, int], Kind], LedgerLine] = {}
    for line in lines:
        reserved, before = seen.get((line.run, "reserve")), seen.get((line.run, line.kind))
        if before is not None:
            yield f"{place_of(line)}: repeats line {before.number}"
        elif line.kind in ("settle", "unseal") and reserved is None:
            yield f"{place_of(line)}: {LINE_WORDS[line.kind]} without a reservation"
        elif reserved is not None and (line.spending, line.cohort, line.event) != (reserved.spending, reserved.cohort, reserved.event):
            yield f"{place_of(line)}: {LINE_WORDS[line.kind]} something else than line {reserved.number} reserved"
        if line.kind == "settle" and line.outcome == UNFULFILLED:
            where = "" if reserved is None else f" that line {reserved.number} holds"
            yield f"{place_of(line)}: ended {UNFULFILLED}: something else ran than the reservation{where}, so its ε is not what was spent"
        seen.setdefault((line.run, line.kind), line)


def filter_findings(lines: Iterable[LedgerLine]) -> Iterator[str]:
    """Lines that pass the budget of their sweep's filter. Each filter's sum grows line by line, so a long ledger is read once."""
    sums: dict[str, float] = {}
    for line in lines:
        if line.kind != "reserve" or not line.priced_by:
            continue
        terms = read_terms(line.priced_by)
        if isinstance(terms, FilterTerms):
            from dpcore.privacy.composition import rdp_of

            after = sums.get(line.priced_by, 0.0) + rdp_of(line.spending, terms.order)
            if after > terms.rdp * (1 + TOLERANCE):
                yield f"{place_of(line)}: passes the budget of its RDP filter"
            sums[line.priced_by] = after


def epsilon_findings(lines: Iterable[LedgerLine], epsilon_of: EpsilonOf) -> Iterator[str]:
    """Lines that promise less than their noise and steps give. Equal runs are priced once."""
    known: dict[tuple[Spending | Selected, float], float] = {}
    for line in lines:
        if line.event == "note":
            continue
        private = line.event == "gaussian"
        if private != (line.epsilon is not None) or private != (line.noise_multiplier > 0):
            yield f"{place_of(line)}: {line.event} with epsilon {line.epsilon} and noise {line.noise_multiplier:g}: one of them was changed"
        elif line.epsilon is not None:
            run_of = (own_charge(line), line.delta)
            spent = known[run_of] if run_of in known else known.setdefault(run_of, epsilon_of(*run_of))
            if spent > line.epsilon * (1 + TOLERANCE):
                yield f"{place_of(line)}: says epsilon {line.epsilon:.6g}, its steps and noise give {spent:.6g}"
