"""Optuna's journal file, and one without clocks for protected data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

NO_TIME = "1970-01-01T00:00:00+00:00"
TIMES = ("datetime_start", "datetime_complete")


class UntimedJournal(BaseJournalBackend):
    """A journal in which every trial began and ended at one moment: how long it took tells how many records it drew."""

    def __init__(self, path: str) -> None:
        self._file = JournalFileBackend(path)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The entries from a number on."""
        return self._file.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds entries, their times taken out."""
        self._file.append_logs([{**log, **{name: NO_TIME for name in TIMES if log.get(name) is not None}} for log in logs])
