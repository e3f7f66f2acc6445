"""Stores events on disk before they are sent, so that tracking survives an outage and a crash.

An event is one JSON line. It is appended first and sent later, in order. A separate file holds the offset behind the last answered
event. After a crash the next process continues from there. So an event may be delivered twice, but is never lost. The receiver must
be idempotent (`sweeps/tracking/mlflow_store.py` is).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dpcore.durable import OWNER_ONLY, append_lines, cut_half_line, replace_file, summed, without_sum
from dpcore.errors import Corrupt

TrackingEvent = dict[str, Any]
OFFSET_FILE, SPOOL_FILE = "tracking.offset", "tracking.spool.jsonl"


class Spool:
    """An append-only file of events, and the offset up to which they are answered.

    Only one process uses it: the driver, which holds the sweep's lock. In it one thread appends and another reads.

    Guarantees: an appended event is on disk before `append` returns: it survives the death of the process and of the
    machine. A line that a crash or a full disk left half-written is cut off: its event was never announced. A line that was
    damaged later is said and skipped: a resume tells every trial again.

    Raises:
        Corrupt: the saved offset is beyond the end of the spool.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / SPOOL_FILE
        self._offset_path = folder / OFFSET_FILE
        self._end = cut_half_line(self.path)
        self._offset = self._load_offset()
        self.path.touch(mode=OWNER_ONLY)

    def _load_offset(self) -> int:
        if not self._offset_path.exists():
            return 0
        text = self._offset_path.read_text(encoding="ascii", errors="replace")
        if not text.strip().isdecimal() or int(text) > self._end:
            raise Corrupt(
                f"{self._offset_path}: offset {text.strip()!r} does not fit {self.path} of {self._end} bytes; "
                f"remove both to begin again: steps that MLflow already has are not sent twice"
            )
        return int(text)

    def append(self, event: TrackingEvent) -> None:
        """Appends `event`. NaN and infinity are refused, because JSON has neither."""
        line = json.dumps(summed(event), separators=(",", ":"), allow_nan=False)
        append_lines(self.path, [line], mode=OWNER_ONLY)
        self._end += len(line.encode()) + 1

    def next(self) -> tuple[TrackingEvent, int] | None:
        """The oldest unanswered event and the offset behind it, or None if all are answered."""
        while self._offset < self._end:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                line = file.readline()
            event = _event_of(line)
            if event is not None:
                return event, self._offset + len(line)
            print(
                f"dpsweep: {self.path}: the line at byte {self._offset} is damaged and is not sent to MLflow; the next `dpsweep resume` "
                "tells every trial again",
                file=sys.stderr,
                flush=True,
            )
            self.acknowledge(self._offset + len(line))
        return None

    def acknowledge(self, offset: int) -> None:
        """Records that everything before `offset` is answered."""
        replace_file(self._offset_path, f"{offset}\n".encode())
        self._offset = offset

    def unanswered(self) -> int:
        """How many events are waiting."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            return sum(1 for _ in file)


def waiting_bytes(folder: Path) -> int:
    """How many bytes of events no MLflow has answered yet, for a look beside a running driver. A damaged offset: all of them."""
    spool, offset = folder / SPOOL_FILE, folder / OFFSET_FILE
    size = spool.stat().st_size if spool.is_file() else 0
    text = offset.read_text(encoding="ascii", errors="replace").strip() if offset.is_file() else "0"
    return size - int(text) if text.isdecimal() else size


def _event_of(line: bytes) -> TrackingEvent | None:
    """The event in a line; None where the line is damaged."""
    try:
        return without_sum(json.loads(line), where="a line of the spool")
    except (ValueError, AttributeError, Corrupt):
        return None
