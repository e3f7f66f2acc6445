"""A ledger for people: the account of each cohort first, every line where it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sweeps.report.text import number
from sweeps.terminal.lines import counted
from sweeps.terminal.tables import render_table

if TYPE_CHECKING:
    from sweeps.ledger.lines import LedgerLine
    from sweeps.ledger.summary import CohortSummary
    from sweeps.ledger.totals import UnitTotal


def summary_text(cohorts: Sequence[CohortSummary], *, lines: int) -> str:
    """Per cohort: its cap and the room that is left, and what each sweep was charged."""
    blocks = ["\n".join(_account(one)) for one in cohorts]
    return "\n\n".join([*blocks, f"{counted(lines, 'line')} behind this: `--lines` shows them"])


def _account(one: CohortSummary) -> Iterator[str]:
    datasets = ", ".join(one.datasets) or "no dataset"
    yield f"cohort {one.cohort} ({datasets})"
    for total in one.totals:
        yield f"  charged: {total.text()}"
    if one.cap is None or one.used_frac is None:
        yield "  cap: none, for all time"
    else:
        left = max(0.0, 1.0 - one.used_frac)
        yield f"  cap: ε = {one.cap:g} at δ = {one.cap_delta:.3g} for all time; {100 * left:.0f} % of its budget is left"
    if one.shares:
        rows = [
            [share.sweep, "", str(share.runs), str(share.open_runs), _epsilon(share.totals), _delta(share.totals)] for share in one.shares
        ]
        yield render_table(["sweep", "", "runs", "open", "ε of it alone", "δ"], rows)


def _epsilon(totals: Sequence[UnitTotal]) -> str:
    return " / ".join(number(one.epsilon) for one in totals) or "0"


def _delta(totals: Sequence[UnitTotal]) -> str:
    return " / ".join(dict.fromkeys(f"{one.delta:.3g}" for one in totals)) or "–"


def lines_text(lines: Sequence[LedgerLine]) -> str:
    """Every line of a ledger as a row."""
    rows = [
        [
            str(line.number),
            line.kind,
            line.sweep,
            line.trial_id,
            line.dataset,
            "–" if line.event == "note" else number(math.inf if line.epsilon is None else line.epsilon),
            line.outcome or "–",
            line.at,
        ]
        for line in lines
    ]
    return render_table(["line", "kind", "sweep", "trial", "dataset", "ε", "outcome", "at"], rows)
