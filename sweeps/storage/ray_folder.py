"""Where Ray keeps its files while a sweep runs: private folders, written down before they are made, and removed.

Ray writes sockets, logs, states of its trials and errors, with modes of its own. So its folders lie in a folder of mode
0700 in the sweep's state, and what it writes ends with the sweep. A path of a Unix socket has room for 107 bytes; where
the state's own path is too long, Ray's sessions lie in a short private folder of the system's temporary folder, which
the state names in `ray.json`. After a crash the next command on the storage removes what a dead driver left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpcore.durable import write_json
from dpcore.errors import Unavailable

LOCK_FILE = "sweep.lock"
"""In a sweep's state: whoever drives the sweep holds it. It ends with that process, whatever ends that."""

RECORD = "ray.json"
FOLDER = ".ray"
SOCKET_BYTES = 107
LONGEST_SOCKET = "r/session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store"
"""Of what Ray makes below the folder that it is given."""

SHORT_NAME = re.compile(r"dpsweep-[0-9a-f]{10}")


@dataclass(frozen=True, kw_only=True)
class RayFolder:
    """Where Ray may write.

    Attributes:
        session: for the sessions of a Ray of our own. Ray opens it to everybody: the folder around it is private.
        tune: `tune_folder`.
    """

    session: Path
    tune: Path


@contextlib.contextmanager
def ray_folder(state_dir: Path, *, own: bool) -> Iterator[RayFolder]:
    """Ray's folders for the length of a block; the caller holds the sweep's lock.

    Args:
        state_dir: of the sweep.
        own: whether the sweep starts its Ray. One that runs already has a session of its own.

    Raises:
        Unavailable: no folder here is short enough for Ray's sockets.
    """
    _clear(state_dir)
    kept = state_dir / FOLDER
    _remove(kept)  # the daemons of a driver that was killed may have made it again, after its record was gone
    around = short_folder(kept) if own else kept
    write_json(state_dir / RECORD, {"host": socket.gethostname(), "folder": str(around)})
    try:
        for folder in dict.fromkeys((kept, around)):
            folder.mkdir(mode=0o700)
        yield RayFolder(session=around / "r", tune=tune_folder(state_dir))
    finally:
        _remove(around, kept)
        (state_dir / RECORD).unlink(missing_ok=True)


def tune_folder(state_dir: Path) -> Path:
    """Where Tune writes, as the driver and for what it keeps. All workers see it."""
    return state_dir / FOLDER / "tune"


@contextlib.contextmanager
def unrecorded_session() -> Iterator[Path]:
    """A private folder for a Ray of our own that belongs to no sweep."""
    around = short_folder(None)
    around.mkdir(mode=0o700)
    try:
        yield around / "r"
    finally:
        _remove(around)


def short_folder(wanted: Path | None) -> Path:
    """A folder, not made yet, below which Ray's sockets fit: the wanted one, or a new name in the temporary folder.

    Raises:
        Unavailable: the temporary folder's path is too long too.
    """
    if wanted is not None and _fits(wanted):
        return wanted
    temporary = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    found = temporary / f"dpsweep-{secrets.token_hex(5)}"
    if not _fits(found):
        raise Unavailable(
            f"Ray's sockets do not fit below {temporary}: their paths end at {SOCKET_BYTES} bytes; set RAY_TMPDIR to a short folder "
            "such as /tmp"
        )
    return found


def clear_leftovers(storage: Path) -> None:
    """Removes Ray's folders of drivers that died on this machine, of every sweep whose state lies in a storage."""
    for record in storage.glob(f"*/{RECORD}"):
        clear_leftover(record.parent)


def clear_leftover(state_dir: Path) -> None:
    """The same for one sweep; nothing while a driver lives: it holds the sweep's lock, which ends with it."""
    if not (state_dir / RECORD).is_file():
        return
    with contextlib.suppress(FileNotFoundError), (state_dir / LOCK_FILE).open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _clear(state_dir)


def _clear(state_dir: Path) -> None:
    """What the record says is checked: only a folder under a name that we give is removed, and only if it is ours."""
    record = state_dir / RECORD
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        said = json.loads(record.read_bytes())
        if said["host"] == socket.gethostname():
            folder = Path(said["folder"])
            _remove(*([folder] if SHORT_NAME.fullmatch(folder.name) else []), state_dir / FOLDER)
            record.unlink(missing_ok=True)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / LONGEST_SOCKET)) <= SOCKET_BYTES


def _remove(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            if not folder.is_symlink() and folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
