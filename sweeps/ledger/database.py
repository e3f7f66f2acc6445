"""The database behind a ledger: how it is opened, locked and waited for.

| | SQLite on a local disk | SQLite on a network file system | a server |
|---|---|---|---|
| log | write-ahead | rollback journal: a write-ahead log needs memory that hosts do not share | its own |
| readers | read-only, never in a writer's way | read-only, wait for a writer's moment | as it has it |

Several hosts at once: use a server (`--ledger postgresql+psycopg://...`). Locks of network file systems are not always kept.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError

from dpcore.disk import naming_full_disk
from dpcore.errors import BadInput, Corrupt, Unavailable

BUSY_MS = 5000
"""How long SQLite waits for a lock before we say that we wait."""
PATIENCE_S = 180.0
MOUNTS = Path("/proc/self/mounts")
NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "pvfs2", "orangefs", "glusterfs")
T = TypeVar("T")


def open_engine(url: str, *, must_exist: bool, read_only: bool) -> Engine:
    """An engine at `url`; an SQLite file is there already, made whole by `dpcore.durable.made_once`.

    Raises:
        BadInput: `url` is no SQLAlchemy URL. Unavailable: the file is not there though it must be.
    """
    try:
        parsed, path = make_url(url), file_of(url)
        if path is not None:
            if (must_exist or read_only) and not path.is_file():
                raise Unavailable(f"the ledger {path} is not there; bring it back, or name another on purpose with --ledger URL")
            if read_only:
                parsed = parsed.set(database=f"file:{_quoted(path)}", query={"mode": "ro", "uri": "true", **_untouchable(path)})
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


def _untouchable(path: Path) -> dict[str, str]:
    """What SQLite must be told to read a write-ahead file where it may not make its memory file beside it: nobody writes now."""
    log = path.with_name(f"{path.name}-wal")
    return {} if os.access(path.parent, os.W_OK) or log.exists() else {"immutable": "1"}


def file_of(url: str) -> Path | None:
    """The file of an SQLite database; None for any other, and for what is no URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:") else None


def is_blank(file: Path) -> bool:
    """Whether an SQLite file holds no table at all: what a process left that was killed while it made it."""
    try:
        with closing(sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])
    except sqlite3.Error:
        return False  # damaged, or not for this user: said where it is opened


def network_type(path: Path) -> str | None:
    """The type of the network file system that `path` lies or would lie on; None for a local one."""
    if not MOUNTS.is_file():
        return None
    there = path.resolve()
    best, found = -1, None
    for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, kind, *_ = line.split(" ")
        mounted = Path(place.encode().decode("unicode_escape"))
        if (there == mounted or mounted in there.parents) and len(mounted.parts) >= best:  # the last of equals is on top
            best, found = len(mounted.parts), kind
    is_network = found is not None and (found in NETWORK_TYPES or found == "fuse" or found.startswith("fuse."))
    return found if is_network else None


def patiently(ask: Callable[[], T], *, url: str, patience_s: float | None = None) -> T:
    """What `ask` gives; while another process holds the ledger's lock it is asked again, and a line on stderr says so.

    Raises:
        Unavailable: it is still locked after `patience_s`, or does not answer. Corrupt: its pages do not read. DiskFull: it cannot grow.
    """
    limit = PATIENCE_S if patience_s is None else patience_s
    began, was_said = time.monotonic(), False
    while True:
        try:
            with naming_full_disk(file_of(url) or Path(shown(url)), others=(SQLAlchemyError,)):
                return ask()
        except OperationalError as error:
            if not _is_locked(error):
                raise Unavailable(f"the ledger {shown(url)} does not answer: {reason(error)}") from None
            if time.monotonic() - began > limit:
                raise Unavailable(
                    f"the ledger {shown(url)} has been locked by another process for {limit:.0f} s; see which one holds it (fuser, lsof), "
                    "end it and go on with `dpsweep resume`: nothing was spent without its line"
                ) from None
            if not was_said:
                print(f"dpsweep: the ledger {shown(url)} is locked by another process; waiting up to {limit:.0f} s", file=sys.stderr)
            was_said = True
            time.sleep(min(1.0, limit / 10))
        except DatabaseError as error:
            if _is_damaged(error):
                raise Corrupt(damage(url, reason(error))) from None
            raise


def damage(url: str, found: str) -> str:
    """What is said of a database whose pages are not sound."""
    return (
        f"the ledger {shown(url)} is damaged ({found}); `dpsweep ledger NAME --restore` writes it anew from its witness and keeps the "
        "damaged file beside it"
    )


def _is_locked(error: OperationalError) -> bool:
    return "locked" in str(error.orig) or "busy" in str(error.orig)


def _is_damaged(error: SQLAlchemyError) -> bool:
    text = str(getattr(error, "orig", error))
    return "malformed" in text or "not a database" in text


def _sqlite_connected(connection: Any, mode: str) -> None:
    """A patient lock, and transactions that begin when we say (the driver's own begin too late)."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA synchronous=FULL")
    if mode:
        (now,) = connection.execute("PRAGMA journal_mode").fetchone()
        if now.upper() != mode:
            connection.execute(f"PRAGMA journal_mode={mode}")


def shown(url: str) -> str:
    """The URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def reason(error: SQLAlchemyError) -> str:
    """The database's own words, one line."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))
