"""A trial's folder in a bucket: whole snapshots, of which the newest counts.

    NAME/checkpoints/TRIAL/000-000100-<digest>/     attempt, step that was reported last, digest of the list below
        trial.json, digests.jsonl, checkpoint-000100/...   the files of the trial's folder
        snapshot.json                                      their sizes and sha256; written last

A snapshot is never changed, and only what is older is removed after it is whole: a kill in mid-upload leaves the one before,
and a writer that comes late (cut off from its driver, while its trial was taken up elsewhere) cannot bring an old state back
over a newer one, nor take away a file that a newer one names. Two writers at the same step write two snapshots.

That their noise tells nothing is held one floor up: a worker uploads a state only after the driver has taken its report in
(`sweeps.storage.bucket_trial`), so that whoever takes the trial up knows the weights that it must reach again, or stops unheard.
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
    """A whole snapshot.

    Attributes:
        folder: its path in the bucket. attempt, step: of its trial, at the report that was delivered last.
        files: name to sha256.
    """

    folder: str
    attempt: int
    step: int
    files: Mapping[str, str]

    @property
    def checkpoint_step(self) -> int:
        """The steps behind its checkpoint, 0 without one."""
        tops = (PurePosixPath(name).parts[0] for name in self.files)
        return max((int(top.removeprefix(CHECKPOINT_PREFIX)) for top in tops if top.startswith(CHECKPOINT_PREFIX)), default=0)

    @property
    def is_finished(self) -> bool:
        """Whether its trial has come to its end."""
        return RESULT_FILE in self.files


def save_snapshot(bucket: Bucket, trial: str, folder: Path, *, attempt: int, step: int) -> None:
    """Uploads a trial's folder, then removes what is older.

    Args:
        bucket: where to.
        trial: the trial's path in it.
        folder: nobody may write there meanwhile.
        attempt, step: the report that the driver has taken in.
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
    """The newest whole snapshot of a trial, None before the first. One that lists a file which is not there is not whole.

    Raises:
        Corrupt: a list does not read. Unavailable: the store does not answer.
    """
    names = set(bucket.names(trial))
    for top in sorted({_top(name, trial) for name in names}, key=lambda top: (_rank(top), top), reverse=True):
        folder = f"{trial}/{top}"
        if not NAME.fullmatch(top) or f"{folder}/{LIST_FILE}" not in names:
            continue
        try:
            files = _list_of(bucket, folder)
        except FileNotFoundError:
            continue  # removed since: a newer one stands there now, or an equal one
        if all(f"{folder}/{name}" in names for name in files):
            attempt, step = _rank(top)
            return Snapshot(folder=folder, attempt=attempt, step=step, files=files)
    return None


def fetch_newest(bucket: Bucket, trial: str, folder: Path) -> Snapshot | None:
    """Makes a folder with the files of the newest whole snapshot, an empty one where there is none.

    Raises:
        Corrupt: a file is not what its list says. Unavailable: the store does not answer.
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
            continue  # its writer lives, and has put a newer one in its place
        return snapshot
    raise Unavailable(f"{bucket.uri}: the snapshots in {trial} are replaced faster than they can be read; end the trial's other worker")


def _fetch(bucket: Bucket, name: str, target: Path, sha256: str) -> None:
    bucket.download(name, target)
    if _sha256(target) != sha256:
        raise Corrupt(
            f"{bucket.uri}: {name} is not what its {LIST_FILE} says; remove its folder, and the trial goes on from the one before, or "
            "from the start"
        )


def _list_of(bucket: Bucket, folder: str) -> dict[str, str]:
    """The list of a snapshot. Its names become local paths, so none may lead out of the trial's folder."""
    try:
        files = json.loads(bucket.read(f"{folder}/{LIST_FILE}"))
        if not all(isinstance(sha256, str) and _stays_inside(name) for name, sha256 in files.items()):
            raise ValueError("a name leads out of the folder")
    except (ValueError, AttributeError) as error:
        raise Corrupt(f"{bucket.uri}: {folder}/{LIST_FILE} is no list of files ({error}); remove {folder}") from None
    return dict(files)


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _is_kept(path: Path, folder: Path) -> bool:
    """Locks mean nothing elsewhere; what begins with a dot is half written."""
    parts = path.relative_to(folder).parts
    return path.is_file() and path.suffix != ".lock" and not any(part.startswith(".") for part in parts)


def _top(name: str, trial: str) -> str:
    return name.removeprefix(f"{trial}/").partition("/")[0]


def _rank(top: str) -> tuple[int, int]:
    """Attempt and step in a snapshot's name; anything else stands before all of them."""
    found = NAME.fullmatch(top)
    return (-1, -1) if found is None else (int(found[1]), int(found[2]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
