"""Ctrl-C, SIGTERM and a terminal that closes: a sweep ends at the next safe place, and at once if it is asked again.

Ray puts handlers of its own in place as it starts; theirs print a stack of C++ frames. So ours are set again after that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sweeps.engine.searcher import Interrupted

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to end (SIGTERM)",
    signal.SIGHUP: "the terminal was closed (SIGHUP; `nohup` or tmux keep a sweep running)",
}


class StopSignals:
    """What the signals of this process have asked for.

    Attributes:
        requested: what the driver's loop raises at the next safe place.
        waits: whether that loop runs. Otherwise a signal ends the process where it is, by KeyboardInterrupt.
        is_begun: whether the sweep has something to resume.
    """

    def __init__(self, name: str, *, is_begun: Callable[[], bool]) -> None:
        self.requested: Interrupted | None = None
        self.waits = False
        self.is_begun = is_begun
        self._name = name
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Sets our handlers, also in place of those that a library has set since. A signal that is ignored (nohup) stays so."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in WORDS:
            handler = signal.getsignal(number)
            self._before.setdefault(number, handler)
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._asked)

    def restore(self) -> None:
        """Sets the handlers that were there at first."""
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be
                signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The length of a loop that asks for `requested`."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False

    def _asked(self, number: int, _frame: Any) -> None:
        word, resume = WORDS[signal.Signals(number)], f"go on with `dpsweep resume {self._name}`"
        if self.waits and self.requested is None:
            self.requested = Interrupted(f"{word}; finished trials are kept, {resume}")
            _say(f"dpsweep: {word}: ending at the next safe place; the same again ends at once")
            return
        rest = f"ended at once; finished trials are kept, {resume}" if self.is_begun() else "nothing was begun, nothing is charged"
        raise KeyboardInterrupt(f"{word}; {rest}")


@contextlib.contextmanager
def stop_signals(name: str, *, is_begun: bool) -> Iterator[StopSignals]:
    """Our handlers for the length of a block. `is_begun`: whether the sweep can be resumed from the start on."""
    stop = StopSignals(name, is_begun=lambda: is_begun)
    stop.listen()
    try:
        yield stop
    finally:
        stop.restore()


def _say(line: str) -> None:
    """Says a line, or nothing where the terminal is gone: then whatever is written later goes nowhere, and ends nothing."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
