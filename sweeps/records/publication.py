"""Publishes a sweep's results to the bucket and finds them again.

    NAME/spec.json  NAME/results/  NAME/report/     copies of what the driver wrote below its state
    NAME/checkpoints/TRIAL/                         snapshots of trials (`sweeps.storage.snapshots`), which exist nowhere else

Study, ledger, key, reports, spool and sealed files stay in the state. A resume runs the spec in the state. So someone who can write
to the bucket cannot change what a resume runs. The copy in the bucket names the state, and serves readers. If the storage is a folder,
every function here returns at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dpcore.data.folders import new_folder
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.train.attempts import IDENTITY_FILE, RESULT_FILE, newest_checkpoint_step
from sweeps.records.spec import SPEC_FILE, SweepSpec
from sweeps.storage.bucket import Bucket, check_uri, is_uri
from sweeps.storage.ray_folder import clear_leftover
from sweeps.storage.snapshots import fetch_newest, newest_snapshot

RESULTS, REPORT = "results", "report"


def load_spec(name: str, storage: str | Path, state: Path | None = None) -> SweepSpec:
    """The spec of an existing sweep in a folder or a bucket. What Ray left there under a driver that died is removed.

    Args:
        name: name of the sweep.
        storage: folder or URI.
        state: where its state is now. None means where it was when the sweep began.

    Raises:
        BadInput: there is no sweep of that name, or its state is missing.
        Unavailable: the bucket does not answer.
        Corrupt: spec.json is not a valid spec.
    """
    spec = _found_spec(name, storage, state)
    clear_leftover(spec.state_dir)
    return spec


def _found_spec(name: str, storage: str | Path, state: Path | None) -> SweepSpec:
    moved = None if state is None else Path(os.path.abspath(state))
    if not is_uri(storage):
        spec = SweepSpec.load(name, Path(storage))
        spec = spec if moved is None else spec.model_copy(update={"state": moved})
        if not spec.state_dir.is_dir():
            raise BadInput(f"the state of sweep {name} is not in {spec.state_dir.parent} (--state names the folder of its study and key)")
        return spec
    uri = check_uri(str(storage))
    spec = _published_spec(name, uri) if moved is None else _kept_spec(name, moved)
    if spec.bucket_uri != uri:
        raise BadInput(f"the sweep {name} in {spec.state} has its trials in {spec.storage}, not in {uri}")
    return spec


def _published_spec(name: str, uri: str) -> SweepSpec:
    """The spec in the state that the bucket's copy names. If the state is not on this machine, the copy itself."""
    try:
        spec = SweepSpec.parse(Bucket.open(uri).read(f"{name}/{SPEC_FILE}"), where=f"{uri}/{name}/{SPEC_FILE}")
    except FileNotFoundError:
        raise BadInput(
            f"no sweep {name} in {uri} (--storage names the bucket's URI; --state finds a sweep that was not published yet)"
        ) from None
    return _kept_spec(name, spec.storage_dir) if (spec.state_dir / SPEC_FILE).is_file() else spec


def _kept_spec(name: str, state: Path) -> SweepSpec:
    path = state / name / SPEC_FILE
    if not path.is_file():
        raise BadInput(f"no sweep {name} in {state} (--state names the folder of its study and key)")
    return SweepSpec.parse(path.read_bytes(), where=str(path)).model_copy(update={"state": state})


def require_state(spec: SweepSpec) -> SweepSpec:
    """Returns the spec if its study, ledger and key are on this machine.

    Raises:
        Unavailable: they are not.
    """
    if spec.bucket_uri is not None and not (spec.state_dir / SPEC_FILE).is_file():
        raise Unavailable(
            f"study, ledger and key of sweep {spec.name} are in {spec.state_dir}, which is not on this machine; run this command where it "
            "is, or name the folder with --state"
        )
    return spec


def is_published(spec: SweepSpec) -> bool:
    """Whether the bucket has a sweep of this name."""
    return spec.bucket_uri is not None and Bucket.open(spec.bucket_uri).exists(f"{spec.name}/{SPEC_FILE}")


def take_name(spec: SweepSpec) -> None:
    """Publishes the spec of a sweep that begins.

    Raises:
        Refused: the bucket already has a sweep of this name. Unavailable: the store does not answer.
    """
    if is_published(spec):
        raise Refused(f"{spec.storage} already has a sweep {spec.name} of another run; give another --name")
    publish(spec, SPEC_FILE)


