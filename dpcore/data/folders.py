"""Writes folders that appear completely or not at all.

Every dataset and cache is written beside its final place, flushed to disk and renamed. A reader never sees half of it. A crash
leaves only a hidden `.tmp` folder, which `dpsweep data purge` removes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dpcore.durable import OWNER_ONLY, TEMPORARY_SUFFIX, fsync_path, held, read_json, write_json
from dpcore.errors import Corrupt, Refused

SUMS_NAME = "sums.json"
"""In a cache entry: the sha256 of each of its files."""
_read_once: dict[tuple[object, ...], bool] = {}
"""Whether an entry in this state, by times and sizes of its files, has the bytes that were written."""

CONTINUED_SUFFIX = f"-unfinished{TEMPORARY_SUFFIX}"
"""Of a folder in which interrupted work goes on."""

PRIVATE_MODE = 0o700
PUBLIC_MODE = 0o755


@contextmanager
def new_folder(target: Path, *, private: bool) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends, and is removed when it raises.

    Args:
        target: the folder to create, with its parents.
        private: mode 0700 and its files 0600, whatever the umask; else 0755 and what the umask leaves.

    Raises:
        Refused: `target` exists. Another process may have created it meanwhile.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=TEMPORARY_SUFFIX, dir=target.parent))
    try:
        yield temporary
        _put_in_place(temporary, target, private=private)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def continued_folder(target: Path, *, private: bool) -> Iterator[Path]:
    """As `new_folder`, for work that takes minutes: after an interruption the next call for the same target gets the same folder.

    The temporary folder has mode 0700. An error removes it, an interruption (Ctrl-C, a kill) leaves it. One process works on it at a time.

    Args:
        target: the folder to create, with its parents.
        private: see `new_folder`.

    Raises:
        Refused: `target` exists, or another process is making it.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}{CONTINUED_SUFFIX}"
    temporary.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    temporary.chmod(PRIVATE_MODE)
    lock = temporary / ".lock"
    with _held_alone(lock, target):
        try:
            yield temporary
            lock.unlink(missing_ok=True)
            _put_in_place(temporary, target, private=private)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def _held_alone(lock: Path, target: Path) -> Iterator[None]:
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        raise Refused(f"{target}: another process is making it; wait until it is done, or give another folder") from None
    try:
        yield
    finally:
        file.release()


def _put_in_place(temporary: Path, target: Path, *, private: bool) -> None:
    """Puts a finished folder on disk and gives it its name."""
    temporary.chmod(PRIVATE_MODE if private else PUBLIC_MODE)
    for path in (*sorted(temporary.rglob("*")), temporary):
        if private:
            path.chmod(PRIVATE_MODE if path.is_dir() else OWNER_ONLY)
        fsync_path(path)
    _rename(temporary, target)
    fsync_path(target.parent)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the lock of one cache entry. One process on a node builds the entry, and the others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with held(target.parent / f".{target.name}.lock"):
        yield


def cached_folder(target: Path, build: Callable[[Path], None], *, private: bool) -> Path:
    """The folder of a cache entry: made on first use under its lock, and made anew where its bytes are not those that were written.

    Its files are read whole once per process. An entry of 0.1.0, which has no sums, is taken as it is.

    Args:
        target: the entry's folder.
        build: fills the folder that it is given. It is deterministic, so that an entry that is made anew is the same.
        private: mode 0700.
    """
    if not _is_sound(target):
        with locked(target):
            if not _is_sound(target):
                if target.exists():
                    print(f"dpsweep: {target} is damaged and is made anew", file=sys.stderr, flush=True)
                    shutil.rmtree(target)
                with new_folder(target, private=private) as folder:
                    build(folder)
                    write_json(folder / SUMS_NAME, {path.name: _sum_of(path) for path in sorted(folder.iterdir())})
    return target


def _is_sound(folder: Path) -> bool:
    """Whether a cache entry is there with the bytes that were written."""
    sums = folder / SUMS_NAME
    if not sums.is_file():
        return folder.is_dir()
    state = (str(folder), *((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.iterdir())))
    if state not in _read_once:
        try:
            written = read_json(sums)
            _read_once[state] = written == {path.name: _sum_of(path) for path in sorted(folder.iterdir()) if path != sums}
        except Corrupt:
            _read_once[state] = False
    return _read_once[state]


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
