"""Shows how far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 10.0
"""Between two lines where there is no terminal."""


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that is told how much is done, and of how much; it shows it on stderr.

    Args:
        what: is counted, in the plural.
    """
    if not sys.stderr.isatty():
        yield _Lines(what).show
        return
    from tqdm import tqdm  # only here: every command would wait for it

    with tqdm(unit=f" {what}", file=sys.stderr, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


class _Lines:
    """Prints a line when some seconds have passed since the last one."""

    def __init__(self, what: str) -> None:
        self._what, self._last_s = what, time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Is told how much is done."""
        if time.monotonic() - self._last_s >= EVERY_S:
            self._last_s = time.monotonic()
            print(f"dpsweep: {done} of {total} {self._what}", file=sys.stderr, flush=True)
