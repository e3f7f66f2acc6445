"""Sweeps of a benchmark that goes on where it was interrupted: a sweep that its storage has is resumed, a new one begins."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import dpsweep


@contextmanager
def storage_of(given: Path | None) -> Iterator[Path]:
    """The folder that was given, or one that is gone afterwards."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def swept(space: Path, **options: Unpack[dpsweep.SweepOptions]) -> dpsweep.Results:
    """The results of a sweep, whole. `name` and `storage` must be among the options.

    Raises:
        DpsweepError: it did not come to its end.
    """
    name, storage = options["name"], options["storage"]
    assert name is not None
    if (Path(storage) / name / "spec.json").is_file():
        return dpsweep.resume(name, storage=storage)
    return dpsweep.run(space, **options)
