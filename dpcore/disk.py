"""Recognises a full disk, which every library reports in different words, and raises one clear error."""

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
"""Messages of safetensors and SQLite, whose exceptions carry no error number."""


@contextmanager
def naming_full_disk(place: Path, *, others: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns any error about a full disk into `DiskFull`. Other errors pass unchanged.

    Args:
        place: the file that is written, if the exception does not name it.
        others: exceptions of libraries that the block uses, in addition to OSError and those of safetensors.

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
            f"disk full: {full} on {platform.node()} could not be written. Earlier files are complete. Free some space, then continue with "
            "`dpsweep resume` (a sweep) or `dpsweep train --resume`"
        ) from error
