"""How dpsweep was called, so that a command that a message names can be pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "dpsweep"
STARTS = (f"`{NAME} ", f"`{NAME}`", f"    {NAME} ")
"""Where a text names a command: in backquotes, or indented on a line of its own."""


def program() -> str:
    """What to type for dpsweep here: `dpsweep` where the shell's path has this very one, else as it was called.

    | called as | on the path | is |
    |---|---|---|
    | `dpsweep` | this one | `dpsweep` |
    | `.venv/bin/dpsweep` | another one, or none | `.venv/bin/dpsweep` |
    | from Python, or by another program | | `dpsweep` |
    """
    called = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path(NAME)
    if called.name != NAME:
        return NAME
    found = shutil.which(NAME)
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return NAME
    return shlex.quote(str(called))


def as_called(text: str) -> str:
    """`text` with every command of dpsweep as it is to be typed here."""
    here = program()
    if here == NAME:
        return text
    for start in STARTS:
        text = text.replace(start, start.replace(NAME, here))
    return text
