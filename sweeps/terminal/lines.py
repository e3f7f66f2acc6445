"""Words for people: wrapped to the width of a terminal, untouched in a file or a pipe."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from sweeps.terminal.program import as_called

LEAST_WIDTH = 40
COMMAND_INDENT = "    "
"""Lines that begin with it are to be copied whole."""


def is_rich(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can redraw its lines: no file, no pipe, no TERM=dumb, no CI."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal behind a stream; None for a file or a pipe, where nothing is to be wrapped."""
    if not stream.isatty():
        return None
    return max(LEAST_WIDTH, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int | None) -> str:
    """`text` with lines of at most `width` columns, broken between words. Commands on lines of their own, and tables, stay whole.

    >>> print(wrapped("one two three four five six seven eight nine ten", 40))
    one two three four five six seven eight
      nine ten
    """
    if width is None:
        return text
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(COMMAND_INDENT):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    broken = textwrap.wrap(
        line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(broken)


def show(text: str = "", *, stream: TextIO | None = None) -> None:
    """Prints a text for people: its commands as they are to be typed here, its lines within the terminal."""
    target = sys.stdout if stream is None else stream
    print(wrapped(as_called(text), width_of(target)), file=target, flush=True)


_above: list[Callable[[str], None]] = []
"""What puts a line above a part of the terminal that is being redrawn, while one is."""


def warn(text: str) -> None:
    """The same on stderr, where everything goes that is no answer."""
    if _above:
        _above[-1](as_called(text))
    else:
        show(text, stream=sys.stderr)


@contextmanager
def printed_above(printer: Callable[[str], None]) -> Iterator[None]:
    """Lets `warn` use a printer for the length of a block."""
    _above.append(printer)
    try:
        yield
    finally:
        _above.pop()


def counted(number: float, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 trial`, `2 trials`, `1,000 people`."""
    noun = one if number == 1 else many or f"{one}s"
    return f"{number:,.0f} {noun}" if number == int(number) else f"{number:g} {noun}"
