"""What was promised to a private dataset, written before it is spent.

One ledger per storage, across sweeps and commands; its lines are keyed by cohort, the people of a private dataset. A
trial's whole planned spending is reserved before the trial starts. A crash leaves the reservation standing: never
under-reported.

Guarantees: a reservation is idempotent by (sweep, trial, attempt). Lines are never changed: an end is a line of its own.
Each line's hash covers the line and the hash before it, and a witness beside the ledger remembers each hash, so that a
changed, dropped, repeated or swapped line shows, also the last one (`verify`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError

from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.ledger.charges import own_charge, passes_filter
from sweeps.ledger.lines import GENESIS, LINE_WORDS, LINES, Kind, KnownLines, LedgerLine, Reservation, prepare_table, read_lines
from sweeps.ledger.room import Compose, Room, total
from sweeps.ledger.witness import Witness

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Selected

EpsilonOf = Callable[["Spending | Selected", float], float]
"""ε of one line at δ: `dpcore.privacy.composition.epsilon_of_charge`."""

__all__ = ["EpsilonOf", "Ledger", "LedgerLine", "Reservation"]

TOLERANCE = 1e-6
"""Relative. Accounting is deterministic; libraries' last digits are not."""
TRIES = 20


class Ledger:
    """The ledger at a SQLAlchemy URL; made on first use. Safe for several processes at once."""

    def __init__(self, url: str, *, must_exist: bool = False, witness: Path | None = None) -> None:
        """Opens or makes the ledger.

        Args:
            url: of the database.
            must_exist: do not make one.
            witness: where the lines are remembered that are written from here, on a server's database; beside an SQLite file lies
                one of its own.

        Raises:
            BadInput: `url` is no SQLAlchemy URL.
            Unavailable: it cannot be reached, or is not there though `must_exist`.
            Refused: it was written by a version whose lines cannot be read here.
        """
        self.url = url
        try:
            self._engine = _open(url, must_exist=must_exist)
            prepare_table(self._engine, shown=_shown(url))
        except SQLAlchemyError as error:
            raise Unavailable(f"the ledger {_shown(url)} cannot be opened: {_reason(error)}; check --ledger or --storage") from None
        file = _file_of(url)
        path = witness if file is None else file.with_name(f"{file.name}.witness")
        self._witness = None if path is None else Witness(path, sees_all=file is not None)
        self._known = KnownLines()
        self._room = Room()

    def reserve(self, reservation: Reservation, *, cap: float | None = None, compose: Compose | None = None) -> LedgerLine:
        """Writes down a spending before it happens. The same trial and attempt again is the same line.

        Args:
            reservation: what will be spent.
            cap: largest ε of all reservations of the dataset together, at the smallest δ among them; needs `compose`.
            compose: the accountant's composition.

        Raises:
            Refused: the same trial and attempt stands there with other numbers, config or key, or the cap or its filter would be passed.
            Unavailable: the ledger does not answer.
        """
        return self._append(reservation, kind="reserve", check=lambda known: self._check(reservation, known, cap=cap, compose=compose))

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
        if cap is not None:
            raise Refused(f"showing {reservation.trial_id} would bring {reservation.dataset} to ε = ∞, and sweep.epsilon_total is {cap:g}")
        return self._append(reservation, kind="unseal")

    def lines(self, *, cohort: str | None = None, sweep: str | None = None) -> tuple[LedgerLine, ...]:
        """The lines in order, of one dataset or sweep where given."""
        with self._connection() as connection:
            found = read_lines(connection)
        return tuple(line for line in found if cohort in (None, line.cohort) and sweep in (None, line.sweep))

    def open_reservations(self, sweep: str) -> tuple[LedgerLine, ...]:
        """The reservations of a sweep that have not been settled."""
        lines = self.lines(sweep=sweep)
        settled = {line.run for line in lines if line.kind == "settle"}
        return tuple(line for line in lines if line.kind == "reserve" and line.run not in settled)

    def is_open(self, reservation: Reservation) -> bool:
        """Whether a run stands reserved and not settled."""
        with self._connection() as connection, connection.begin():
            self._known.catch_up(connection)
        lines = self._known.of_run(reservation.run)
        return "reserve" in lines and "settle" not in lines

    def epsilon_total(self, delta: float, compose: Compose, *, cohort: str | None = None, sweep: str | None = None) -> float:
        """ε at `delta` of all reservations together, 0 without any. Settled or not: what was reserved counts in full."""
        return total(self.lines(cohort=cohort, sweep=sweep), delta, compose)

    def verify(self, epsilon_of: EpsilonOf) -> tuple[str, ...]:
        """What does not add up, one text per finding that names its line; empty when all is well.

        Checks the chain of hashes, the numbering, the witness, that each ε follows from its line's q, σ, T, δ and the terms it
        is priced by, that no filter let more through than its budget, that no run stands twice, and that what was settled or
        unsealed is what was reserved.
        """
        lines = self.lines()
        witnessed = [] if self._witness is None else self._witness.findings(lines)
        return (*_chain_findings(lines), *_run_findings(lines), *_epsilon_findings(lines, epsilon_of), *witnessed)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

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
        for _ in range(TRIES):
            try:
                with self._connection() as connection, connection.begin():
                    self._known.catch_up(connection)
                    there = _standing(self._known, reservation, kind)
                    if there is not None:
                        return there
                    if check is not None:
                        check(self._known)
                    if self._witness is not None and self._known.last is None:
                        self._witness.begin()
                    line = _chained(self._known.last, kind=kind, outcome=outcome, steps_done=steps_done, **plain)
                    connection.execute(LINES.insert().values(**asdict(line)))
                if self._witness is not None:
                    self._witness.remember(line)
                return line
            except IntegrityError:
                continue  # another process wrote this line's number first: read again
        raise Unavailable(f"the ledger {_shown(self.url)} is written by too many processes at once; try again")

    def _check(self, reservation: Reservation, known: KnownLines, *, cap: float | None, compose: Compose | None) -> None:
        if passes_filter(known.reserved_under(reservation.priced_by), reservation):
            raise Refused(
                f"{reservation.trial_id} would pass the budget of its RDP filter ({reservation.priced_by}), which was fixed before the "
                "first trial; what is there stays as it is, further trials need a sweep of their own"
            )
        if cap is not None and compose is not None:
            self._room.check(reservation, known.of_cohort(reservation.cohort), cap=cap, compose=compose)

    def _connection(self) -> Connection:
        try:
            return self._engine.connect()
        except OperationalError as error:
            raise Unavailable(f"the ledger {_shown(self.url)} does not answer: {_reason(error)}") from None


