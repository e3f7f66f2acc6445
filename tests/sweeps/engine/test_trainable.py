"""The worker's side of a trial, without a Ray around it."""

import pickle
import traceback
from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces
from fake_trials import ENVELOPE

from dpcore.config import Places
from dpcore.errors import Unavailable
from dpcore.privacy.randomness import SweepKey
from sweeps.engine.searcher import assignment
from sweeps.engine.trainable import TrialTrainable, wait_for_lock
from sweeps.records.messages import Answer, TrialCrashed, words_of_crash
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import SweepSpec


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store", trial_function="fake_trials:run_trial")


def record_of(spec: SweepSpec, *digests: str) -> TrialRecord:
    """A trial of which reports with these digests have come in at steps 1, 2, ..."""
    config = spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    record = TrialRecord(trial_id="e0.5-000", role="search", number=0, epsilon=0.5, config=config)
    for step, digest in enumerate(digests, start=1):
        record = record.with_point(CurvePoint(step, {"val/pckh_50": 0.1}, digest))
    return record


def begin(spec: SweepSpec, record: TrialRecord) -> TrialTrainable:
    """A worker with a trial."""
    worker = object.__new__(TrialTrainable)
    config = assignment(spec, record, folder=spec.checkpoint_dir(record.trial_id), validation=None).encode(ENVELOPE)
    worker.setup(config, key=SweepKey.fresh(), envelope=ENVELOPE, runtime=spec.runtime.model_dump(mode="json"))
    return worker


def steps_of(spec: SweepSpec, record: TrialRecord) -> list[Answer]:
    """The answers of a worker up to its last."""
    worker = begin(spec, record)
    answers = [Answer.decode(worker.step(), ENVELOPE)]
    while not answers[-1].done:
        answers.append(Answer.decode(worker.step(), ENVELOPE))
    worker.cleanup()
    return answers


def test_a_retry_that_repeats_its_reports_goes_on(spec: SweepSpec) -> None:
    results = steps_of(spec, record_of(spec, "e0.5-000-1", "e0.5-000-2"))
    assert [answer.report.step for answer in results] == [1, 2, 3]


def test_a_retry_with_other_weights_is_stopped_before_its_report_leaves_the_worker(spec: SweepSpec) -> None:
    results = steps_of(spec, record_of(spec, "e0.5-000-1", "other"))
    assert len(results) == 2
    assert results[-1].report is None
    assert results[-1].fault == "not_replayable"
    assert results[-1].error.startswith("NotReplayable: trial e0.5-000: a retry reached other weights at step 2")


@pytest.mark.parametrize(
    ("number", "answer"),
    [("000", ("out_of_memory", 64)), ("001", ("disk_full", None)), ("002", (None, None)), ("003", ("not_replayable", None))],
)
def test_a_fault_is_an_answer_that_says_how_the_trial_can_go_on(
    spec: SweepSpec, number: str, answer: tuple[str | None, int | None]
) -> None:
    faulty = spec.model_copy(update={"trial_function": "fake_trials:faulty_trial"})
    result = steps_of(faulty, replace(record_of(faulty), trial_id=f"e0.5-{number}"))[-1]
    assert (result.fault, result.physical_batch_size) == answer
    assert result.error.startswith({"000": "OutOfMemory: ", "001": "DiskFull: ", "002": "Diverged: "}.get(number, "NotReplayable: "))


def test_a_trial_that_is_stopped_in_mid_way_frees_its_folder_before_the_worker_begins_another(spec: SweepSpec) -> None:
    locked = spec.model_copy(update={"trial_function": "fake_trials:locked_trial"})
    worker, folder = begin(locked, record_of(spec)), spec.checkpoint_dir("e0.5-000")
    worker.step()
    with pytest.raises(Unavailable, match="held by another process"):
        wait_for_lock(folder, within_s=0.0)
    following = replace(record_of(spec), trial_id="e0.5-001")
    assert worker.reset_config(assignment(locked, following, folder=spec.checkpoint_dir("e0.5-001"), validation=None).encode(ENVELOPE))
    wait_for_lock(folder, within_s=0.0)
    assert Answer.decode(worker.step(), ENVELOPE).report.weights_digest == "e0.5-001-1"
    worker.cleanup()


def test_what_a_trial_function_raises_reaches_ray_without_its_words(spec: SweepSpec) -> None:
    worker = begin(spec.model_copy(update={"trial_function": "fake_trials:crashing_trial"}), record_of(spec))
    with pytest.raises(TrialCrashed) as caught:
        worker.step()
    error: BaseException | None = caught.value
    assert error is not None
    assert (error.__cause__, error.__context__) == (None, None)
    shown = "".join(traceback.format_exception(error)) + repr(pickle.dumps(error))
    assert fake_trials.QUOTED not in shown
    assert words_of_crash(shown, ENVELOPE) == f"ValueError: cannot read {fake_trials.QUOTED}"
