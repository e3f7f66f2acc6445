"""A trial whose folder lies in a bucket, while it runs: a scratch copy on its worker's node, and what of it is uploaded when.

Order: the trial writes its report and checkpoint into the scratch folder → the report goes to the driver → the driver, which
has written it down, asks for the next one → only then what belongs to the delivered report is uploaded. So the bucket never
holds a state that the driver does not know, and a worker that is cut off from its driver can upload nothing new: it is never
asked again. Whoever takes the trial up gets from the driver the digests of all weights that were told (`expected`), and
from the bucket those of the trial's own book; a sum under old noise that differs from them stops there, unheard.
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
"""Below the cache folder, beside what else can be had again; `dpsweep data purge` takes it away with the rest."""

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
        """A report is on its way to the driver. When the driver asks again, it has it."""
        self._delivered = step, done

    def keep(self) -> bool:
        """Uploads what belongs to the report that was delivered last, where there is a new checkpoint or the end. Gives whether
        the trial is over.

        A trial that goes on between two checkpoints is uploaded with the next one: reports since are held against `expected`.

        Raises:
            Unavailable: the store does not answer; what it held before stands.
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
    """The newest state of a trial in a fresh folder of this node, which is removed afterwards.

    Args:
        place: `uri` of the bucket and the `trial`'s path in it.
        scratch: the folder of such folders, on this node or shared by several; those that dead workers left are removed.
        attempt: which try at the trial this is.

    Raises:
        Corrupt: what lies there is not what was written. Unavailable: the store does not answer.
    """
    with _own_folder(scratch / SCRATCH_KIND, Path(place["trial"]).name) as folder:
        bucket = Bucket.open(place["uri"])
        fetch_newest(bucket, place["trial"], folder / "trial")
        yield BucketTrial(bucket, place["trial"], folder / "trial", attempt=attempt)


@contextmanager
def _own_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder of mode 0700, locked as long as this process has it."""
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
    """Takes away the folders whose worker is gone: weights in the making are nobody's to keep."""
    for path in root.glob(f"*/{LOCK_FILE}"):
        with suppress(BlockingIOError, FileNotFoundError), path.open("r+") as lock:  # it runs, or ends at this moment
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)
