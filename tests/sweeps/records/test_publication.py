"""A sweep on a bucket: what is published, how it is found again, what is refused, and that the key never goes there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_trials
import pytest
import spaces
from object_store import open_bucket

from dpcore.config import Places, parse_config
from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.engine.driver import resume_sweep, run_sweep
from sweeps.ledger.ledger import Ledger
from sweeps.records.export import Origin, best_trial
from sweeps.records.publication import Standing, load_spec, require_state, results_at_hand, standing_of, take_name, trial_at_hand, withdraw
from sweeps.records.results import read_results
from sweeps.records.spec import SweepSpec
from sweeps.storage.bucket import Bucket
from sweeps.storage.snapshots import save_snapshot

pytestmark = pytest.mark.timeout(1200)  # sweeps on a Ray of their own

HERE = Path(__file__).parents[1]
SELECTION = {"accounting": "private_selection", "selection": {"mean_trials": 3, "shape": 1}, "trials_per_epsilon": None}
SWEEP = """
import sys
import fake_trials
from pathlib import Path
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
run_sweep(SweepSpec.model_validate_json(Path(sys.argv[1]).read_text()), fake_trials.surroundings())
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep of 17 fake trials whose storage is a bucket."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    return SweepSpec(
        name="s",
        space=spaces.space(),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=f"fsspec+local://{tmp_path / 'bucket'}",
        state=tmp_path / "state",
        trial_function="fake_trials:run_trial",
        max_concurrent=2,
    )


def objects(spec: SweepSpec) -> dict[str, bytes]:
    """All that lies in the bucket."""
    bucket = Bucket.open(str(spec.bucket_uri))
    return {name: bucket.read(name) for name in bucket.names()}


@pytest.fixture
def on_s3(spec: SweepSpec, tmp_path: Path) -> Iterator[SweepSpec]:
    """The same sweep on an S3 server."""
    with open_bucket("s3", tmp_path) as bucket:
        yield parse_config(SweepSpec, {**spec.model_dump(by_alias=True), "storage": bucket.uri})


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")  # ray leaves its log files and sockets to the end of the process
def test_a_sweep_on_a_bucket_is_published_whole_and_its_key_stays_in_the_state(on_s3: SweepSpec, tmp_path: Path) -> None:
    spec = on_s3
    results = run_sweep(spec, fake_trials.surroundings())
    assert {record.state for record in results.records} == {"done"}
    held = objects(spec)
    tops = {name.split("/")[1] for name in held}
    assert tops == {"spec.json", "results", "checkpoints"}
    assert {name.split("/")[2] for name in held if "/checkpoints/" in name} == {record.trial_id for record in results.records}
    key = (spec.state_dir / "sweep.key").read_text().strip()
    assert not [name for name, content in held.items() if key.encode() in content or bytes.fromhex(key) in content]
    assert not (spec.state_dir / "checkpoints").exists()
    assert len([line for line in Ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}").lines() if line.kind == "reserve"]) == 12
    with results_at_hand(load_spec("s", str(spec.storage))) as folder:
        assert read_results(folder) == results
    winner = best_trial(results, 0.5)
    assert (trial_at_hand(spec, winner.trial_id) / "reports.json").is_file()
    with pytest.raises(Refused, match="dpsweep resume s"):
        run_sweep(spec.model_copy(update={"state": tmp_path / "another"}), fake_trials.surroundings())


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")
def test_a_killed_driver_is_resumed_from_the_bucket_to_the_exact_plan(spec: SweepSpec, tmp_path: Path) -> None:
    space = spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 3})
    slow = spec.model_copy(update={"space": space, "trial_function": "fake_trials:slow_trial", "cpus_per_trial": 0.5})
    path = tmp_path / "spec.json"
    path.write_text(slow.model_dump_json(by_alias=True))
    driver = subprocess.Popen([sys.executable, "-c", SWEEP, str(path)], start_new_session=True)
    end = time.monotonic() + 500
    while time.monotonic() < end and (not slow.reports_path.is_file() or slow.reports_path.read_text().count("\n") < 7):
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    begun = load_spec("s", str(slow.storage))
    assert begun == slow.model_copy(update={"versions": begun.versions})  # which the driver wrote down
    begun.model_copy(update={"trial_function": "fake_trials:run_trial"}).save()  # the spec in the state is the one that counts
    results = resume_sweep("s", str(slow.storage), fake_trials.surroundings())
    assert len(results.records) == results.planned
    assert {record.state for record in results.records} == {"done"}
    assert {tuple(point.step for point in record.curve) for record in results.records} == {(1, 2, 3)}
    lines = Ledger(slow.resolved_ledger_url).lines()
    private = sum(record.config.spends_privacy for record in results.records)
    assert [sum(line.kind == kind for line in lines) for kind in ("reserve", "settle")] == [private, private]


def test_a_sweep_that_does_not_begin_leaves_nothing_in_the_bucket(spec: SweepSpec) -> None:
    with pytest.raises(Unavailable, match="no Ray answers"):
        run_sweep(spec.model_copy(update={"address": "127.0.0.1:1"}), fake_trials.surroundings())
    assert objects(spec) == {}


