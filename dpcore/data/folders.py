"""Writes folders that appear completely or not at all.

Every dataset and cache is written beside its final place, flushed to disk and renamed. A reader never sees half of it. A crash
leaves only a hidden `.tmp` folder, which `dpsweep data purge` removes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpcore.durable import TEMPORARY_SUFFIX, fsync_path, held
from dpcore.errors import Refused

PRIVATE_MODE = 0o700
PUBLIC_MODE = 0o755


@contextmanager
def new_folder(target: Path, *, private: bool) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends, and is removed when it raises.

    Args:
        target: the folder to create, with its parents.
        private: mode 0700 instead of 0755.

    Raises:
        Refused: `target` exists. Another process may have created it meanwhile.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=TEMPORARY_SUFFIX, dir=target.parent))
    try:
        yield temporary
        temporary.chmod(PRIVATE_MODE if private else PUBLIC_MODE)
        for path in (*sorted(temporary.rglob("*")), temporary):
            fsync_path(path)
        _rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(target.parent)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the lock of one cache entry. One process on a node builds the entry, and the others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with held(target.parent / f".{target.name}.lock"):
        yield


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise Refused(f"{target} already exists: give another folder, or remove this one first")


def _rename(temporary: Path, target: Path) -> None:
    _refuse_existing(target)
    try:
        temporary.rename(target)
    except OSError:
        _refuse_existing(target)  # another process was first: give our own message
        raise
