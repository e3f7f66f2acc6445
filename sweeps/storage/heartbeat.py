"""What a running driver says of itself, and what others ask of it: small files in the sweep's state.

| file | who writes it | what it says |
|---|---|---|
| heartbeat.json | the driver, every few seconds | that it lives, where, and when each running trial was last heard of |
| requests/NAME | `dpsweep cancel`, `pause` | a trial to end, the whole sweep, or a pause; the driver removes it when it has read it |
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from dpcore.durable import replace_file

HEARTBEAT = "heartbeat.json"
REQUESTS = "requests"
WHOLE_SWEEP = "sweep"
"""The request to end the sweep. No trial has this name: those of a search begin with their ε, references with their role."""
PAUSE = "pause"
"""The request to let the running trials end and to start no other."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A driver's last sign of life.

    Attributes:
        host, pid: where the driver runs.
        at: when it was written, in seconds since 1970.
        trials: of each running trial that may be shown, when it was last heard of, in seconds since 1970. None on protected data, where
            nobody times a trial.
    """

    host: str
    pid: int
    at: float
    trials: dict[str, float | None]

    def write(self, state_dir: Path) -> None:
        """Replaces the last one."""
        replace_file(state_dir / HEARTBEAT, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, state_dir: Path) -> Self | None:
        """The last one; None if no driver wrote one, or it was cut by a full disk."""
        try:
            return cls(**json.loads((state_dir / HEARTBEAT).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def silent_s(self) -> float:
        """Seconds since the driver gave a sign of life."""
        return max(0.0, time.time() - self.at)

    @property
    def is_here(self) -> bool:
        """Whether the driver runs on this machine."""
        return self.host == socket.gethostname()


def request(state_dir: Path, name: str) -> Path:
    """Asks the driver to end a trial, or `WHOLE_SWEEP`. Returns the file, which is there until the driver has read it."""
    folder = state_dir / REQUESTS
    folder.mkdir(exist_ok=True)
    (folder / name).touch()
    return folder / name


def take_requests(state_dir: Path) -> tuple[str, ...]:
    """What others have asked since the last call."""
    try:
        found = sorted((state_dir / REQUESTS).iterdir())
    except FileNotFoundError:
        return ()
    for path in found:
        path.unlink()
    return tuple(path.name for path in found)


def clear(state_dir: Path) -> None:
    """Removes both, as a driver begins and ends: what was asked of an earlier one is void."""
    (state_dir / HEARTBEAT).unlink(missing_ok=True)
    shutil.rmtree(state_dir / REQUESTS, ignore_errors=True)
