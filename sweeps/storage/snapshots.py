"""Stores a trial's folder in a bucket as complete snapshots. The newest complete snapshot counts.

    NAME/checkpoints/TRIAL/000-000100-<digest>/     attempt, last reported step, digest of the list below
        trial.json, digests.jsonl, checkpoint-000100/...   the files of the trial's folder
        snapshot.json                                      their sha256; written last

A snapshot is never changed. Older snapshots are removed only after the new one is complete. So a kill during an upload leaves the
snapshot before it intact. A late writer (it lost its driver while another worker continued its trial) cannot replace a newer
state, and cannot remove a file that a newer snapshot names. Two writers at the same step write two snapshots.

`sweeps.storage.bucket_trial` makes sure that two writers never reveal their difference: a worker uploads a state only after the
driver has received its report. So the next worker knows which weights it must reach again, and otherwise stops before it reports.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dpcore.config import digest_of
from dpcore.errors import Corrupt, Unavailable
from dpcore.train.attempts import CHECKPOINT_PREFIX, RESULT_FILE
from sweeps.storage.bucket import Bucket

LIST_FILE = "snapshot.json"
NAME = re.compile(r"(\d+)-(\d+)-[0-9a-f]{16}")
TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        folder: its path in the bucket.
        attempt, step: of its trial, at the last delivered report.
        files: file name to sha256.
    """

    folder: str
    attempt: int
    step: int
    files: Mapping[str, str]

    @property
    def checkpoint_step(self) -> int:
        """The step of its checkpoint; 0 if it has none."""
        tops = (PurePosixPath(name).parts[0] for name in self.files)
        return max((int(top.removeprefix(CHECKPOINT_PREFIX)) for top in tops if top.startswith(CHECKPOINT_PREFIX)), default=0)

    @property
    def is_finished(self) -> bool:
        """Whether its trial has ended."""
        return RESULT_FILE in self.files


def save_snapshot(bucket: Bucket, trial: str, folder: Path, *, attempt: int, step: int) -> None:
    """Uploads a trial's folder, then removes older snapshots.

    Args:
        bucket: the target.
        trial: the trial's path in the bucket.
        folder: the local folder. Nothing may write there during the upload.
        attempt, step: of the report that the driver has stored.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_kept(path, folder)}
    files = {name: _sha256(path) for name, path in paths.items()}
    own = f"{attempt:03d}-{step:06d}-{digest_of(files)}"
    for name, path in paths.items():
        bucket.upload(f"{trial}/{own}/{name}", path)
    bucket.write(f"{trial}/{own}/{LIST_FILE}", json.dumps(files, indent=1, sort_keys=True).encode())
    for top in {_top(name, trial) for name in bucket.names(trial)}:
        if NAME.fullmatch(top) and _rank(top) < (attempt, step):
            bucket.remove(f"{trial}/{top}")


def newest_snapshot(bucket: Bucket, trial: str) -> Snapshot | None:
    """The newest complete snapshot of a trial, or None before the first one. A snapshot with a missing file is not complete.

    Raises:
        Corrupt: a list of files cannot be read. Unavailable: the store does not answer.
    """
    names = set(bucket.names(trial))
    for top in sorted({_top(name, trial) for name in names}, key=lambda top: (_rank(top), top), reverse=True):
        folder = f"{trial}/{top}"
        if not NAME.fullmatch(top) or f"{folder}/{LIST_FILE}" not in names:
            continue
        try:
            files = _list_of(bucket, folder)
        except FileNotFoundError:
            continue  # removed meanwhile: there is a newer snapshot now, or an equal one
        if all(f"{folder}/{name}" in names for name in files):
            attempt, step = _rank(top)
            return Snapshot(folder=folder, attempt=attempt, step=step, files=files)
    return None


def fetch_newest(bucket: Bucket, trial: str, folder: Path) -> Snapshot | None:
    """Creates a folder with the files of the newest complete snapshot. The folder stays empty if there is none.

    Raises:
        Corrupt: a file differs from its entry in the list. Unavailable: the store does not answer.
    """
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        snapshot = newest_snapshot(bucket, trial)
        if snapshot is None:
            return None
        try:
            for name, sha256 in snapshot.files.items():
                _fetch(bucket, f"{snapshot.folder}/{name}", folder / name, sha256)
        except FileNotFoundError:
            continue  # its writer is alive and has replaced it by a newer one
        return snapshot
    raise Unavailable(f"{bucket.uri}: the snapshots in {trial} are replaced faster than they can be read; end the trial's other worker")


def _fetch(bucket: Bucket, name: str, target: Path, sha256: str) -> None:
    bucket.download(name, target)
    if _sha256(target) != sha256:
        raise Corrupt(
            f"{bucket.uri}: {name} differs from its entry in {LIST_FILE}; remove its folder, and the trial continues from the snapshot "
            "before it, or from the start"
        )


def _list_of(bucket: Bucket, folder: str) -> dict[str, str]:
    """The list of files of a snapshot. The names become local paths, so none may lead out of the trial's folder."""
    try:
        files = json.loads(bucket.read(f"{folder}/{LIST_FILE}"))
        if not all(isinstance(sha256, str) and _stays_inside(name) for name, sha256 in files.items()):
            raise ValueError("a name leads out of the folder")
    except (ValueError, AttributeError) as error:
        raise Corrupt(f"{bucket.uri}: {folder}/{LIST_FILE} is not a list of files ({error}); remove {folder}") from None
    return dict(files)


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _is_kept(path: Path, folder: Path) -> bool:
    """Whether a file belongs to a snapshot. Locks are useless elsewhere, and files that begin with a dot are half-written."""
    parts = path.relative_to(folder).parts
    return path.is_file() and path.suffix != ".lock" and not any(part.startswith(".") for part in parts)


def _top(name: str, trial: str) -> str:
    return name.removeprefix(f"{trial}/").partition("/")[0]


def _rank(top: str) -> tuple[int, int]:
    """Attempt and step in a snapshot's name. Any other name ranks before all snapshots."""
    found = NAME.fullmatch(top)
    return (-1, -1) if found is None else (int(found[1]), int(found[2]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
