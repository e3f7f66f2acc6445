"""What Ray is told of a trial, and what comes back from it."""

import json
from pathlib import Path

import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput
from dpcore.privacy.score_release import ScoreRelease
from dpcore.train.attempts import Attempt
from dpcore.train.reports import Report
from sweeps.records.messages import Answer, Assignment, BucketPlace, trial_id_in

REPORT = Report(step=7, done=True, metrics={"val/pckh_50": 0.1 + 0.2, "val/pckh_50/ankle": 1 / 3}, weights_digest="0f")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(done=False),
        Answer(done=True),
        Answer(done=True, report=REPORT),
        Answer(done=True, error="Diverged: the weights diverged"),
        Answer(done=True, error="OutOfMemory: too large", fault="out_of_memory", physical_batch_size=64),
        Answer(done=True, error="NotReplayable: other libraries", fault="not_replayable"),
    ],
)
def test_an_answer_comes_back_as_it_was_given_and_ray_sees_two_plain_values(answer: Answer) -> None:
    result = json.loads(json.dumps({**answer.encode(), "training_iteration": 3}))
    assert Answer.decode(result) == answer
    assert set(answer.encode()) <= {"done", "answer"}
    assert all(isinstance(value, bool | str) for value in answer.encode().values())


def test_a_result_that_is_not_there_says_nothing() -> None:
    assert Answer.decode(None) == Answer.decode({}) == Answer(done=False)


def test_an_assignment_comes_back_as_it_was_given(tmp_path: Path) -> None:
    given = Assignment(
        trial_id="e0.5-003",
        attempt=Attempt(number=2, from_step=40, physical_batch_size=16),
        config=spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1}),
        folder=tmp_path / "e0.5-003",
        bucket=BucketPlace(uri="s3://b", trial="s/checkpoints/e0.5-003"),
        sealed=True,
        validation=ScoreRelease(noise_multiplier=7.25, nominal_units=500),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        function="module:function",
        expected={10: "aa", 20: "bb"},
    )
    config = json.loads(json.dumps(given.encode()))
    assert Assignment.decode(config) == given
    assert trial_id_in(config) == "e0.5-003"
    assert all(isinstance(value, str) for value in config.values())


def test_an_assignment_of_another_version_is_refused_by_its_key() -> None:
    with pytest.raises(BadInput, match="trial_id: missing"):
        Assignment.decode({"assignment": "{}"})
