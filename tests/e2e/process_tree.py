"""The processes below one that a test has started, read from /proc: what may be killed, and nothing else."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of Linux. Its start tells it from a later one of the same number."""

    pid: int
    parent: int
    started: str

    @property
    def command(self) -> str:
        """Its command line, which Ray sets to what an actor is doing."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    @property
    def lives(self) -> bool:
        """Whether it is there and no zombie."""
        now = _read(self.pid)
        return now is not None and now.started == self.started

    def kill(self) -> None:
        """SIGKILL, unless it is gone."""
        if self.lives:
            os.kill(self.pid, signal.SIGKILL)


def descendants(pid: int) -> list[Process]:
    """All processes below `pid`, however deep."""
    every = [found for path in Path("/proc").glob("[0-9]*") if (found := _read(int(path.name))) is not None]
    below, newest = [], {pid}
    while newest:
        children = [process for process in every if process.parent in newest]
        below += children
        newest = {process.pid for process in children}
    return below


def wait_until_gone(processes: list[Process], *, within_s: float) -> list[Process]:
    """Those that are still there after `within_s` seconds."""
    end = time.monotonic() + within_s
    while (left := [process for process in processes if process.lives]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _read(pid: int) -> Process | None:
    try:
        state, parent, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else Process(pid, int(parent), rest[17])