def test_a_name_that_another_run_took_meanwhile_is_refused_and_left_to_it(spec: SweepSpec, tmp_path: Path) -> None:
    others = published(spec.model_copy(update={"state": tmp_path / "other"}))
    spec.save()
    with pytest.raises(Refused, match="of another run"):
        take_name(spec)
    withdraw(spec)
    assert list(objects(spec)) == ["s/spec.json"]
    withdraw(others)
    assert objects(spec) == {}


def test_a_sweep_that_was_killed_before_it_was_published_is_found_by_its_state(spec: SweepSpec) -> None:
    spec.save()
    with pytest.raises(BadInput, match="--state finds"):
        load_spec("s", str(spec.storage))
    assert load_spec("s", str(spec.storage), spec.state) == spec


def published(spec: SweepSpec) -> SweepSpec:
    """A sweep that has begun, as far as its files tell."""
    spec.save()
    Bucket.open(str(spec.bucket_uri)).write("s/spec.json", (spec.sweep_dir / "spec.json").read_bytes())
    return spec


def test_a_sweep_is_found_by_its_uri_wherever_its_state_lies_now(spec: SweepSpec, tmp_path: Path) -> None:
    assert load_spec("s", str(published(spec).storage)) == spec
    (tmp_path / "state").rename(tmp_path / "moved")
    elsewhere = load_spec("s", str(spec.storage))
    with pytest.raises(Unavailable, match="--state"):
        require_state(elsewhere)
    moved = require_state(load_spec("s", str(spec.storage), tmp_path / "moved"))
    assert moved.state_dir == tmp_path / "moved" / "s"
    with pytest.raises(BadInput, match="--state"):
        load_spec("s", str(spec.storage), tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no sweep t in"):
        load_spec("t", str(spec.storage))


def test_the_spec_in_the_state_counts_and_not_what_somebody_put_into_the_bucket(spec: SweepSpec) -> None:
    forged = published(spec).model_copy(update={"trial_function": "somebody.elses:code"})
    Bucket.open(str(spec.bucket_uri)).write("s/spec.json", forged.model_dump_json(by_alias=True).encode())
    assert load_spec("s", str(spec.storage)).trial_function == spec.trial_function


def test_a_state_that_belongs_to_another_bucket_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    published(spec)
    with pytest.raises(BadInput, match="has its trials in"):
        load_spec("s", f"file://{tmp_path / 'other'}", tmp_path / "state")


def test_a_moved_state_of_a_folder_storage_is_found_too(tmp_path: Path, spec: SweepSpec) -> None:
    plain = parse_config(SweepSpec, {**spec.model_dump(by_alias=True), "storage": tmp_path / "store"})
    plain.save()
    (tmp_path / "moved" / "s").mkdir(parents=True)
    assert load_spec("s", tmp_path / "store", tmp_path / "moved").state_dir == tmp_path / "moved" / "s"
    with pytest.raises(BadInput, match="--state names"):
        load_spec("s", tmp_path / "store", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, "give --state DIR"),
        ({"ledger_url": "postgresql://me:hunter2@db/ledger"}, "pgpass"),
        ({"storage": "s3://AKIA:hunter2@lab/sweeps"}, "environment"),
        ({"references": {"ceiling": "non_private"}}, "sealed ceiling"),
        ({"sweep": SELECTION}, "private selection"),
    ],
)
def test_what_a_bucket_cannot_hold_is_refused(spec: SweepSpec, changes: dict[str, object], message: str) -> None:
    sections = {name: changes.pop(name) for name in ("sweep", "references") if name in changes}
    document = {**spec.model_dump(by_alias=True), "space": spaces.space(**sections), **changes}
    with pytest.raises(BadInput, match=message) as refusal:
        parse_config(SweepSpec, document)
    assert "hunter2" not in str(refusal.value)


def test_a_trial_without_a_snapshot_has_not_begun(spec: SweepSpec) -> None:
    standing = standing_of(spec, "e0.5-000")
    assert (standing.is_begun, standing.is_over, standing.checkpoint_step) == (False, False, 0)
    assert not trial_at_hand(spec, "e0.5-000").exists()


def test_a_new_attempt_goes_on_from_the_checkpoint_of_the_newest_snapshot(spec: SweepSpec, tmp_path: Path) -> None:
    trial, bucket = spec.trial_in_bucket("e0.5-000"), Bucket.open(str(spec.bucket_uri))
    (tmp_path / "trial" / "checkpoint-000004").mkdir(parents=True)
    (tmp_path / "trial" / "checkpoint-000004" / "state").touch()
    save_snapshot(bucket, trial, tmp_path / "trial", attempt=0, step=5)
    assert standing_of(spec, "e0.5-000") == Standing(is_begun=True, is_over=False, checkpoint_step=4)
    shutil.rmtree(tmp_path / "trial" / "checkpoint-000004")
    (tmp_path / "trial" / "result.json").write_text("{}")
    save_snapshot(bucket, trial, tmp_path / "trial", attempt=0, step=6)
    assert standing_of(spec, "e0.5-000").is_over


def test_an_origin_is_a_folder_or_a_uri() -> None:
    origin = {"sweep": "s", "trial_id": "t", "fingerprint": "f"}
    assert parse_config(Origin, {**origin, "storage": "s3://lab/sweeps"}).storage == "s3://lab/sweeps"
    assert parse_config(Origin, {**origin, "storage": "/lab/sweeps"}).storage == Path("/lab/sweeps")
