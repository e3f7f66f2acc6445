"""Runs a trial whose folder lies in a bucket: keeps a scratch copy on the worker's node and decides when to upload it.

The order is:

1. The trial writes its report and checkpoint into the scratch folder.
2. The report goes to the driver.
3. The driver stores the report and asks for the next one.
4. Only now the worker uploads the state that belongs to the delivered report.

So the bucket never holds a state that the driver does not know. A worker that lost its driver uploads nothing new, because it is
never asked again. A second worker of the trial gets the digests of all reported weights from the driver (`expected`), and the
trial's own digests from the bucket. If its sum differs under the old noise, it stops before it reports anything.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dpcore.data.folders import locked
from dpcore.train.attempts import newest_checkpoint_step
from sweeps.storage.bucket import Bucket
from sweeps.storage.snapshots import fetch_newest, save_snapshot

SCRATCH_KIND = "trials"
"""Subfolder of the cache folder. `dpsweep data purge` removes it with the rest of the cache."""

LOCK_FILE = "scratch.lock"


class BucketTrial:
    """One worker's hold on a trial in a bucket."""

    def __init__(self, bucket: Bucket, trial: str, folder: Path, *, attempt: int) -> None:
        self.folder = folder
        self._bucket = bucket
        self._trial = trial
        self._attempt = attempt
        self._uploaded = newest_checkpoint_step(folder)
        self._delivered: tuple[int, bool] | None = None

    def delivers(self, step: int, *, done: bool) -> None:
        """Notes that a report was sent to the driver. When the driver asks for the next one, it has stored this report."""
        self._delivered = step, done

    def keep(self) -> bool:
        """Uploads the state of the last delivered report if there is a new checkpoint or the trial has ended.

        Between two checkpoints nothing is uploaded. A resume compares the reports since then with `expected`.

        Returns:
            Whether the trial has ended.

        Raises:
            Unavailable: the store does not answer. Its earlier content is unchanged.
        """
        if self._delivered is None:
            return False
        (step, done), self._delivered = self._delivered, None
        newest = newest_checkpoint_step(self.folder)
        if done or newest > self._uploaded:
            save_snapshot(self._bucket, self._trial, self.folder, attempt=self._attempt, step=step)
            self._uploaded = newest
        return done


@contextmanager
def open_bucket_trial(place: dict[str, Any], *, scratch: Path, attempt: int) -> Iterator[BucketTrial]:
    """Downloads the newest state of a trial into a fresh local folder, which is removed afterwards.

    Args:
        place: `uri` of the bucket, and path of the `trial` in it.
        scratch: parent of the local folders, on this node or shared by several. Folders of dead workers are removed.
        attempt: number of this attempt at the trial.

    Raises:
        Corrupt: a downloaded file differs from what was written. Unavailable: the store does not answer.
    """
    with _own_folder(scratch / SCRATCH_KIND, Path(place["trial"]).name) as folder:
        bucket = Bucket.open(place["uri"])
        fetch_newest(bucket, place["trial"], folder / "trial")
        yield BucketTrial(bucket, place["trial"], folder / "trial", attempt=attempt)


@contextmanager
def _own_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder of mode 0700, locked while this process uses it."""
    with locked(root / "scratch"):
        _remove_abandoned(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        lock = (folder / LOCK_FILE).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _remove_abandoned(root: Path) -> None:
    """Removes folders whose worker has died, because unreleased weights must not stay on disk."""
    for path in root.glob(f"*/{LOCK_FILE}"):
        with suppress(BlockingIOError, FileNotFoundError), path.open("r+") as lock:  # its worker runs, or ends right now
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)
