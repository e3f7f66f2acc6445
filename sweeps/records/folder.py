"""Manages a sweep's folders: one name, one driver, one key."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.data.folders import PRIVATE_MODE
from dpcore.durable import OWNER_ONLY, made_folders, remove_empty, replace_file
from dpcore.errors import Refused
from sweeps.records.spec import DELETED_WITNESS, SPEC_FILE, SweepSpec
from sweeps.storage.ray_folder import FOLDER, LOCK_FILE, RECORD

if TYPE_CHECKING:
    from dpcore.privacy.randomness import SweepKey


UNFINISHED_FILE = "unfinished"
"""In a sweep's state from its begin until report, registry and MLflow are complete. Sweeps of 0.1.0 have none."""

UNBEGUN = (LOCK_FILE, "sweep.key", FOLDER, RECORD)
"""What a sweep's folder holds before its spec is written."""


@contextlib.contextmanager
def new_folder(spec: SweepSpec, *, private: bool = False) -> Iterator[list[Path]]:
    """Makes and locks the sweep's own folders and gives their list; at the end it takes away those that still stand in it.

    So a sweep that fails before its first trial leaves nothing of its own; one that has begun clears the list, whatever fails
    then. The storage is shared: it goes only where this sweep made it and it is empty. A ledger or an MLflow store in it
    stays, because another sweep may have come to use it meanwhile.

    Args:
        spec: of the sweep.
        private: for the owner alone, as `keep_private` makes them.

    Raises:
        Refused: a folder of that name holds something else, or another run has it.
    """
    own: list[Path] = []
    shared: list[Path] = []
    with contextlib.ExitStack() as locks:
        try:
            for folder in _folders(spec):
                shared += made_folders(folder.parent)
                _take(folder, spec.name, locks)
                own.append(folder)
            if private:
                keep_private(spec)
            yield own
        finally:
            for folder in own:
                _remove_own(folder)
            remove_empty(shared)


def keep_private(spec: SweepSpec) -> None:
    """Closes the sweep's own folders to other users (mode 0700), and with them weights, reports and study, whatever the umask."""
    for folder in _folders(spec):
        folder.chmod(PRIVATE_MODE)


def _take(folder: Path, name: str, locks: contextlib.ExitStack) -> None:
    """Makes a folder, or takes over what a driver left that was killed before it wrote its spec, and locks it.

    Nothing was reserved before the spec, so there is nothing to resume. The lock is what makes the folder this run's alone.

    Raises:
        Refused: the folder holds something else, or that driver is alive.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    _refuse_foreign(folder)
    locks.enter_context(_locked_folder(folder, name))
    _refuse_foreign(folder)
    _clear(folder)


def _refuse_foreign(folder: Path) -> None:
    foreign = sorted(path.name for path in folder.glob("*") if path.name not in UNBEGUN and not path.name.startswith(f".{SPEC_FILE}."))
    if SPEC_FILE in foreign:
        raise Refused(f"{folder} exists: another run uses the name; give another --name")
    if foreign:
        raise Refused(f"{folder} exists. It holds no sweep to resume, but it holds {', '.join(foreign[:3])}; give another --name")


def _clear(folder: Path) -> None:
    """Empties a folder that this process has locked, but for the lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def _remove_own(folder: Path) -> None:
    """Removes a locked folder, the lock last: who locks it from then on has a new file, and their folder stays."""
    _clear(folder)
    (folder / LOCK_FILE).unlink(missing_ok=True)
    remove_empty([folder])


@contextlib.contextmanager
def locked(spec: SweepSpec) -> Iterator[None]:
    """One driver per sweep. The lock ends with its process, whatever ends that.

    Raises:
        Refused: another process has it.
    """
    with contextlib.ExitStack() as locks:
        for folder in _folders(spec):
            locks.enter_context(_locked_folder(folder, spec.name))
        yield


def delete_folders(spec: SweepSpec) -> Path | None:
    """Removes a sweep's own folders, all but the witness of its ledger lines, which stay. Returns where the witness is.

    Raises:
        Refused: a process runs it.
    """
    own = spec.ledger_url is None
    kept = spec.sweep_dir / DELETED_WITNESS if own else spec.ledger_witness
    with locked(spec):
        if own and spec.ledger_witness.is_file():
            replace_file(kept, spec.ledger_witness.read_bytes(), mode=OWNER_ONLY)
        for folder in _folders(spec):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path not in (kept, folder / LOCK_FILE):
                    path.unlink()
            (folder / LOCK_FILE).unlink(missing_ok=True)
            remove_empty([folder])
    return kept if kept.is_file() else None


def _folders(spec: SweepSpec) -> tuple[Path, ...]:
    """The sweep's own: results and state, which are one folder unless --state names another."""
    return tuple(dict.fromkeys((spec.sweep_dir, spec.state_dir)))


@contextlib.contextmanager
def _locked_folder(folder: Path, name: str) -> Iterator[None]:
    gone = Refused(f"{folder} is just being removed by a run of the same name that failed; run the command again")
    try:
        file = (folder / LOCK_FILE).open("a")
    except FileNotFoundError:
        raise gone from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process is running sweep {name}; `dpsweep status {name}` shows how far it is") from None
        if os.fstat(file.fileno()).st_nlink == 0:
            raise gone
        yield


def new_key(spec: SweepSpec) -> SweepKey:
    """Creates a key in the sweep's state. If DPSWEEP_KEY_FILE names an existing key, uses that one."""
    from dpcore.privacy.randomness import SweepKey

    if spec.key_path.exists():
        return SweepKey.load(spec.key_path)
    key = SweepKey.fresh()
    key.save(spec.key_path)
    return key


def found_key(spec: SweepSpec) -> tuple[SweepKey, bool]:
    """The sweep's key, and whether a new key had to be created because the old one is lost."""
    from dpcore.privacy.randomness import SweepKey

    lost = not spec.key_path.exists()
    return (new_key(spec) if lost else SweepKey.load(spec.key_path)), lost


def mark_unfinished(spec: SweepSpec) -> None:
    """Writes down that something of the sweep is still to be written, until `mark_finished`."""
    replace_file(spec.state_dir / UNFINISHED_FILE, b"a driver has begun; `dpsweep resume` goes on where it has ended\n")


def mark_finished(spec: SweepSpec) -> None:
    """Everything of the sweep is written."""
    (spec.state_dir / UNFINISHED_FILE).unlink(missing_ok=True)


def is_unfinished(spec: SweepSpec) -> bool:
    """Whether a driver began and has not come to its very end."""
    return (spec.state_dir / UNFINISHED_FILE).exists()
