"""Shows how far long work is: a bar with the time that is left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeps.terminal.lines import is_rich, warn

FIRST_S, EVERY_S = 2.0, 10.0
"""Where there is no terminal: when the first line comes, and the time between two."""


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that is told how much is done, and of how much; it shows it on stderr.

    Args:
        what: is counted, in the plural.
    """
    if not is_rich(sys.stderr):
        yield _Lines(what).show
        return
    from rich.console import Console  # only here: every command would wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Lines:
    """Prints a line when some seconds have passed since the last one, with an estimate of the rest."""

    def __init__(self, what: str) -> None:
        self._what, self._began_s = what, time.monotonic()
        self._next_s = self._began_s + FIRST_S

    def show(self, done: int, total: int) -> None:
        """Is told how much is done."""
        now = time.monotonic()
        if done == 0:
            self._began_s = now  # what came before is no measure of what is left
        if now < self._next_s:
            return
        self._next_s = now + EVERY_S
        left = f", about {(now - self._began_s) * (total - done) / done:.0f} s left" if 0 < done < total else ""
        warn(f"dpsweep: {done} of {total} {self._what}{left}")
