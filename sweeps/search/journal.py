"""Writes Optuna's journal file: many entries in one write, and no times for protected data.

The format is Optuna's, so optuna-dashboard and `JournalFileBackend` can read the file, also while the driver runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from dpcore.durable import OWNER_ONLY, append_lines, cut_half_line
from dpcore.errors import Corrupt

NO_TIME = "1970-01-01T00:00:00+00:00"
TIMES = ("datetime_start", "datetime_complete")


class SweepJournal(BaseJournalBackend):
    """The journal of one driver, or of a reader beside it, who writes nothing. With `timed` False every trial begins and ends at the
    same time, because a duration reveals how many records a trial drew. The owner alone may read it, as with spec.json."""

    def __init__(self, path: Path, *, timed: bool = True) -> None:
        self._path = path
        self._timed = timed
        self._lock = JournalFileSymlinkLock(str(path))
        if not path.exists():
            append_lines(path, [], mode=OWNER_ONLY)
        self._number = 0  # number of the first unread entry, and its offset
        self._offset = 0
        self._together: list[str] | None = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Collects entries and writes them to disk at the end. One ask has about ten entries, and each would need an fsync.

        A kill before the end loses all of them, so nothing may act on them inside the block. The block holds the file's lock.
        """
        if self._together is not None:
            yield
            return
        with self._locked():
            for _ in self._read_file(self._number):  # entries of other processes come before the entries that are appended here
                pass
            self._together = []
            try:
                yield
            finally:
                entries, self._together = self._together, None
                if entries:
                    self._write(entries)
                    self._number += len(entries)
                    self._offset = self._path.stat().st_size

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The entries from a number on.

        Raises:
            Corrupt: a complete line is not JSON.
        """
        if self._together is None or log_number_from < self._number:
            yield from self._read_file(log_number_from)
        for entry in (self._together or [])[max(0, log_number_from - self._number) :]:
            yield json.loads(entry)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries. Removes their times if the journal is not timed."""
        entries = [json.dumps(log if self._timed else _untimed(log), separators=(",", ":")) for log in logs]
        if self._together is not None:
            self._together += entries
            return
        with self._locked():
            self._write(entries)

    def _read_file(self, start: int) -> Iterator[dict[str, Any]]:
        number, offset = (self._number, self._offset) if start >= self._number else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # another process is still writing it
                    return
                number, offset = number + 1, offset + len(line)
                if number > self._number:
                    self._number, self._offset = number, offset
                if number > start:
                    yield self._parsed(line, number)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise Corrupt(f"{self._path} line {number} cannot be read: {error}; put a copy of the file back") from None
        return entry

    def _write(self, entries: list[str]) -> None:
        append_lines(self._path, entries)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


def clear_journal(path: Path) -> None:
    """Makes a journal writable after a kill: removes a stale lock and a half-written last line.

    Only the holder of the sweep's lock may call this.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)
    cut_half_line(path)


def _untimed(log: dict[str, Any]) -> dict[str, Any]:
    return {**log, **{name: NO_TIME for name in TIMES if log.get(name) is not None}}
