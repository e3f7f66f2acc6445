"""Changes what becomes of a sweep: pauses it, or removes it."""

from __future__ import annotations

from pathlib import Path

from sweeps.api.sweep import existing_spec
from sweeps.records.spec import DEFAULT_STORAGE


def pause(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> str:
    """Lets the running trials of a sweep end and starts no other: nothing is lost or charged twice. `resume` goes on.

    Args:
        name: of the sweep.
        storage: folder of the sweeps, or a bucket's URI.
        state: folder of study, key and spool; None: where the sweep began.

    Returns:
        What became of it, in a sentence.

    Raises:
        BadInput: there is no such sweep. Refused: no driver runs it. Unavailable: the driver does not react.
    """
    from sweeps.remote.cancelling import pause_sweep

    return pause_sweep(existing_spec(name, storage, state))


def delete(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> str:
    """Removes a sweep's results, checkpoints, studies, key and report. Its ledger lines stay, and with them its name: what was
    promised to people does not end with a folder. MLflow's runs stay too.

    Args:
        name, storage, state: as for `pause`.

    Returns:
        What is left, in a sentence.

    Raises:
        BadInput: there is no such sweep. Refused: a process runs it. Unavailable: its bucket or the studies' database can't be reached.
    """
    from sweeps.records.folder import delete_folders
    from sweeps.records.publication import delete_published
    from sweeps.search.storage import delete_studies

    spec = existing_spec(name, storage, state)
    delete_studies(spec)
    delete_published(spec)
    left = delete_folders(spec)
    witness = "" if left is None else f"; their witness is {left}"
    return f"{name} is deleted. Its ledger lines stay{witness}, and so do its runs in MLflow. The name cannot be used again"
