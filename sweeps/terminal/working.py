"""Work that takes more than a moment is never silent: a spinner on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.terminal.lines import is_rich, printed_above, warn
from sweeps.terminal.noise import screen

FIRST_S, EVERY_S = 2.0, 30.0
"""Without a terminal: when the first line comes, and the time between two."""


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on stderr that something goes on, and for how long already, until the block ends. What is short says nothing.

    Args:
        what: goes on, as in `planning`.
    """
    target = screen()
    if is_rich(target):
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        console = Console(file=target, highlight=False)
        with (
            Progress(*columns, console=console, transient=True) as progress,
            printed_above(lambda text: console.print(text, markup=False)),
        ):
            progress.add_task(what, total=None)
            yield
        return
    over, began = threading.Event(), time.monotonic()

    def say() -> None:
        wait_s = FIRST_S
        while not over.wait(wait_s):
            passed = time.monotonic() - began
            warn(f"dpsweep: {what}" + ("" if passed < EVERY_S else f" ({passed:.0f} s)"))
            wait_s = EVERY_S

    speaker = threading.Thread(target=say, daemon=True, name="dpsweep-working")
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()
