"""Numbers that cost seconds to compute and never change, remembered on disk under a lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dpcore.config import digest_of
from dpcore.durable import held, replace_file
from dpcore.errors import Corrupt

Key = Mapping[str, str | int | float]


def remembered(folder: Path | None, key: Key, compute: Callable[[], float]) -> float:
    """The number for `key`: read from `folder`, else computed once (other processes wait) and stored.

    Args:
        folder: Where the numbers lie, one JSON file each; None computes every time. One that this user cannot write (the sweep is another
            user's) is read, not filled.
        key: Everything that the number depends on, library versions included.
        compute: Makes the number; deterministic.

    Raises:
        Corrupt: the stored file does not hold this key's number.
    """
    if folder is None:
        return compute()
    path = folder / f"{digest_of(dict(key))}.json"
    if path.exists():
        return _read(path, key)
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return compute()
    folder.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return _read(path, key)
        value = compute()
        replace_file(path, json.dumps({"key": dict(key), "value": value}).encode())
        return value


def _read(path: Path, key: Key) -> float:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == dict(key):
            return float(stored["value"])
    except (ValueError, KeyError, TypeError):
        pass
    raise Corrupt(f"{path}: not the remembered number that its name promises; delete the file and run again")
