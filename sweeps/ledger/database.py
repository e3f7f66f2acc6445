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
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dpcore.disk import naming_full_disk
from dpcore.errors import Corrupt, Unavailable
from sweeps.storage.urls import RESERVED

BUSY_MS = 5000
"""How long SQLite waits for a lock before we say that we wait."""
PATIENCE_S = 180.0
MOUNTS = Path("/proc/self/mounts")
NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "pvfs2", "orangefs", "glusterfs")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ErrorTypes:
    """The exceptions of a library of databases: of every kind, of one that does not answer now, of one that is not sound."""

    every: type[Exception]
    operational: type[Exception]
    database: type[Exception]


class NumberTaken(Exception):
    """Another process wrote a line of this number, or of this run, first."""


def require_file(path: Path) -> None:
    """A ledger that must be there.

    Raises:
        Unavailable: it is not.
    """
    if not path.is_file():
        raise Unavailable(f"the ledger {path} is not there; bring it back, or name another on purpose with --ledger URL")


def read_only_options(path: Path) -> dict[str, str]:
    """What SQLite is told in the URI of a file that is only read."""
    return {"mode": "ro", **_untouchable(path)}


def _untouchable(path: Path) -> dict[str, str]:
    """What SQLite must be told to read a write-ahead file where it may not make its memory file beside it: nobody writes now."""
    log = path.with_name(f"{path.name}-wal")
    return {} if os.access(path.parent, os.W_OK) or log.exists() else {"immutable": "1"}


def file_of(url: str) -> Path | None:
    """The file of an SQLite database; None for any other, and for what is no URL."""
    if (plain := _plain(url)) is not None:
        return plain
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:") else None


def _plain(url: str) -> Path | None:
    """The file of a URL that is no more than its path: what every storage of dpsweep has. No SQLAlchemy is needed to read it."""
    scheme, _, path = url.partition(":///")
    return Path(path) if scheme == "sqlite" and path and path != ":memory:" and not RESERVED.intersection(path) else None


def is_blank(file: Path) -> bool:
    """Whether an SQLite file holds no table at all: what a process left that was killed while it made it."""
    try:
        with closing(sqlite3.connect(f"file:{quoted(file)}?mode=ro", uri=True)) as connection:
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


def patiently(ask: Callable[[], T], *, url: str, errors: ErrorTypes, patience_s: float | None = None) -> T:
    """What `ask` gives; while another process holds the ledger's lock it is asked again, and a line on stderr says so.

    Raises:
        Unavailable: it is still locked after `patience_s`, or does not answer. Corrupt: its pages do not read. DiskFull: it cannot grow.
    """
    limit = PATIENCE_S if patience_s is None else patience_s
    began, was_said = time.monotonic(), False
    while True:
        try:
            with naming_full_disk(file_of(url) or Path(shown(url)), others=(errors.every,)):
                return ask()
        except errors.operational as error:
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
        except errors.database as error:
            if _is_damaged(error):
                raise Corrupt(damage(url, reason(error))) from None
            raise


def damage(url: str, found: str) -> str:
    """What is said of a database whose pages are not sound."""
    return (
        f"the ledger {shown(url)} is damaged ({found}); `dpsweep ledger NAME --restore` writes it anew from its witness and keeps the "
        "damaged file beside it"
    )


def _is_locked(error: Exception) -> bool:
    text = str(getattr(error, "orig", error))
    return "locked" in text or "busy" in text


def _is_damaged(error: Exception) -> bool:
    text = str(getattr(error, "orig", error))
    return "malformed" in text or "not a database" in text


def shown(url: str) -> str:
    """The URL without its password."""
    if _plain(url) is not None:
        return url
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def reason(error: Exception) -> str:
    """The database's own words, one line."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def quoted(path: Path) -> str:
    """The path as it stands in a URI of SQLite."""
    from urllib.parse import quote

    return quote(str(path.absolute()))
