"""What was promised to a private dataset, written before it is spent.

One ledger per storage, across sweeps and commands; its lines are keyed by cohort, the people of a private dataset. A
trial's whole planned spending is reserved before the trial starts. A crash leaves the reservation standing: never
under-reported.

Guarantees: a reservation is idempotent by (sweep, trial, attempt). Lines are never changed: an end is a line of its own.
Each line's hash covers the line and the hash before it, and a witness beside the ledger remembers each hash, so that a
changed, dropped, repeated or swapped line shows, also the last one (`verify`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.durable import OWNER_ONLY, made_once
from dpcore.errors import Corrupt, Refused, Unavailable
from sweeps.ledger.charges import FilterTerms, passes_filter
from sweeps.ledger.database import NumberTaken, damage, file_of, is_blank, shown
from sweeps.ledger.findings import EpsilonOf, chain_findings, epsilon_findings, filter_findings, run_findings
from sweeps.ledger.lifetime import check_lifetime, lifetime_cap
from sweeps.ledger.lines import GENESIS, Kind, KnownLines, LedgerLine, Reservation, note
from sweeps.ledger.room import Compose, Room, total
from sweeps.ledger.stores.sqlite_look import SqliteLook
from sweeps.ledger.totals import counted
from sweeps.ledger.witness import Witness

if TYPE_CHECKING:
    from sweeps.ledger.stores.sql_store import SqlStore

__all__ = ["EpsilonOf", "Ledger", "LedgerLine", "Reservation"]

TRIES = 20


class Ledger:
    """The ledger at a SQLAlchemy URL; made on first use. Safe for several processes at once."""

    def __init__(
        self, url: str, *, must_exist: bool = False, read_only: bool = False, witness: Path | None = None, others: Sequence[Path] = ()
    ) -> None:
        """Opens or makes the ledger.

        Args:
            url: of the database.
            must_exist: do not make one.
            read_only: for a look: an SQLite file is neither changed nor locked against its writers.
            witness: a file of whoever writes here, which remembers the lines written from here. Beside an SQLite file lies another
                one, which remembers every line.
            others: files of other writers, which are asked and not written.

        Raises:
            BadInput: `url` is no SQLAlchemy URL.
            Unavailable: it cannot be reached, or is not there though `must_exist`.
            Refused: it was written by a version whose lines cannot be read here, or it is gone though a witness remembers its lines.
            Corrupt: its pages do not read.
        """
        self.url = url
        file = file_of(url)
        beside = [] if file is None else [Witness(file.with_name(f"{file.name}.witness"), sees_all=True)]
        own = [] if witness is None else [Witness(witness, sees_all=False)]
        self._written, self._asked = (*beside, *own), (*beside, *own, *(Witness(path, sees_all=False) for path in others))
        if file is not None and (not file.is_file() or is_blank(file)):
            refuse_loss(file, self._asked)
        if file is not None and not must_exist and not read_only:
            from sweeps.ledger.stores.sql_store import build

            made_once(file, lambda place: build(place, file), mode=OWNER_ONLY)
        self._store = _opened(url, must_exist=must_exist, read_only=read_only)
        self._known = KnownLines()
        self._room = Room()

    def reserve(
        self, reservation: Reservation, *, cap: float | None = None, compose: Compose | None = None, is_planned_whole: bool = True
    ) -> LedgerLine:
        """Writes down a spending before it happens. The same trial and attempt again is the same line.

        Args:
            reservation: what will be spent.
            cap: largest ε of all reservations of the dataset together, at the smallest δ among them; needs `compose`.
            compose: the accountant's composition.
            is_planned_whole: whether all of the sweep was fixed before its first trial; else its cap is a filter, as beside other sweeps.

        Raises:
            Refused: the same trial and attempt stands there with other numbers, config or key, or the cap or its filter would be passed.
            Unavailable: the ledger does not answer.
        """

        def check(known: KnownLines) -> None:
            self._check(reservation, known, cap=cap, compose=compose, is_planned_whole=is_planned_whole)

        return self._append(reservation, kind="reserve", check=check)

    def settle(self, reservation: Reservation, *, steps_done: int, outcome: str) -> LedgerLine:
        """Writes down how a reserved run ended; once, later calls change nothing.

        Raises:
            Refused: there is no such reservation.
        """
        return self._append(reservation, kind="settle", outcome=outcome, steps_done=steps_done)

    def unseal(self, reservation: Reservation, *, cap: float | None = None) -> LedgerLine:
        """Writes down, before it happens, that the result of a sealed run without privacy is shown: ε is ∞ from here on.

        Raises:
            Refused: there is no such reservation, or a cap is set, which ∞ passes.
        """
        cap = min((one for one in (cap, self.cap_of(reservation.cohort)) if one is not None), default=None)
        if cap is not None:
            raise Refused(f"showing {reservation.trial_id} would bring {reservation.dataset} to ε = ∞, and its epsilon_total is {cap:g}")
        return self._append(reservation, kind="unseal")

    def open_account(
        self, cohort: str, dataset: str, *, number: int, terms: FilterTerms | None, epsilon: float | None, delta: float
    ) -> LedgerLine:
        """Opens the account of a cohort, or changes its cap, in a line that stays. The last such line counts.

        Raises:
            Refused: what was charged already passes the cap.
        """
        line = replace(
            note("cohort", cohort, dataset=dataset, cohort=cohort),
            attempt=number,
            epsilon=epsilon,
            delta=delta,
            priced_by="" if terms is None else terms.text(),
        )

        def check(known: KnownLines) -> None:
            if terms is not None:
                check_lifetime(terms, counted(known.of_cohort(cohort)), f"a cap of {epsilon:g}", shown(self.url))

        return self._append(line, kind="open", check=check)

    def state_unit(self, cohort: str, unit: str) -> LedgerLine:
        """Writes down which unit the cohort's earlier lines that name none (those of 0.1.0) were promised to."""
        line = replace(note("unit", cohort, cohort=cohort), unit=unit)
        return self._append(line, kind="state", outcome=f"earlier lines without a unit are per {unit}")

    def publish(self, sweep: str, *, cohort: str, dataset: str, views: str) -> LedgerLine:
        """Writes down, before they are made, under which splits a sweep publishes a cohort's views."""
        return self._append(note(sweep, "views", dataset=dataset, cohort=cohort, views=views), kind="publish")

    def renew_witness(self) -> LedgerLine:
        """Writes a lost witness anew from the ledger as it stands, and a line into the ledger that says so for good.

        Raises:
            Refused: the witness is there, or another one remembers more than the ledger holds.
        """
        lost = [witness for witness in self._written if witness.sees_all and not witness.path.is_file()]
        if not lost:
            raise Refused(f"the witness of the ledger {shown(self.url)} is there; where it finds lines missing, bring those back")
        lines = self._read()
        for witness in lost:
            witness.begin()
            witness.remember(*lines)
        said = f"witness made anew after {len(lines)} lines; whether more had been written cannot be told"
        return self._append(note("witness", f"after {len(lines)}"), kind="state", outcome=said)

    def lines(self, *, cohort: str | None = None, sweep: str | None = None) -> tuple[LedgerLine, ...]:
        """The lines in order, of one dataset or sweep where given, whatever a witness says of them (`require_whole`). What was stated of
        earlier lines' unit belongs to every sweep."""
        found = [line for line in self._read() if cohort in (None, line.cohort)]
        return tuple(line for line in found if sweep in (None, line.sweep) or (line.kind == "state" and line.unit))

    def require_whole(self) -> None:
        """Refuses a ledger that went back in time: every writer and every plan asks this first.

        Raises:
            Refused: a witness remembers lines that are not there, or others; or the witness that sees every line is gone.
            Corrupt: pages of the database are damaged, also where every line still reads.
        """
        damaged = self._damage()
        if damaged:
            raise Corrupt(damaged[0])
        for witness in self._asked:
            witness.read()
        self._require_whole(self._read())

    def _require_whole(self, lines: Sequence[LedgerLine]) -> None:
        findings = [text for witness in self._asked for text in witness.findings(lines)]
        if findings:
            more = f" (and {len(findings) - 1} more findings)" if len(findings) > 1 else ""
            raise Refused(
                f"the ledger {shown(self.url)} is not what was written: {findings[0]}{more}. Nothing may be spent on a lower total. Bring "
                "the newest ledger back; `dpsweep ledger NAME --restore` writes lost lines from the witness, and `--renew-witness` goes on "
                "where the witness alone was lost"
            )

    def _read(self) -> tuple[LedgerLine, ...]:
        def ask() -> tuple[LedgerLine, ...]:
            with self._store.looking() as table:
                return table.lines()

        return self._store.patiently(ask)

    def open_reservations(self, sweep: str) -> tuple[LedgerLine, ...]:
        """The reservations of a sweep that have not been settled."""
        lines = self.lines(sweep=sweep)
        settled = {line.run for line in lines if line.kind == "settle"}
        return tuple(line for line in lines if line.kind == "reserve" and line.run not in settled)

    def is_open(self, reservation: Reservation) -> bool:
        """Whether a run stands reserved and not settled."""

        def ask() -> None:
            with self._store.looking() as table:
                self._known.catch_up(table)

        self._store.patiently(ask)
        lines = self._known.of_run(reservation.run)
        return "reserve" in lines and "settle" not in lines

    def epsilon_total(self, delta: float, compose: Compose, *, cohort: str | None = None, sweep: str | None = None) -> float:
        """ε at `delta` of all reservations together, 0 without any. Settled or not: what was reserved counts in full."""
        return total(self.lines(cohort=cohort, sweep=sweep), delta, compose)

    def cap_of(self, cohort: str) -> float | None:
        """The most ε that a cohort may ever be charged; None where its account sets none, or there is no account."""
        opened = [line for line in self.lines(cohort=cohort) if line.kind == "open"]
        return opened[-1].epsilon if opened else None

    def verify(self, epsilon_of: EpsilonOf) -> tuple[str, ...]:
        """What does not add up, one text per finding that names its line; empty when all is well.

        Checks the chain of hashes, the numbering, the witness, that each ε follows from its line's q, σ, T, δ and the terms it
        is priced by, that no filter let more through than its budget, that no run stands twice, and that what was settled or
        unsealed is what was reserved.
        """
        pages = self._damage()
        if pages:
            return pages
        for witness in self._asked:  # before the ledger: a line that is committed in between would look lost
            witness.read()
        lines = self._read()
        witnessed = [text for witness in self._asked for text in witness.findings(lines)]
        unpriced = (*chain_findings(lines), *run_findings(lines), *witnessed)
        return (*unpriced, *filter_findings(lines), *epsilon_findings(lines, epsilon_of))

    def _damage(self) -> tuple[str, ...]:
        """What SQLite itself finds wrong with its pages."""
        return tuple(damage(self.url, text) for text in self._store.damage())

    def close(self) -> None:
        """Lets go of the database."""
        self._store.close()

    def _append(
        self,
        reservation: Reservation,
        *,
        kind: Kind,
        outcome: str = "",
        steps_done: int = 0,
        check: Callable[[KnownLines], None] | None = None,
    ) -> LedgerLine:
        plain = {f.name: getattr(reservation, f.name) for f in fields(Reservation)}
        writer = self._writer()

        def write() -> LedgerLine:
            for witness in self._asked:  # before the ledger, which then has every line that they remember
                witness.read()
            with writer.writing() as table:
                self._known.catch_up(table)
                if any(witness.disagrees(self._known) for witness in self._asked):
                    self._require_whole(self._known.all)
                there = _standing(self._known, reservation, kind)
                if there is not None:
                    return there
                if check is not None:
                    check(self._known)
                for witness in self._written:
                    witness.begin()
                line = _chained(self._known.last, kind=kind, outcome=outcome, steps_done=steps_done, **plain)
                table.add(line)
            for witness in self._written:
                earlier = witness.unwritten(self._known.all) if witness.sees_all else []
                witness.remember(*earlier, line)
            return line

        for _ in range(TRIES):
            try:
                return writer.patiently(write)
            except NumberTaken:
                continue  # read again
        raise Unavailable(f"the ledger {shown(self.url)} is written by too many processes at once; try again")

    def _writer(self) -> SqlStore:
        """The store, which writes.

        Raises:
            TypeError: the ledger was opened for a look.
        """
        if isinstance(self._store, SqliteLook):
            raise TypeError(f"the ledger {shown(self.url)} was opened for a look: open it again to write")
        return self._store

    def _check(
        self, reservation: Reservation, known: KnownLines, *, cap: float | None, compose: Compose | None, is_planned_whole: bool
    ) -> None:
        if passes_filter(known.reserved_under(reservation.priced_by), reservation):
            raise Refused(
                f"{reservation.trial_id} would pass the budget of its RDP filter ({reservation.priced_by}), which was fixed before the "
                "first trial; what is there stays as it is, further trials need a sweep of their own"
            )
        terms = lifetime_cap(known.of_cohort(reservation.cohort))
        if terms is not None and reservation.event == "gaussian":
            charged = [*counted(known.of_cohort(reservation.cohort)), reservation]
            check_lifetime(terms, charged, reservation.trial_id, shown(self.url))
        if cap is not None and compose is not None:
            own = known.of_cohort(reservation.cohort)
            self._room.check(reservation, own, cap=cap, compose=compose, is_planned_whole=is_planned_whole)


