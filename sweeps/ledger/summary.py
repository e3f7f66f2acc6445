"""Who was promised what: a ledger summed up per cohort and sweep, with the cap of its people and the room that is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.ledger.lifetime import lifetime_cap, rdp_together
from sweeps.ledger.totals import UnitTotal, counted, totals_of

if TYPE_CHECKING:
    from sweeps.ledger.charges import Compose
    from sweeps.ledger.lines import LedgerLine


@dataclass(frozen=True, kw_only=True)
class SweepShare:
    """What one sweep or command was charged for the people of a cohort.

    Attributes:
        runs: reservations that count. open_runs: of them, how many have not been settled.
        totals: of this sweep alone, one per unit. They do not add up to the cohort's: noise composes better than sums.
    """

    sweep: str
    runs: int
    open_runs: int
    totals: tuple[UnitTotal, ...]


@dataclass(frozen=True, kw_only=True)
class CohortSummary:
    """The account of one cohort.

    Attributes:
        datasets: the names under which its people were charged.
        totals: of all sweeps together, one per unit.
        cap: most ε for all time; None without one. cap_delta: its δ.
        used_frac: share of the cap's RDP budget that is spent; None without a cap.
    """

    cohort: str
    datasets: tuple[str, ...]
    totals: tuple[UnitTotal, ...]
    shares: tuple[SweepShare, ...]
    cap: float | None = None
    cap_delta: float | None = None
    used_frac: float | None = None


def summaries_of(lines: Sequence[LedgerLine], compose: Compose) -> tuple[CohortSummary, ...]:
    """One summary per cohort of a ledger that verifies, in the order of their first lines. Each total is at its lines' smallest δ."""
    cohorts = dict.fromkeys(line.cohort for line in lines if line.cohort)
    return tuple(_summary(cohort, [line for line in lines if line.cohort == cohort], compose) for cohort in cohorts)


def _summary(cohort: str, lines: Sequence[LedgerLine], compose: Compose) -> CohortSummary:
    charged = counted(lines)
    names = dict.fromkeys(line.sweep for line in charged)
    terms, opened = lifetime_cap(lines), [line for line in lines if line.kind == "open"]
    has_cap = terms is not None and bool(opened)
    return CohortSummary(
        cohort=cohort,
        datasets=tuple(dict.fromkeys(line.dataset for line in lines if line.dataset)),
        totals=_totals(lines, compose),
        shares=tuple(_share(sweep, lines, compose) for sweep in names),
        cap=opened[-1].epsilon if has_cap else None,
        cap_delta=opened[-1].delta if has_cap else None,
        used_frac=None if terms is None else rdp_together(charged, terms.order) / terms.rdp if charged else 0.0,
    )


def _share(sweep: str, lines: Sequence[LedgerLine], compose: Compose) -> SweepShare:
    stated = [line for line in lines if line.sweep == sweep or (line.kind == "state" and line.unit)]
    settled = {line.run for line in stated if line.kind == "settle"}
    reserved = [line for line in stated if line.kind == "reserve" and line.event == "gaussian"]
    return SweepShare(
        sweep=sweep,
        runs=len(reserved),
        open_runs=sum(line.run not in settled for line in reserved),
        totals=_totals(stated, compose),
    )


def _totals(lines: Iterable[LedgerLine], compose: Compose) -> tuple[UnitTotal, ...]:
    found = list(lines)
    delta = min((line.delta for line in counted(found)), default=1.0)
    return totals_of(found, delta, compose)
