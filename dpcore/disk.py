"""A full disk, named: every library has words of its own for it."""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from dpcore.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = ("No space left on device", "database or disk is full")
"""Of safetensors and of SQLite, whose exceptions carry no number."""


@contextmanager
def naming_full_disk(place: Path, *, others: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns what the block raises for lack of space into one clear error; anything else passes.

    Args:
        place: what is written to, where the exception does not say.
        others: exceptions of libraries that the block uses, beside OSError and safetensors' own.

    Raises:
        DiskFull: the disk, or the quota on it, is full.
    """
    kinds: tuple[type[Exception], ...] = (OSError, SafetensorError, *others)
    try:
        yield
    except kinds as error:
        if getattr(error, "errno", None) not in FULL and not any(words in str(error) for words in WORDS):
            raise
        full = getattr(error, "filename", None) or place
        raise DiskFull(
            f"disk full: {full} on {platform.node()} could not be written; what is there already is whole. Make room, and go on with "
            "`dpsweep resume` (a sweep) or `dpsweep train --resume`"
        ) from error
