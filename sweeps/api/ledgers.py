"""The ledger behind a sweep: its lines, their sum, and whether they add up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.records.publication import load_spec, require_state
from sweeps.records.spec import DEFAULT_STORAGE, SweepSpec

if TYPE_CHECKING:
    from sweeps.ledger.ledger import LedgerLine
    from sweeps.ledger.summary import CohortSummary
    from sweeps.ledger.totals import UnitTotal


@dataclass(frozen=True, kw_only=True)
class LedgerReading:
    """A ledger as it stands.

    Attributes:
        lines: all lines of the storage, in order.
        totals: of all reservations on the people of the sweep, one per unit of privacy; none where something does not add up.
        findings: what does not add up, one text each; empty when all is well.
        cohorts: the account of each cohort; none where something does not add up, and where `priced_anew` was asked for.
    """

    lines: tuple[LedgerLine, ...]
    totals: tuple[UnitTotal, ...]
    delta: float
    findings: tuple[str, ...]
    cohorts: tuple[CohortSummary, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether every line adds up."""
        return not self.findings

    @property
    def epsilon_total(self) -> float | None:
        """The largest total; None where there is none for some unit, or the ledger does not verify."""
        known = [one.epsilon for one in self.totals if one.epsilon is not None]
        return max(known, default=0.0) if self.is_sound and len(known) == len(self.totals) else None

    def document(self) -> dict[str, Any]:
        """What `dpsweep ledger --json` prints."""
        totals = [{"unit": one.unit, "epsilon": one.epsilon, "delta": one.delta, "says": one.text()} for one in self.totals]
        return {
            "lines": [asdict(line) for line in self.lines],
            "epsilon_total": self.epsilon_total,
            "totals": totals,
            "cohorts": [asdict(one) for one in self.cohorts],
            "verified": self.is_sound,
        }

    def summary_text(self) -> str:
        """The account of each cohort, for a person."""
        from sweeps.report.overview.ledger_text import summary_text

        return summary_text(self.cohorts, lines=len(self.lines))

    def lines_text(self) -> str:
        """Every line, for a person."""
        from sweeps.report.overview.ledger_text import lines_text

        return lines_text(self.lines)


def read_ledger(
    name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None, priced_anew: bool = False
) -> LedgerReading:
    """Reads and verifies the ledger behind a sweep.

    Args:
        name: of the sweep.
        storage: folder of the sweeps, or a bucket's URI.
        state: folder of study, key and spool; None: where the sweep began.
        priced_anew: compute every ε again, a second and more; False: take those that the cache remembers.

    Raises:
        BadInput: there is no such sweep. Unavailable: its state or the ledger can't be reached.
    """
    from dpcore.privacy.composition import epsilon_of_charge, price
    from sweeps.ledger.database import file_of
    from sweeps.ledger.summary import summaries_of
    from sweeps.ledger.totals import totals_of
    from sweeps.records.charged import open_ledger

    spec = _spec(name, storage, state)
    ledger = open_ledger(spec, must_exist=True, read_only=file_of(spec.resolved_ledger_url) is not None)
    cache_dir = None if priced_anew else spec.places.cache_dir
    findings, delta = ledger.verify(partial(epsilon_of_charge, cache_dir=cache_dir)), spec.space.delta  # before anything is priced
    lines = () if any("is damaged" in text for text in findings) else ledger.lines()
    names = sorted({line.cohort for line in lines if line.sweep == spec.name and line.event != "note"})
    own = [] if findings else [[line for line in lines if line.cohort == cohort] for cohort in names]
    compose = partial(price, cache_dir=cache_dir)
    totals = tuple(one for charged in own for one in totals_of(charged, delta, compose))
    cohorts = () if findings or priced_anew else summaries_of(lines, compose)
    return LedgerReading(lines=lines, totals=totals, delta=delta, findings=findings, cohorts=cohorts)


def restore_lines(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> int:
    """Writes the lines back that the witness knows and the ledger has lost; returns how many.

    Raises:
        BadInput, Unavailable: as `read_ledger`. Refused: witness and ledger contradict each other.
    """
    from sweeps.ledger.restoring import restore
    from sweeps.records.charged import neighbours_of

    spec = _spec(name, storage, state)
    return restore(spec.resolved_ledger_url, (spec.ledger_witness, *neighbours_of(spec)))


def renew_witness(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> LedgerLine:
    """Starts a new witness for the ledger as it stands, and returns the line that says so.

    Raises:
        BadInput, Unavailable: as `read_ledger`.
    """
    from sweeps.records.charged import open_ledger

    return open_ledger(_spec(name, storage, state), must_exist=True).renew_witness()


def _spec(name: str, storage: str | Path, state: str | Path | None) -> SweepSpec:
    return require_state(load_spec(name, storage, None if state is None else Path(state)))
