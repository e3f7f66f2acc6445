"""A trial whose folder lies in a bucket: what is uploaded when, and who goes on where another node left off."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spaces
from fake_trials import ENVELOPE

from dpcore.config import Places, RuntimeFlags, parse_config
from dpcore.data.synthetic import synth
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.randomness import SweepKey
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps.engine.searcher import assignment
from sweeps.engine.trainable import TrialTrainable
from sweeps.records.messages import Answer, TrialCrashed, words_of_crash
from sweeps.records.publication import trial_at_hand
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import RUN_TRIAL, SweepSpec
from sweeps.storage import bucket_trial
from sweeps.storage.bucket import Bucket
from sweeps.storage.bucket_trial import open_bucket_trial
from sweeps.storage.snapshots import Snapshot, newest_snapshot

TRIAL_ID = "e0.5-000"
STEPS = 4


def checkpointing_trial(config: Any, runtime: Any, handout: Handout) -> Iterator[Report]:
    """Four reports; a checkpoint at the second and third, before the report leaves. Remembers where it began."""
    folder = handout.folder
    found = sorted(folder.glob("checkpoint-*"))
    begun = int(found[-1].name.removeprefix("checkpoint-")) if found else 0
    (folder / "begun.txt").write_text(str(begun))
    for step in range(1, STEPS + 1):
        if step in (2, 3) and step > begun:
            (folder / f"checkpoint-{step:06d}").mkdir()
            (folder / f"checkpoint-{step:06d}" / "state").write_text(f"weights {step}")
            for older in folder.glob("checkpoint-*"):
                if older.name < f"checkpoint-{step:06d}":
                    shutil.rmtree(older)
        if step == STEPS:
            (folder / "result.json").write_text("{}")
        yield Report(step=step, done=step == STEPS, metrics={"val/pckh_50": 0.1}, weights_digest=f"{handout.trial_id}-{step}")


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(
        name="s",
        space=spaces.space(),
        places=places,
        storage=f"fsspec+local://{tmp_path / 'bucket'}",
        state=tmp_path / "state",
        trial_function=f"{__name__}:checkpointing_trial",
    )


KEY = SweepKey(bytes(range(32)))


def worker_of(spec: SweepSpec, *digests: str, cache: Path | None = None) -> TrialTrainable:
    """A worker that is handed the trial of which reports with these digests have come in; `cache`: of another node."""
    config = spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    plan = plan_privacy(config, spec.places.cache_dir) if spec.trial_function == RUN_TRIAL else None
    record = TrialRecord(trial_id=TRIAL_ID, role="search", number=0, epsilon=0.5, config=config, plan=plan)
    for step, digest in enumerate(digests, start=1):
        record = record.with_point(CurvePoint(step, {"val/pckh_50": 0.1}, digest))
    trial = assignment(spec, record, folder=spec.checkpoint_dir(TRIAL_ID), validation=None)
    if cache is not None:
        trial = trial.model_copy(update={"places": trial.places.model_copy(update={"cache_dir": cache})})
    worker = object.__new__(TrialTrainable)
    worker.setup(trial.encode(ENVELOPE), key=KEY, envelope=ENVELOPE, runtime=spec.runtime.model_dump(mode="json"))
    return worker


def report_of(worker: TrialTrainable) -> Report:
    """The next report of a worker."""
    report = Answer.decode(worker.step(), ENVELOPE).report
    assert report is not None
    return report


def newest(spec: SweepSpec) -> Snapshot | None:
    return newest_snapshot(Bucket.open(str(spec.bucket_uri)), spec.trial_in_bucket(TRIAL_ID))


def at(spec: SweepSpec) -> tuple[int, int] | None:
    """Report and checkpoint of what the bucket holds."""
    found = newest(spec)
    return None if found is None else (found.step, found.checkpoint_step)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_a_state_is_uploaded_only_after_its_report_was_taken_in(spec: SweepSpec) -> None:
    worker = worker_of(spec)
    held = []
    for step in range(1, STEPS + 1):
        assert report_of(worker).step == step
        held.append(at(spec))
    assert held == [None, None, (2, 2), (3, 3)]
    assert Answer.decode(worker.step(), ENVELOPE) == Answer(done=True)
    finished = newest(spec)
    assert finished is not None
    assert (finished.step, finished.is_finished) == (STEPS, True)
    worker.cleanup()


def test_a_worker_that_nobody_asks_again_uploads_nothing(spec: SweepSpec) -> None:
    worker = worker_of(spec)
    worker.step()
    worker.step()
    worker.cleanup()
    assert at(spec) is None


def test_another_node_goes_on_from_the_uploaded_checkpoint(spec: SweepSpec, tmp_path: Path) -> None:
    cut_off = worker_of(spec)
    for _ in range(3):
        cut_off.step()
    other = worker_of(spec, f"{TRIAL_ID}-1", f"{TRIAL_ID}-2", f"{TRIAL_ID}-3", cache=tmp_path / "node-2")
    assert report_of(other).step == 1
    (begun,) = (tmp_path / "node-2").rglob("begun.txt")
    assert begun.read_text() == "2"
    while not other.step()["done"]:
        pass
    finished = newest(spec)
    assert finished is not None
    assert finished.is_finished
    cut_off.step()  # it comes to itself and is asked after all: a late writer
    assert newest(spec) == finished
    other.cleanup()
    cut_off.cleanup()


def test_other_weights_than_were_told_before_never_reach_the_bucket(spec: SweepSpec, tmp_path: Path) -> None:
    worker = worker_of(spec, f"{TRIAL_ID}-1", "other")
    assert report_of(worker).step == 1
    assert Answer.decode(worker.step(), ENVELOPE).fault == "not_replayable"
    worker.cleanup()
    assert at(spec) is None


def test_the_scratch_copy_is_removed_at_the_end_and_that_of_a_dead_worker_by_the_next(spec: SweepSpec) -> None:
    scratch = spec.places.cache_dir / bucket_trial.SCRATCH_KIND
    abandoned = scratch / "e2-001-xyz"
    abandoned.mkdir(parents=True)
    (abandoned / bucket_trial.LOCK_FILE).touch()
    (abandoned / "weights").write_text("of a trial that was killed")
    worker, beside = worker_of(spec), worker_of(spec)
    worker.step()
    beside.step()
    folders = [path for path in scratch.iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert abandoned not in folders
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    worker.cleanup()
    beside.cleanup()
    assert not [path for path in scratch.iterdir() if path.is_dir()]


def test_a_store_that_does_not_answer_is_a_crash_that_may_be_tried_again(spec: SweepSpec, tmp_path: Path) -> None:
    worker = worker_of(spec)
    worker.step()
    worker.step()
    (tmp_path / "bucket").write_text("no folder")
    with pytest.raises(TrialCrashed) as crash:
        worker.step()
    assert "Unavailable" in (words_of_crash(f"TrialCrashed: {crash.value}", ENVELOPE) or "")
    worker.cleanup()


def test_a_folder_storage_takes_no_copy(spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SweepSpec.model_validate({**spec.model_dump(by_alias=True), "storage": tmp_path / "store", "state": None})
    monkeypatch.setattr(bucket_trial, "open_bucket_trial", lambda *given, **named: pytest.fail("a copy was made"))
    plain.checkpoint_dir(TRIAL_ID).mkdir(parents=True)
    worker = worker_of(plain)
    results = [worker.step() for _ in range(STEPS)]
    assert [result["done"] for result in results] == [False, False, False, True]
    assert (plain.checkpoint_dir(TRIAL_ID) / "result.json").exists()
    assert not plain.places.cache_dir.exists()
    worker.cleanup()


def test_a_fresh_folder_is_open_to_its_trial_alone(spec: SweepSpec) -> None:
    place = {"uri": spec.bucket_uri, "trial": spec.trial_in_bucket(TRIAL_ID)}
    with open_bucket_trial(place, scratch=spec.places.cache_dir, attempt=0) as trial:
        assert list(trial.folder.iterdir()) == []
        assert trial.folder.stat().st_mode & 0o777 == 0o700
    assert not trial.folder.exists()


REAL_TRIAL: dict[str, Any] = {
    "data": {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 64},
    "model": {"freeze": "backbone"},
    "stages": {"public": {"steps": 4, "batch_size": 16}, "private": {"steps": 6, "expected_batch_size": 16}},
}


@pytest.fixture
def real(spec: SweepSpec) -> SweepSpec:
    """The real trainer over 64 people: six steps, a report each, a checkpoint every other."""
    for name, domain, count, seed, role in (
        ("public", "public", 48, 1, "PUBLIC"),
        ("private", "private", 64, 2, "PRIVATE"),
        ("validation", "private", 24, 3, "PUBLIC"),
    ):
        synth(spec.places.data_dir / name, domain, count=count, seed=seed, role=role, name=name)  # type: ignore[arg-type]
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.01, 1.0]}}
    sections = {
        "trial": REAL_TRIAL,
        "search": search,
        "splits": {},
        "sweep": {"delta": 1e-3},
        "references": {"floor": False, "control": False},
    }
    runtime = RuntimeFlags(physical_batch_size=16, report_every_steps=1, checkpoint_every_steps=2)
    return spec.model_copy(update={"space": spaces.space(**sections), "runtime": runtime, "trial_function": RUN_TRIAL})


def digests_to_the_end(worker: TrialTrainable) -> list[str]:
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    worker.cleanup()
    return [report.weights_digest for result in results if (report := Answer.decode(result, ENVELOPE).report) is not None]


def test_a_trial_whose_node_is_lost_ends_elsewhere_with_the_very_same_weights(real: SweepSpec, tmp_path: Path) -> None:
    undisturbed = parse_config(SweepSpec, {**real.model_dump(by_alias=True), "storage": tmp_path / "store", "state": None})
    undisturbed.checkpoint_dir(TRIAL_ID).mkdir(parents=True)
    whole = digests_to_the_end(worker_of(undisturbed))
    lost = worker_of(real)
    told = [report_of(lost).weights_digest for _ in range(4)]
    assert at(real) == (2, 2)  # the checkpoint of the fourth report, which is on its way, is not in the bucket
    assert digests_to_the_end(worker_of(real, *told, cache=tmp_path / "node-2" / "cache")) == whole
    weights = trial_at_hand(real, TRIAL_ID) / "model" / "model.safetensors"
    assert weights.read_bytes() == (undisturbed.checkpoint_dir(TRIAL_ID) / "model" / "model.safetensors").read_bytes()
    lost.cleanup()
