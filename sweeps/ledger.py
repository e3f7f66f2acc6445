"""What was promised to a private dataset, written before it is spent.

One ledger per storage, across sweeps and commands; its lines are keyed by the private dataset. A trial's whole planned
spending is reserved before the trial starts. A crash leaves the reservation standing: never under-reported.

Guarantees: a reservation is idempotent by (sweep, trial, attempt). Lines are never changed: an end is a line of its own.
Each line's hash covers the line and the hash before it, so that a changed, dropped or swapped line shows (`verify`).
Not covered: whoever can rewrite the whole file can also rewrite the whole chain; keep its last hash elsewhere for that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError

from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.charges import charges_of, own_charge, passes_filter

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Charge, Selected

EpsilonOf = Callable[["Spending | Selected", float], float]
"""ε of one line at δ: `dpcore.privacy.composition.epsilon_of_charge`."""
Compose = Callable[[Iterable[tuple["Charge", int]], float], float]
"""ε at δ of everything together, each charge with how often it was made: `dpcore.privacy.composition.price`."""

GENESIS = "0" * 64
TOLERANCE = 1e-6
"""Relative. Accounting is deterministic; libraries' last digits are not."""
TRIES = 20
LATER_FIELDS = {"priced_by": ""}
"""Fields that the first ledgers did not have, with what their lines mean. A line that holds just that is hashed without it."""


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What a trial is going to spend: `steps` Poisson-subsampled Gaussians at `sampling_prob` and `noise_multiplier`.

    Attributes:
        sweep: the sweep or command; trial_id, attempt: which run of it.
        dataset, dataset_digest: the private dataset that is charged.
        epsilon, delta: the promise that these events add up to.
        fingerprint: of the config; key_id: of the key that its randomness comes from.
        priced_by: the terms (`sweeps.charges`) where the run is not priced by itself.
    """

    sweep: str
    trial_id: str
    attempt: int = 0
    dataset: str
    dataset_digest: str
    sampling_prob: float
    noise_multiplier: float
    steps: int
    epsilon: float
    delta: float
    fingerprint: str = ""
    key_id: str = ""
    priced_by: str = ""

    @property
    def spending(self) -> Spending:
        """What an accountant bounds."""
        from dpcore.privacy.accounting import Spending

        return Spending(self.sampling_prob, self.noise_multiplier, self.steps)


@dataclass(frozen=True, kw_only=True)
class LedgerLine(Reservation):
    """A line as stored. A `settle` line repeats its reservation and says how it ended; `steps_done` is bookkeeping,
    no refund: an adaptively stopped trial's claim stays its reservation."""

    number: int
    kind: Literal["reserve", "settle"]
    outcome: str = ""
    steps_done: int = 0
    at: str = ""
    previous: str = GENESIS
    hash: str = ""

    def computed_hash(self) -> str:
        """sha256 over every other field, the previous hash included."""
        content = {n: value for n, value in asdict(self).items() if n != "hash" and not (n in LATER_FIELDS and LATER_FIELDS[n] == value)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


_KINDS: dict[str, Any] = {"str": String(200), "int": Integer, "float": Float(53)}
_LINES = Table(
    "lines",
    MetaData(),
    *(
        Column(f.name, _KINDS.get(str(f.type), String(200)), nullable=False, primary_key=f.name == "number", autoincrement=False)
        for f in fields(LedgerLine)
    ),
    UniqueConstraint("sweep", "trial_id", "attempt", "kind"),
    UniqueConstraint("previous"),
)


class Ledger:
    """The ledger at a SQLAlchemy URL; made on first use. Safe for several processes at once."""

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        """Opens or makes the ledger.

        Raises:
            BadInput: `url` is no SQLAlchemy URL.
            Unavailable: it cannot be reached, or is not there though `must_exist`.
        """
        self.url = url
        try:
            self._engine = _open(url, must_exist=must_exist)
            _LINES.metadata.create_all(self._engine)
            _add_later_columns(self._engine)
        except SQLAlchemyError as error:
            raise Unavailable(f"the ledger {_shown(url)} cannot be opened: {_reason(error)}; check --ledger or --storage") from None

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
        return self._append(reservation, kind="reserve", check=lambda lines: _check_cap(reservation, lines, cap=cap, compose=compose))

    def settle(self, reservation: Reservation, *, steps_done: int, outcome: str) -> LedgerLine:
        """Writes down how a reserved run ended; once, later calls change nothing.

        Raises:
            Refused: there is no such reservation.
        """
        return self._append(reservation, kind="settle", outcome=outcome, steps_done=steps_done)

    def lines(self, *, dataset_digest: str | None = None, sweep: str | None = None) -> tuple[LedgerLine, ...]:
        """The lines in order, of one dataset or sweep where given."""
        with self._connection() as connection:
            found = _read(connection)
        return tuple(line for line in found if dataset_digest in (None, line.dataset_digest) and sweep in (None, line.sweep))

    def open_reservations(self, sweep: str) -> tuple[LedgerLine, ...]:
        """The reservations of a sweep that have not been settled."""
        lines = self.lines(sweep=sweep)
        settled = {(line.trial_id, line.attempt) for line in lines if line.kind == "settle"}
        return tuple(line for line in lines if line.kind == "reserve" and (line.trial_id, line.attempt) not in settled)

    def epsilon_total(self, delta: float, compose: Compose, *, dataset_digest: str | None = None, sweep: str | None = None) -> float:
        """ε at `delta` of all reservations together, 0 without any. Settled or not: what was reserved counts in full."""
        return total(self.lines(dataset_digest=dataset_digest, sweep=sweep), delta, compose)

    def verify(self, epsilon_of: EpsilonOf) -> tuple[str, ...]:
        """What does not add up, one text per finding that names its line; empty when all is well.

        Checks the chain of hashes, the numbering, that each ε follows from its line's q, σ, T, δ and the terms it is priced
        by, that no filter let more through than its budget, and that each settled run was reserved.
        """
        findings, previous, number = [], GENESIS, 0
        reserved: set[tuple[str, str, int]] = set()
        known: dict[tuple[Spending | Selected, float], float] = {}
        before: list[LedgerLine] = []
        for line in self.lines():
            number += 1
            place, run = f"line {line.number} ({line.sweep} {line.trial_id})", (line.sweep, line.trial_id, line.attempt)
            if line.number != number:
                findings.append(f"{place}: expected line {number} here: lines are missing")
                number = line.number
            if line.previous != previous or line.hash != line.computed_hash():
                findings.append(f"{place}: its hash does not follow from its content and the line before: something was changed")
            previous = line.hash
            if line.kind == "settle" and run not in reserved:
                findings.append(f"{place}: settled without a reservation")
            reserved.add(run)
            if line.kind == "reserve":
                if passes_filter(before, line):
                    findings.append(f"{place}: passes the budget of its RDP filter")
                before.append(line)
            run_of = (own_charge(line), line.delta)
            spent = known[run_of] if run_of in known else known.setdefault(run_of, epsilon_of(*run_of))
            if spent > line.epsilon * (1 + TOLERANCE):
                findings.append(f"{place}: says epsilon {line.epsilon:.6g}, its steps and noise give {spent:.6g}")
        return tuple(findings)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

    def _append(
        self,
        reservation: Reservation,
        *,
        kind: Literal["reserve", "settle"],
        outcome: str = "",
        steps_done: int = 0,
        check: Callable[[tuple[LedgerLine, ...]], None] | None = None,
    ) -> LedgerLine:
        plain = {f.name: getattr(reservation, f.name) for f in fields(Reservation)}
        for _ in range(TRIES):
            try:
                with self._connection() as connection, connection.begin():
                    lines = _read(connection)
                    there = _standing(lines, reservation, kind)
                    if there is not None:
                        return there
                    if check is not None:
                        check(lines)
                    line = _chained(lines, kind=kind, outcome=outcome, steps_done=steps_done, **plain)
                    connection.execute(_LINES.insert().values(**asdict(line)))
                    return line
            except IntegrityError:
                continue  # another process wrote this line's number first: read again
        raise Unavailable(f"the ledger {_shown(self.url)} is written by too many processes at once; try again")

    def _connection(self) -> Connection:
        try:
            return self._engine.connect()
        except OperationalError as error:
            raise Unavailable(f"the ledger {_shown(self.url)} does not answer: {_reason(error)}") from None


def total(lines: Iterable[LedgerLine | Reservation], delta: float, compose: Compose) -> float:
    """ε at `delta` of reservations together."""
    charges = charges_of(line for line in lines if not isinstance(line, LedgerLine) or line.kind == "reserve")
    return compose(charges, delta) if charges else 0.0


def _check_cap(reservation: Reservation, lines: tuple[LedgerLine, ...], *, cap: float | None, compose: Compose | None) -> None:
    own = [line for line in lines if line.dataset_digest == reservation.dataset_digest]
    if passes_filter([line for line in lines if line.kind == "reserve"], reservation):
        raise Refused(
            f"{reservation.trial_id} would pass the budget of its RDP filter ({reservation.priced_by}), which was fixed before the first "
            "trial; what is there stays as it is, further trials need a sweep of their own"
        )
    if cap is None or compose is None:
        return
    # A larger δ gives a smaller ε: at its own, a late run could pass a cap that was set at the δ of the others.
    delta = min(reservation.delta, *(line.delta for line in own), 1.0)
    after = total([*own, reservation], delta, compose)
    if after > cap:
        raise Refused(
            f"epsilon_total {cap:g} on {reservation.dataset} would be passed: {reservation.trial_id} would bring it to {after:.4g} "
            f"(now {total(own, delta, compose):.4g}, at delta {delta:g}); raise sweep.epsilon_total or run fewer trials"
        )


def _standing(lines: tuple[LedgerLine, ...], wanted: Reservation, kind: str) -> LedgerLine | None:
    """The line that is there already. A replay must be the very same release: spending, data, config and key."""
    run = (wanted.sweep, wanted.trial_id, wanted.attempt)
    own: dict[str, LedgerLine] = {line.kind: line for line in lines if (line.sweep, line.trial_id, line.attempt) == run}
    if kind == "settle" and "reserve" not in own:
        raise Refused(f"{wanted.sweep} {wanted.trial_id} attempt {wanted.attempt} was never reserved: reserve before anything is spent")
    there = own.get("reserve")
    if there is not None:
        # A settlement may come after the key was lost; a reservation under another key is another release.
        asked = ("spending", "priced_by", "dataset_digest", *(("fingerprint", "key_id") if kind == "reserve" else ()))
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


def _chained(lines: tuple[LedgerLine, ...], **values: Any) -> LedgerLine:
    last = lines[-1] if lines else None
    at = datetime.now(UTC).isoformat(timespec="seconds")
    bare = LedgerLine(number=1 if last is None else last.number + 1, at=at, previous=GENESIS if last is None else last.hash, **values)
    return LedgerLine(**{**asdict(bare), "hash": bare.computed_hash()})


def _read(connection: Connection) -> tuple[LedgerLine, ...]:
    rows = connection.execute(select(_LINES).order_by(_LINES.c.number)).mappings()
    return tuple(LedgerLine(**row) for row in rows)


def _open(url: str, *, must_exist: bool) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            path = Path(str(parsed.database))
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


def _add_later_columns(engine: Engine) -> None:
    """Brings a ledger of an earlier version up to this one; its lines keep their hashes."""
    with engine.begin() as connection:
        there = {column["name"] for column in inspect(connection).get_columns("lines")}
        for name in LATER_FIELDS.keys() - there:
            kind = _LINES.c[name].type.compile(engine.dialect)
            connection.execute(text(f"ALTER TABLE lines ADD COLUMN {name} {kind} NOT NULL DEFAULT '{LATER_FIELDS[name]}'"))


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
