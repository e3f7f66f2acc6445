"""What a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The tail of an error message about a wrong name: the nearest known one, else all of them.

    >>> did_you_mean("stauts", ["run", "status"])
    '; did you mean status?'
    >>> did_you_mean("x", ["run", "status"])
    '; expected one of run, status'
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected one of {', '.join(names)}" if names else ""
