"""Looks at sweeps without changing anything: all of a storage, two side by side, what one said, its tables as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import BadInput
from sweeps.api.results import read_results
from sweeps.records.spec import DEFAULT_STORAGE
from sweeps.storage.bucket import is_uri

if TYPE_CHECKING:
    from sweeps.report.overview.listing import SweepLine
    from sweeps.report.overview.side_by_side import SideBySide


def list_sweeps(*, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> tuple[SweepLine, ...]:
    """Every sweep of a storage, the newest change first, from its tables alone: a thousand trials take no second.

    Args:
        storage: folder of the sweeps, or a bucket's URI.
        state: of sweeps in a bucket: the folder of their states.

    Raises:
        BadInput: there is no such folder, or a bucket's state was not named.
    """
    from sweeps.report.overview.listing import list_folder

    if is_uri(storage) and state is None:
        raise BadInput(f"{storage} is a bucket; give --state DIR, the folder of the states of its sweeps")
    return list_folder(Path(storage if state is None else state))


def compare(first: str, second: str, *, storage: str | Path = DEFAULT_STORAGE) -> SideBySide:
    """Two sweeps of a storage side by side, as far as they have come.

    Raises:
        BadInput: there is no such sweep, or nothing has come out of one yet.
    """
    from sweeps.report.overview.side_by_side import put_side_by_side

    one, other = (read_results(name, storage=storage) for name in (first, second))
    return put_side_by_side((one.spec, one.found), (other.spec, other.found))


def logs(name: str, trial: str | None = None, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> Iterator[str]:
    """The lines that a sweep's driver said, or of a trial its state, settings, reports and error.

    Raises:
        BadInput: there is no such sweep or trial, or it has said nothing yet.
    """
    from sweeps.api.sweep import existing_spec
    from sweeps.report.overview.said import said_by_sweep, said_by_trial

    if trial is None:
        return said_by_sweep(existing_spec(name, storage, state))
    return said_by_trial(read_results(name, storage=storage, state=state).found, trial)


def export_tables(
    name: str, out: str | Path, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None
) -> tuple[Path, Path]:
    """Writes a sweep's tables as CSV into a new folder: `trials.csv`, a row per trial, and `curves.csv`, a row per trial, step and metric.

    Returns:
        The two files.

    Raises:
        BadInput: there is no such sweep, or nothing has come out yet. Refused: the folder exists.
    """
    import pyarrow.csv as csv

    from dpcore.data.folders import new_folder

    results, folder = read_results(name, storage=storage, state=state), Path(out)
    with new_folder(folder, private=results.found.protected) as made:
        csv.write_csv(results.to_arrow(), made / "trials.csv")
        csv.write_csv(results.curves(), made / "curves.csv")
    return folder / "trials.csv", folder / "curves.csv"
