"""The one place that writes files which must survive a kill, a full disk and a loss of power.

| what | how | after a kill in the middle |
|---|---|---|
| a whole file | temporary file beside it, fsync, rename, fsync of the folder | the old content |
| a line | append, fsync | every line before it; half a line is cut off by `cut_half_line` |
| a file made on first use | under a lock, beside its place, renamed | no file; the next process makes it |
| a folder | `made_folders` tells which were missing; `remove_empty` takes only empty ones away | folders |

A file is "on disk" when the call has returned: its bytes and its name would survive a power cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dpcore.errors import Corrupt, Refused

OWNER_ONLY = 0o600
"""Mode of a file that other users must not read."""

SUM = "sum"
"""Key of a document's own digest."""

SILENT_S = 5.0
"""How long a lock is waited for without a word."""

TEMPORARY_SUFFIX = ".tmp"
"""Of what is not whole yet."""


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replaces a file in one step: a reader sees the old content or the new one, never a part.

    Args:
        path: the file; its folder is made where it is missing.
        content: all of it.
        mode: of the file; None: what the umask leaves of 0666.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        _write_new(temporary, content, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def write_new_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Writes a file that must not exist yet. One that could not be written whole is taken away again.

    Args:
        path: the file, in a folder that exists.
        content: all of it.
        mode: of the file; None: what the umask leaves of 0666.

    Raises:
        FileExistsError: something stands at `path`.
    """
    _write_new(path, content, mode)
    fsync_path(path.parent)


def append_lines(path: Path, lines: Iterable[str], *, mode: int = 0o666) -> None:
    """Adds lines at the end of a file that this process alone writes. All of them are on disk afterwards.

    A full disk leaves the file as it was: half a line is taken back, or the next line would be glued to it.

    Args:
        path: the file; made on the first line. One that a kill may have cut short goes through `cut_half_line` first.
        lines: without their line breaks.
        mode: of a file that is made, before the umask.
    """
    content = "".join(f"{line}\n" for line in lines).encode()
    is_new = not path.exists()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode), "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if is_new:
        fsync_path(path.parent)


def append_line(path: Path, document: Any, *, mode: int = 0o666) -> None:
    """Adds a document as one line of JSON (NaN and infinity are refused) and puts it on disk, as `append_lines` does."""
    append_lines(path, [json.dumps(document, sort_keys=True, allow_nan=False)], mode=mode)


def cut_half_line(path: Path) -> int:
    """Cuts off a last line without its line break, and says so on stderr: a kill or a full disk left it.

    Returns:
        The size of the file in bytes, 0 where there is none.
    """
    if not path.is_file():
        return 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
        print(f"dpsweep: {path}: the last line was cut short by a crash or a full disk and is dropped", file=sys.stderr, flush=True)
    return whole


def write_json(path: Path, document: Any, *, mode: int | None = None) -> None:
    """Replaces `path` by a JSON document, as `replace_file` does. NaN and infinity are refused."""
    replace_file(path, json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode(), mode=mode)


def read_json(path: Path) -> Any:
    """The document at `path`.

    Raises:
        Corrupt: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:  # of JSON or of UTF-8
        raise Corrupt(f"{path} is no JSON document: {error}; put a copy of it back") from error


def summed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its own digest under `sum`, for a file of which no other memory tells."""
    return {**document, SUM: _sum_of(document)}


def without_sum(document: dict[str, Any], *, where: str) -> dict[str, Any]:
    """What `summed` was given. A document without a digest, of 0.1.0, is taken as it is.

    Raises:
        Corrupt: it is not what was written.
    """
    rest = {name: value for name, value in document.items() if name != SUM}
    if document.get(SUM, _sum_of(rest)) != _sum_of(rest):
        raise Corrupt(f"{where} is not what was written: it was changed; put a copy of it back")
    return rest


def read_lines(path: Path) -> list[Any]:
    """All whole lines of `path`; a last line that a crash cut short is left out. No file has no lines.

    Raises:
        Corrupt: another line is not JSON.
    """
    if not path.exists():
        return []
    *whole, _cut = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in whole]
    except ValueError as error:  # of JSON or of UTF-8
        raise Corrupt(f"{path} has a line that is not JSON: {error}; put a copy of it back") from error


def made_once(path: Path, build: Callable[[Path], None], *, mode: int | None = None) -> bool:
    """Makes a file on first use. Of several processes one builds it, and the others wait.

    The file is built beside its place and renamed when it is whole and on disk. A kill or a full disk leaves no file at
    `path`; the next process removes what is left over and builds again.

    Args:
        path: the file; its folder is made where it is missing.
        build: makes the file at the path that it is given, and leaves nothing open.
        mode: of the file; None: as `build` makes it.

    Returns:
        Whether this call made it.

    Raises:
        Exception: what `build` raises.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return False
        temporary = path.with_name(f".{path.name}.new")
        _remove_with_companions(temporary)
        try:
            build(temporary)
            if mode is not None:
                temporary.chmod(mode)
            fsync_path(temporary)
            os.replace(temporary, path)
        finally:
            _remove_with_companions(temporary)
        fsync_path(path.parent)
        return True


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Holds a lock file. While another process holds it, this one waits, and says so after some seconds."""
    file = FileLock(lock)
    try:
        file.acquire(timeout=SILENT_S)
    except Timeout:
        print(f"dpsweep: {lock} is held by another process; waiting until it is done", file=sys.stderr, flush=True)
        file.acquire()
    try:
        yield
    finally:
        file.release()


def made_folders(path: Path) -> list[Path]:
    """Makes a folder with its parents, and tells which of them this call made, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    made = []
    for folder in missing:
        with contextlib.suppress(FileExistsError):  # another process was faster: it is that one's
            folder.mkdir()
            made.append(folder)
    if not path.is_dir():
        raise Refused(f"{path} is no folder; give another path, or remove what stands there")
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders that are empty, the innermost first. One that holds anything stays: others may have put it there."""
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def fsync_path(path: Path) -> None:
    """Puts a file's bytes, or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sum_of(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def _write_new(path: Path, content: bytes, mode: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _remove_with_companions(path: Path) -> None:
    """Removes a file and what SQLite keeps beside it (-journal, -wal, -shm)."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
