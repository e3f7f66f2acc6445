"""The table of a ledger in a database, through SQLAlchemy: for whoever writes, and for every server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from dpcore.disk import naming_full_disk
from dpcore.errors import BadInput, Unavailable
from sweeps.ledger import database
from sweeps.ledger.database import ErrorTypes, NumberTaken, file_of, network_type, reason, require_file, shown
from sweeps.ledger.lines import TABLE, LedgerLine, check_columns, refuse_no_table
from sweeps.storage.urls import sqlite_url

T = TypeVar("T")
ERRORS = ErrorTypes(every=SQLAlchemyError, operational=OperationalError, database=DatabaseError)
_TYPES: dict[str, Any] = {"int": Integer, "float": Float(53)}


def _column(field: Field[Any]) -> Column[Any]:
    kind, _, optional = str(field.type).partition(" | ")
    default = None if field.default is MISSING else str(field.default)
    is_key = field.name == "number"
    kind_of_column = Text() if field.name == "views" else _TYPES.get(kind, String(200))
    return Column(field.name, kind_of_column, nullable=bool(optional), primary_key=is_key, autoincrement=False, server_default=default)


LINES = Table(
    TABLE,
    MetaData(),
    *(_column(field) for field in fields(LedgerLine)),
    UniqueConstraint("sweep", "trial_id", "attempt", "kind"),
    UniqueConstraint("previous"),
)


class SqlTable:
    """The lines within one transaction (a `Reader` that also adds)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def hash_of(self, number: int) -> str | None:
        """See `Reader`."""
        found: str | None = self._connection.execute(select(LINES.c.hash).where(LINES.c.number == number)).scalar()
        return found

    def lines(self, *, after: int = 0) -> tuple[LedgerLine, ...]:
        """See `Reader`."""
        there = {column["name"] for column in inspect(self._connection).get_columns(TABLE)} if after == 0 else None
        columns = [column for column in LINES.c if there is None or column.name in there]
        rows = self._connection.execute(select(*columns).where(LINES.c.number > after).order_by(LINES.c.number)).mappings()
        return tuple(LedgerLine(**row) for row in rows)

    def add(self, line: LedgerLine) -> None:
        """One line more."""
        self._connection.execute(LINES.insert().values(**asdict(line)))


class SqlStore:
    """A ledger's table at a SQLAlchemy URL.

    Args:
        url: an SQLite file is there already, made whole by `build`.
        must_exist: do not make one. read_only: change nothing.

    Raises:
        BadInput: `url` is no SQLAlchemy URL. Unavailable: it cannot be reached, or is not there though it must be.
        Refused: it was written by a version whose lines cannot be read here. Corrupt: its pages do not read.
    """

    def __init__(self, url: str, *, must_exist: bool = False, read_only: bool = False) -> None:
        self._url = url
        self._engine = open_engine(url, must_exist=must_exist, read_only=read_only)
        try:
            self.patiently(lambda: prepare_table(self._engine, shown=shown(url), read_only=read_only))
        except SQLAlchemyError as error:
            raise Unavailable(f"the ledger {shown(url)} cannot be opened: {reason(error)}; check --ledger or --storage") from None

    def patiently(self, ask: Callable[[], T]) -> T:
        """See `database.patiently`."""
        return database.patiently(ask, url=self._url, errors=ERRORS)

    @contextmanager
    def looking(self) -> Iterator[SqlTable]:
        """The lines as they are."""
        with self._engine.connect() as connection:
            yield SqlTable(connection)

    @contextmanager
    def writing(self) -> Iterator[SqlTable]:
        """The lines, and nobody else writes meanwhile (SQLite), or whoever comes second is told.

        Raises:
            NumberTaken: another process wrote a line of the same number or run first.
        """
        try:
            with self._engine.connect() as connection, connection.begin():
                yield SqlTable(connection)
        except IntegrityError as error:
            raise NumberTaken from error

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with its pages."""
        if self._engine.dialect.name != "sqlite":
            return []
        try:
            with self._engine.connect() as connection:
                found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        except DatabaseError as error:
            found = [reason(error)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()


def build(place: Path, target: Path) -> None:
    """A ledger without lines, at a place of its own: nobody ever meets one without its table."""
    engine = create_engine(sqlite_url(place))
    try:
        with naming_full_disk(target, others=(SQLAlchemyError,)):
            prepare_table(engine, shown=str(target), read_only=False)
    except SQLAlchemyError as error:
        raise Unavailable(f"the ledger {target} cannot be made: {reason(error)}; check --ledger or --storage") from error
    finally:
        engine.dispose()


def open_engine(url: str, *, must_exist: bool, read_only: bool) -> Engine:
    """An engine at `url`; an SQLite file is there already.

    Raises:
        BadInput: `url` is no SQLAlchemy URL. Unavailable: the file is not there though it must be.
    """
    try:
        parsed, path = make_url(url), file_of(url)
        if path is not None:
            if must_exist or read_only:
                require_file(path)
            if read_only:
                parsed = parsed.set(database=f"file:{database.quoted(path)}", query={"uri": "true", **database.read_only_options(path)})
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise BadInput(
            f"--ledger: {shown(url)} is no database URL that can be used here ({error}); expected one such as sqlite:///ledger.sqlite"
        ) from None
    if engine.dialect.name == "sqlite":
        mode = "" if read_only or path is None else "WAL" if network_type(path) is None else "DELETE"
        event.listen(engine, "connect", lambda connection, _: _sqlite_connected(connection, mode))
        begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _sqlite_connected(connection: Any, mode: str) -> None:
    """A patient lock, and transactions that begin when we say (the driver's own begin too late)."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={database.BUSY_MS}")
    connection.execute("PRAGMA synchronous=FULL")
    if mode:
        (now,) = connection.execute("PRAGMA journal_mode").fetchone()
        if now.upper() != mode:
            connection.execute(f"PRAGMA journal_mode={mode}")


def prepare_table(engine: Engine, *, shown: str, read_only: bool) -> None:
    """Makes the table, or brings that of an earlier version up to date by columns at their default; a reader changes nothing.

    Raises:
        Refused: the table is another version's (`check_columns`), or a reader finds none.
    """
    if not inspect(engine).has_table(TABLE):
        if read_only:
            refuse_no_table(shown)
        LINES.metadata.create_all(engine)
        return
    there = {column["name"] for column in inspect(engine).get_columns(TABLE)}
    check_columns(there, shown=shown)
    if read_only:
        return
    with engine.begin() as connection:
        for column in (one for one in LINES.c if one.name not in there):
            connection.exec_driver_sql(f"ALTER TABLE {TABLE} ADD COLUMN {CreateColumn(column).compile(dialect=engine.dialect)}")
