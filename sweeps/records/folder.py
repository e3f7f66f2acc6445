"""Manages a sweep's folders: one name, one driver, one key."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.records.spec import SPEC_FILE, SweepSpec

if TYPE_CHECKING:
    from dpcore.privacy.randomness import SweepKey


LOCK_FILE = "sweep.lock"
UNBEGUN = (LOCK_FILE, "sweep.key")
"""What a sweep's folder holds before its spec is written."""


@contextlib.contextmanager
def new_folder(spec: SweepSpec) -> Iterator[list[Path]]:
    """Creates the sweep's folders and yields their list. At the end it removes the folders that are still in the list.

    So a sweep that fails before its first trial leaves nothing. A sweep that has begun clears the list, so its folders stay.
    """
    made: list[Path] = [] if spec.storage_dir.exists() else [spec.storage_dir]
    spec.storage_dir.mkdir(parents=True, exist_ok=True)
    try:
        for folder in dict.fromkeys((spec.sweep_dir, spec.state_dir)):
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                _clear_unbegun(spec, folder)
            folder.mkdir()
            made.append(folder)
        yield made
    except FileExistsError as error:
        raise Refused(f"{error.filename} exists: another run uses the name {spec.name}; give another --name") from None
    finally:
        for folder in reversed(made):
            shutil.rmtree(folder, ignore_errors=True)


def _clear_unbegun(spec: SweepSpec, folder: Path) -> None:
    """Removes the folder of a driver that was killed before it wrote its spec. Nothing is reserved then, and nothing can be resumed.

    Raises:
        Refused: the folder holds something else, or that driver is alive.
    """
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in UNBEGUN and not path.name.startswith(f".{SPEC_FILE}."))
    if foreign:
        raise Refused(f"{folder} exists. It holds no sweep to resume, but it holds {', '.join(foreign[:3])}; give another --name")
    lock = locked(spec) if (spec.state_dir / LOCK_FILE).exists() else contextlib.nullcontext()
    with lock:
        shutil.rmtree(folder)


@contextlib.contextmanager
def locked(spec: SweepSpec) -> Iterator[None]:
    """Allows one driver per sweep. The lock ends with its process, however that ends."""
    with (spec.state_dir / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process is running sweep {spec.name}; `dpsweep status {spec.name}` shows how far it is") from None
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
