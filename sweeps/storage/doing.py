"""What running trials are at before their first report: `doing/TRIAL.json` in the sweep's state, from the workers of this machine.

The driver makes the folder where trials may be timed, and removes it at its end. A worker on another machine finds no such folder, and
writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dpcore.durable import replace_file

FOLDER = "doing"
EVERY_S = 1.0
"""Between two writes."""


@dataclass(frozen=True, kw_only=True)
class Doing:
    """One part of a trial: of `total` things called `what`, `done` are done, the last `done - first` of them in `seconds`."""

    what: str
    first: int
    done: int
    total: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        counted = self.done - self.first
        return self.seconds * (self.total - self.done) / counted if counted > 0 else None


class DoingFile:
    """Writes what a trial is at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now: Doing | None = None
        self._began = self._next = 0.0

    def hear(self, what: str, done: int, total: int) -> None:
        """A `dpcore.train.hearing.PartListener`. What came before the first call of a part is no measure of its speed.

        A file that cannot be written, on a full disk or in a folder that its driver has just removed, ends no trial: nothing rests on it.
        """
        now = time.monotonic()
        if self._now is None or what != self._now.what or done < self._now.done:
            self._began, self._now = now, Doing(what=what, first=done, done=done, total=total, seconds=0.0)
        self._now = Doing(what=what, first=self._now.first, done=done, total=total, seconds=now - self._began)
        if now >= self._next and self._path.parent.is_dir():
            self._next = now + EVERY_S
            with contextlib.suppress(OSError):
                replace_file(self._path, json.dumps(asdict(self._now)).encode())


def file_of(state_dir: Path, trial_id: str) -> Path:
    """Where a trial says what it is at."""
    return state_dir / FOLDER / f"{trial_id}.json"


def doing_of(state_dir: Path, trial_id: str) -> Doing | None:
    """What a trial is at; None where it said nothing, or its word was cut."""
    try:
        return Doing(**json.loads(file_of(state_dir, trial_id).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def listen(state_dir: Path) -> None:
    """Makes the folder, empty."""
    stop_listening(state_dir)
    (state_dir / FOLDER).mkdir(parents=True)


def stop_listening(state_dir: Path) -> None:
    """Removes the folder, where there is one."""
    shutil.rmtree(state_dir / FOLDER, ignore_errors=True)
