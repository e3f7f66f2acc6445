"""The table of a ledger in an SQLite file, for a look: read-only, and without SQLAlchemy, whose import is a third of `dpsweep status`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from dpcore.errors import Unavailable
from sweeps.ledger import database
from sweeps.ledger.database import ErrorTypes, reason, require_file, shown
from sweeps.ledger.lines import COLUMNS, TABLE, LedgerLine, check_columns, refuse_no_table

T = TypeVar("T")
ERRORS = ErrorTypes(every=sqlite3.Error, operational=sqlite3.OperationalError, database=sqlite3.DatabaseError)


class SqliteReader:
    """The lines within one transaction (a `Reader`)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hash_of(self, number: int) -> str | None:
        """See `Reader`."""
        found = self._connection.execute(f"SELECT hash FROM {TABLE} WHERE number = ?", (number,)).fetchone()
        return None if found is None else str(found[0])

    def lines(self, *, after: int = 0) -> tuple[LedgerLine, ...]:
        """See `Reader`."""
        names = [name for name in COLUMNS if name in _columns(self._connection)]
        rows = self._connection.execute(f"SELECT {', '.join(names)} FROM {TABLE} WHERE number > ? ORDER BY number", (after,))
        return tuple(LedgerLine(**dict(zip(names, row, strict=True))) for row in rows)


class SqliteLook:
    """A ledger's table in an SQLite file, neither changed nor locked against its writers.

    Raises:
        Unavailable: the file is not there, or cannot be opened. Refused: it holds no ledger, or one of another version.
        Corrupt: its pages do not read.
    """

    def __init__(self, url: str, file: Path) -> None:
        require_file(file)
        self._url, self._file = url, file
        try:
            self.patiently(self._check)
        except sqlite3.Error as error:
            raise Unavailable(f"the ledger {shown(url)} cannot be opened: {reason(error)}; check --ledger or --storage") from None

    def patiently(self, ask: Callable[[], T]) -> T:
        """See `database.patiently`."""
        return database.patiently(ask, url=self._url, errors=ERRORS)

    @contextmanager
    def looking(self) -> Iterator[SqliteReader]:
        """The lines as they are at one moment."""
        with self._connected() as connection:
            connection.execute("BEGIN")
            yield SqliteReader(connection)

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with its pages."""
        try:
            with self._connected() as connection:
                found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            found = [reason(error)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Nothing is held between looks."""

    def _check(self) -> None:
        with self._connected() as connection:
            there = _columns(connection)
        if not there:
            refuse_no_table(shown(self._url))
        check_columns(there, shown=shown(self._url))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        options = "&".join(f"{name}={value}" for name, value in database.read_only_options(self._file).items())
        with closing(sqlite3.connect(f"file:{database.quoted(self._file)}?{options}", uri=True, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA busy_timeout={database.BUSY_MS}")
            yield connection


def _columns(connection: sqlite3.Connection) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({TABLE})")]