def publish(spec: SweepSpec, *names: str) -> None:
    """Copies files and folders of the sweep into the bucket, each file completely or not at all.

    Raises:
        Unavailable: the store does not answer.
    """
    if spec.bucket_uri is None:
        return
    bucket = Bucket.open(spec.bucket_uri)
    for name in names:
        top = spec.sweep_dir / name
        for path in [top] if top.is_file() else sorted(path for path in top.rglob("[!.]*") if path.is_file()):
            bucket.upload(f"{spec.name}/{path.relative_to(spec.sweep_dir).as_posix()}", path)


def publish_meanwhile(spec: SweepSpec, say: Callable[[str], None]) -> None:
    """Publishes the results so far. If the store does not answer, it says so and continues; the end publishes them again."""
    try:
        publish(spec, RESULTS)
    except Unavailable as error:
        say(f"dpsweep: results are not published yet: {error}")


def withdraw(spec: SweepSpec) -> None:
    """Removes what was published of a sweep that did not begin. Files of another run with the same name stay."""
    if spec.bucket_uri is None:
        return
    bucket = Bucket.open(spec.bucket_uri)
    with suppress(FileNotFoundError):
        if bucket.read(f"{spec.name}/{SPEC_FILE}") == (spec.sweep_dir / SPEC_FILE).read_bytes():
            bucket.remove(spec.name)


def delete_published(spec: SweepSpec) -> None:
    """Removes all of a sweep from the bucket.

    Raises:
        Unavailable: the store does not answer.
    """
    if spec.bucket_uri is not None:
        Bucket.open(spec.bucket_uri).remove(spec.name)


@contextmanager
def results_at_hand(spec: SweepSpec) -> Iterator[Path]:
    """The sweep's folder with its results. If its state is on another machine, a copy from the bucket for the length of a block.

    Raises:
        Unavailable: the bucket does not answer.
    """
    if spec.bucket_uri is None or (spec.state_dir / SPEC_FILE).is_file():
        yield spec.sweep_dir
        return
    bucket = Bucket.open(spec.bucket_uri)
    with tempfile.TemporaryDirectory(prefix="dpsweep-") as folder:
        for name in bucket.names(f"{spec.name}/{RESULTS}"):
            bucket.download(name, Path(folder) / RESULTS / PurePosixPath(name).name)
        yield Path(folder)


def trial_at_hand(spec: SweepSpec, trial_id: str) -> Path:
    """A trial's folder on this machine, which may not exist. From a bucket it is fetched once, after the trial has ended.

    Raises:
        Corrupt: the bucket's content differs from what was written. Unavailable: it does not answer.
    """
    folder = spec.checkpoint_dir(trial_id)
    if spec.bucket_uri is not None and not folder.exists():
        bucket, trial = Bucket.open(spec.bucket_uri), spec.trial_in_bucket(trial_id)
        if newest_snapshot(bucket, trial) is not None:
            with new_folder(folder, private=True) as temporary:
                fetch_newest(bucket, trial, temporary)
    return folder


@contextmanager
def checkpoint_at_hand(checkpoint: str) -> Iterator[Path]:
    """The folder of a trial or its model. For `URI/NAME/checkpoints/TRIAL`, a copy for the length of a block.

    Raises:
        BadInput: no trial has a snapshot there.
        Corrupt, Unavailable: as `trial_at_hand`.
    """
    if not is_uri(checkpoint):
        yield Path(checkpoint)
        return
    base, question, query = check_uri(checkpoint).partition("?")
    parent, _, trial = base.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="dpsweep-") as folder:
        if fetch_newest(Bucket.open(parent + question + query), trial, Path(folder) / trial) is None:
            raise BadInput(f"{checkpoint}: no trial there; expected URI/NAME/checkpoints/TRIAL")
        yield Path(folder) / trial


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is stored of a trial.

    Attributes:
        is_begun: whether anything is stored.
        is_over: whether its result is stored.
        checkpoint_step: private steps at the checkpoint from which a new attempt continues; 0 without a checkpoint.
    """

    is_begun: bool
    is_over: bool
    checkpoint_step: int


def standing_of(spec: SweepSpec, trial_id: str) -> Standing:
    """How far a trial is, in the place where its next worker will read it.

    Raises:
        Unavailable: the bucket does not answer.
    """
    if spec.bucket_uri is None:
        folder = spec.checkpoint_dir(trial_id)
        begun, over = ((folder / name).exists() for name in (IDENTITY_FILE, RESULT_FILE))
        return Standing(is_begun=begun, is_over=over, checkpoint_step=newest_checkpoint_step(folder))
    newest = newest_snapshot(Bucket.open(spec.bucket_uri), spec.trial_in_bucket(trial_id))
    if newest is None:
        return Standing(is_begun=False, is_over=False, checkpoint_step=0)
    return Standing(is_begun=True, is_over=newest.is_finished, checkpoint_step=newest.checkpoint_step)
