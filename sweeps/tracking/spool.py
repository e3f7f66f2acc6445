"""Stores events on disk before they are sent, so that tracking survives an outage and a crash.

An event is one JSON line. It is appended first and sent later, in order. A separate file holds the offset behind the last answered
event. After a crash the next process continues from there. So an event may be delivered twice, but is never lost. The receiver must
be idempotent (`sweeps/tracking/mlflow_store.py` is).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dpcore.durable import append_lines, cut_half_line, replace_file
from dpcore.errors import Corrupt

TrackingEvent = dict[str, Any]


class Spool:
    """An append-only file of events, and the offset up to which they are answered.

    Only one process uses it: the driver, which holds the sweep's lock. In it one thread appends and another reads.

    Guarantees: an appended event is on disk before `append` returns: it survives the death of the process and of the
    machine. A line that a crash or a full disk left half-written is cut off: its event was never announced.

    Raises:
        Corrupt: the saved offset is beyond the end of the spool.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "tracking.spool.jsonl"
        self._offset_path = folder / "tracking.offset"
        self._end = cut_half_line(self.path)
        self._offset = self._load_offset()
        self.path.touch()

    def _load_offset(self) -> int:
        if not self._offset_path.exists():
            return 0
        text = self._offset_path.read_text()
        if not text.strip().isdecimal() or int(text) > self._end:
            raise Corrupt(
                f"{self._offset_path}: offset {text.strip()!r} does not fit {self.path} of {self._end} bytes; "
                f"remove both to begin again: steps that MLflow already has are not sent twice"
            )
        return int(text)

    def append(self, event: TrackingEvent) -> None:
        """Appends `event`. NaN and infinity are refused, because JSON has neither."""
        line = json.dumps(event, separators=(",", ":"), allow_nan=False)
        append_lines(self.path, [line])
        self._end += len(line.encode()) + 1

    def next(self) -> tuple[TrackingEvent, int] | None:
        """The oldest unanswered event and the offset behind it, or None if all are answered."""
        if self._offset >= self._end:
            return None
        with self.path.open("rb") as file:
            file.seek(self._offset)
            line = file.readline()
        return json.loads(line), self._offset + len(line)

    def acknowledge(self, offset: int) -> None:
        """Records that everything before `offset` is answered."""
        replace_file(self._offset_path, f"{offset}\n".encode())
        self._offset = offset

    def unanswered(self) -> int:
        """How many events are waiting."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            return sum(1 for _ in file)