def _place(line: LedgerLine) -> str:
    return f"line {line.number} ({line.sweep} {line.trial_id})"


def _chain_findings(lines: Iterable[LedgerLine]) -> Iterator[str]:
    previous, number = GENESIS, 0
    for line in lines:
        number += 1
        if line.number != number:
            yield f"{_place(line)}: expected line {number} here: lines are missing"
            number = line.number
        if line.previous != previous or line.hash != line.computed_hash():
            yield f"{_place(line)}: its hash does not follow from its content and the line before: something was changed"
        previous = line.hash


def _run_findings(lines: Iterable[LedgerLine]) -> Iterator[str]:
    """Runs that stand twice, and ends that are not of what was reserved."""
    seen: dict[tuple[tuple[str, str, int], Kind], LedgerLine] = {}
    for line in lines:
        reserved, before = seen.get((line.run, "reserve")), seen.get((line.run, line.kind))
        if before is not None:
            yield f"{_place(line)}: repeats line {before.number}"
        elif line.kind != "reserve" and reserved is None:
            yield f"{_place(line)}: {LINE_WORDS[line.kind]} without a reservation"
        elif reserved is not None and (line.spending, line.cohort, line.event) != (reserved.spending, reserved.cohort, reserved.event):
            yield f"{_place(line)}: {LINE_WORDS[line.kind]} something else than line {reserved.number} reserved"
        seen.setdefault((line.run, line.kind), line)


def _epsilon_findings(lines: Iterable[LedgerLine], epsilon_of: EpsilonOf) -> Iterator[str]:
    known: dict[tuple[Spending | Selected, float], float] = {}
    before: list[LedgerLine] = []
    for line in lines:
        if line.kind == "reserve":
            if passes_filter(before, line):
                yield f"{_place(line)}: passes the budget of its RDP filter"
            before.append(line)
        private = line.event == "gaussian"
        if private != (line.epsilon is not None) or private != (line.noise_multiplier > 0):
            yield f"{_place(line)}: {line.event} with epsilon {line.epsilon} and noise {line.noise_multiplier:g}: one of them was changed"
        elif line.epsilon is not None:
            run_of = (own_charge(line), line.delta)
            spent = known[run_of] if run_of in known else known.setdefault(run_of, epsilon_of(*run_of))
            if spent > line.epsilon * (1 + TOLERANCE):
                yield f"{_place(line)}: says epsilon {line.epsilon:.6g}, its steps and noise give {spent:.6g}"


def _standing(known: KnownLines, wanted: Reservation, kind: Kind) -> LedgerLine | None:
    """The line that is there already. A replay must be the very same release: spending, data, config and key."""
    own = known.of_run(wanted.run)
    if kind != "reserve" and "reserve" not in own:
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


def _open(url: str, *, must_exist: bool) -> Engine:
    try:
        parsed, path = make_url(url), _file_of(url)
        if path is not None:
            if must_exist and not path.is_file():
                raise Unavailable(f"the ledger {path} is not there; --ledger URL starts another on purpose")
            path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise BadInput(
            f"--ledger: {_shown(url)} is no database URL that can be used here ({error}); expected one such as sqlite:///ledger.sqlite"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _file_of(url: str) -> Path | None:
    """The file of an SQLite database."""
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:") else None


def _sqlite_connected(connection: Any, _record: Any) -> None:
    """Write-ahead log, a patient lock, and transactions that begin when we say (the driver's own begin too late)."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
