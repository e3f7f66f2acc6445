"""A trial's folder in a bucket: the newest whole snapshot counts, whoever is killed while writing and whoever comes late."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import open_bucket

from dpcore.errors import Corrupt, Unavailable
from sweeps.storage import snapshots
from sweeps.storage.bucket import Bucket
from sweeps.storage.snapshots import LIST_FILE, fetch_newest, newest_snapshot, save_snapshot

TRIAL = "s/checkpoints/e0.5-000"
DYING = """
import os, signal, sys
from pathlib import Path
from sweeps.storage.bucket import Bucket
from sweeps.storage.snapshots import save_snapshot

class DyingBucket(Bucket):
    left = int(sys.argv[4])

    def _written(self, name):
        if self.left == 0:
            with super()._written(name) as path, self._fs.open_output_stream(path) as file:
                file.write(b"ha")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super()._written(name)

save_snapshot(DyingBucket.open(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), attempt=0, step=4)
"""
"""Killed in the middle of a file, after some files; the last is the list itself."""


@pytest.fixture(params=["file", "fsspec+local", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with open_bucket(request.param, tmp_path / "bucket") as opened:
        yield opened


def trial_folder(tmp_path: Path, *, step: int, weights: str) -> Path:
    """What a trial keeps after a checkpoint."""
    folder = tmp_path / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = folder / f"checkpoint-{step:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.safetensors").write_text(weights)
    (checkpoint / "meta.json").write_text(f'{{"step": {step}}}')
    (folder / "trial.json").write_text("{}")
    (folder / "trial.lock").touch()
    (folder / ".trial.json.7.tmp").write_text("half")
    return folder


def weights_of(bucket: Bucket, tmp_path: Path) -> str:
    """The weights that a worker elsewhere would go on from."""
    fetch_newest(bucket, TRIAL, tmp_path / "elsewhere")
    (state,) = (tmp_path / "elsewhere").glob("checkpoint-*/state.safetensors")
    return state.read_text()


def test_a_trial_is_fetched_as_it_was_saved_without_locks_and_halves(bucket: Bucket, tmp_path: Path) -> None:
    assert newest_snapshot(bucket, TRIAL) is None
    assert fetch_newest(bucket, TRIAL, tmp_path / "elsewhere") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)
    snapshot = fetch_newest(bucket, TRIAL, tmp_path / "elsewhere")
    assert snapshot is not None
    assert (snapshot.attempt, snapshot.step, snapshot.checkpoint_step, snapshot.is_finished) == (0, 2, 2, False)
    kept = {path.relative_to(tmp_path / "elsewhere").as_posix() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()}
    assert kept == {"trial.json", "checkpoint-000002/state.safetensors", "checkpoint-000002/meta.json"}


def test_a_newer_snapshot_takes_the_place_of_the_older(bucket: Bucket, tmp_path: Path) -> None:
    for step in (2, 4, 10):
        save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=step, weights=f"w{step}"), attempt=0, step=step)
    assert weights_of(bucket, tmp_path) == "w10"
    assert len({name.removeprefix(f"{TRIAL}/").partition("/")[0] for name in bucket.names(TRIAL)}) == 1


def test_a_late_writer_brings_no_old_state_back_and_takes_nothing_away(bucket: Bucket, tmp_path: Path) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=4, weights="elsewhere"), attempt=0, step=4)
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="late"), attempt=0, step=2)
    assert weights_of(bucket, tmp_path) == "elsewhere"
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="new attempt"), attempt=1, step=2)
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=6, weights="late again"), attempt=0, step=6)
    assert weights_of(bucket, tmp_path) == "new attempt"


def test_two_writers_at_one_step_leave_two_whole_snapshots(bucket: Bucket, tmp_path: Path) -> None:
    for weights in ("one", "other"):
        save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights=weights), attempt=0, step=2)
    assert weights_of(bucket, tmp_path) in ("one", "other")


@pytest.mark.parametrize("files", [0, 1, 2, 3])
def test_a_kill_between_any_two_files_leaves_the_state_before(bucket: Bucket, tmp_path: Path, files: int) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)
    newer = trial_folder(tmp_path, step=4, weights="w4")
    done = subprocess.run([sys.executable, "-c", DYING, bucket.uri, TRIAL, str(newer), str(files)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert weights_of(bucket, tmp_path) == "w2"
    save_snapshot(bucket, TRIAL, newer, attempt=0, step=4)
    assert weights_of(bucket, tmp_path) == "w4"


def test_a_snapshot_without_one_of_its_files_does_not_count(bucket: Bucket, tmp_path: Path) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)
    newest = newest_snapshot(bucket, TRIAL)
    assert newest is not None
    bucket.write(f"{TRIAL}/000-000004-{'0' * 16}/{LIST_FILE}", json.dumps({"trial.json": "0" * 64}).encode())
    assert newest_snapshot(bucket, TRIAL) == newest


def test_a_file_that_was_changed_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)
    newest = newest_snapshot(bucket, TRIAL)
    assert newest is not None
    bucket.write(f"{newest.folder}/checkpoint-000002/state.safetensors", b"other")
    with pytest.raises(Corrupt, match="differs from its entry in snapshot"):
        fetch_newest(bucket, TRIAL, tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", ""])
def test_a_list_that_leads_out_of_the_folder_is_refused(bucket: Bucket, tmp_path: Path, name: str) -> None:
    bucket.write(f"{TRIAL}/000-000004-{'0' * 16}/{LIST_FILE}", json.dumps({name: "0" * 64}).encode())
    with pytest.raises(Corrupt, match="leads out"):
        fetch_newest(bucket, TRIAL, tmp_path / "elsewhere")


def test_a_snapshot_that_is_replaced_while_it_is_read_is_read_anew(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)
    fetch = snapshots._fetch

    def overtaken(*given: object) -> None:
        monkeypatch.setattr(snapshots, "_fetch", fetch)
        save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=4, weights="w4"), attempt=0, step=4)
        fetch(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshots, "_fetch", overtaken)
    assert weights_of(bucket, tmp_path) == "w4"


def test_a_snapshot_that_vanishes_again_and_again_is_an_error(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_snapshot(bucket, TRIAL, trial_folder(tmp_path, step=2, weights="w2"), attempt=0, step=2)

    def gone(*given: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(snapshots, "_fetch", gone)
    with pytest.raises(Unavailable, match="replaced faster"):
        fetch_newest(bucket, TRIAL, tmp_path / "elsewhere")