def _opened(url: str, *, must_exist: bool, read_only: bool) -> SqlStore | SqliteLook:
    """The table: read without SQLAlchemy where an SQLite file is only looked at."""
    file = file_of(url)
    if read_only and file is not None:
        return SqliteLook(url, file)
    from sweeps.ledger.stores.sql_store import SqlStore

    return SqlStore(url, must_exist=must_exist, read_only=read_only)


def refuse_loss(file: Path, witnesses: Sequence[Witness]) -> None:
    """Refuses an SQLite ledger that is not there though somebody remembers its lines.

    Raises:
        Refused: names the witness and what to do.
    """
    for witness in witnesses:
        if witness.read():
            raise Refused(
                f"the ledger {file} is gone, and {witness.path} remembers {witness.count} lines of it: nothing may be spent on a lower "
                "total. Bring it back, or `dpsweep ledger NAME --restore` writes it from its witness"
            )


def _standing(known: KnownLines, wanted: Reservation, kind: Kind) -> LedgerLine | None:
    """The line that is there already. A replay must be the very same release: spending, data, config and key."""
    own = known.of_run(wanted.run)
    if kind in ("settle", "unseal") and "reserve" not in own:
        raise Refused(f"{wanted.sweep} {wanted.trial_id} attempt {wanted.attempt} was never reserved: reserve before anything is spent")
    there = own.get("reserve")
    if there is not None:
        # A settlement may come after the key was lost; a reservation under another key is another release.
        asked = ("spending", "priced_by", "event", "cohort", *(("fingerprint", "key_id") if kind == "reserve" else ()))
        differing = [
            f"{name} {getattr(there, name)}, asked {getattr(wanted, name)}"
            for name in asked
            if getattr(there, name) != getattr(wanted, name)
        ]
        if differing:
            raise Refused(
                f"ledger line {there.number} holds {wanted.sweep} {wanted.trial_id} attempt {wanted.attempt} with {'; '.join(differing)}: "
                "another release needs another attempt or another name"
            )
    return own.get(kind)


def _chained(last: LedgerLine | None, **values: Any) -> LedgerLine:
    at = datetime.now(UTC).date().isoformat()
    bare = LedgerLine(number=1 if last is None else last.number + 1, at=at, previous=GENESIS if last is None else last.hash, **values)
    return LedgerLine(**{**asdict(bare), "hash": bare.computed_hash()})
