"""Keeps the words of libraries off the terminal: Ray, absl, Alembic and torch write to a log file, and what dpsweep says stays.

Libraries write in two ways: from C++ to file descriptor 2, and from Python to whatever `sys.stderr` is. Both are led away. A line that
begins with `dpsweep:` is ours, whoever prints it, and reaches the terminal.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sweeps.terminal.lines import printed_above, show, warn

OURS = "dpsweep:"
OWNER_ONLY = 0o600


class SortedLines(io.TextIOBase):
    """A stream for whole lines: ours go to the terminal, all others to the log."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._rest = ""

    def write(self, text: str) -> int:
        """Takes a text; a line is sorted when its end has come."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith(OURS):
                warn(line)
            else:
                self._log.write(f"{line}\n")
        self._log.flush()
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """No: a library that asks draws nothing."""
        return False

    def fileno(self) -> int:
        """That of the log."""
        return self._log.fileno()


@contextmanager
def library_noise(path: Path) -> Iterator[None]:
    """Appends to `path` what libraries say, for the length of a block. Where stderr is not this process's own (a test, a notebook)
    nothing is led away.

    Args:
        path: the log; its folder is made for the owner alone.
    """
    terminal = sys.stderr
    if not _is_own(terminal):
        yield
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    terminal.flush()
    kept = os.dup(terminal.fileno())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY)
    with (
        os.fdopen(kept, "w", encoding=terminal.encoding, errors="backslashreplace", buffering=1) as screen,
        os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as log,
    ):
        os.dup2(log.fileno(), terminal.fileno())
        sys.stderr = SortedLines(log)
        try:
            with printed_above(lambda text: show(text, stream=screen)), shown_on(screen):
                yield
        finally:
            sys.stderr = terminal
            os.dup2(screen.fileno(), terminal.fileno())
    if path.stat().st_size == 0:
        path.unlink()


_screens: list[TextIO] = []


@contextmanager
def shown_on(stream: TextIO) -> Iterator[None]:
    """Names the stream of the terminal behind stderr while stderr is led away."""
    _screens.append(stream)
    try:
        yield
    finally:
        _screens.pop()


def screen() -> TextIO:
    """The terminal behind stderr, led away or not."""
    return _screens[-1] if _screens else sys.stderr


def _is_own(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):
        return False
