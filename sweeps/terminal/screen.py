"""A part of the terminal that is drawn again and again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeps.terminal.lines import is_rich, show, width_of, wrapped
from sweeps.terminal.program import as_called


@contextmanager
def redrawn() -> Iterator[Callable[[str], None]]:
    """A function that shows a text in the place of the one before; without a terminal below it, after an empty line.

    The last text stays. Ctrl-C ends the block without an error.
    """
    try:
        if not is_rich(sys.stdout):
            yield lambda text: show(f"{text}\n")
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            yield lambda text: live.update(Text(wrapped(as_called(text), width_of(sys.stdout))), refresh=True)
    except KeyboardInterrupt:
        return
