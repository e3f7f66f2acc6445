"""What Ray is told of a trial, and what comes back from it."""

import json
from pathlib import Path

import pytest
import spaces
from fake_trials import ENVELOPE

from dpcore.config import Places
from dpcore.errors import BadInput
from dpcore.privacy.score_release import ScoreRelease
from dpcore.train.attempts import Attempt
from dpcore.train.reports import Report
from sweeps.records.messages import Answer, Assignment, BucketPlace, TrialCrashed, trial_id_in, words_of_crash

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
def test_an_answer_comes_back_as_it_was_given_and_ray_sees_that_it_is_done_and_no_more(answer: Answer) -> None:
    result = json.loads(json.dumps({**answer.encode(ENVELOPE), "training_iteration": 3}))
    assert Answer.decode(result, ENVELOPE) == answer
    assert set(result) == {"done", "answer", "time_this_iter_s", "training_iteration"}
    assert result["time_this_iter_s"] == 0.0
    assert len(result["answer"]) == len(Answer(done=False).encode(ENVELOPE)["answer"])
    assert "ankle" not in str(result)


def test_a_result_that_is_not_there_says_nothing() -> None:
    assert Answer.decode(None, ENVELOPE) == Answer.decode({}, ENVELOPE) == Answer(done=False)


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
    config = json.loads(json.dumps(given.encode(ENVELOPE)))
    assert Assignment.decode(config, ENVELOPE) == given
    assert trial_id_in(config, ENVELOPE) == "e0.5-003"
    assert all(isinstance(value, str) for value in config.values())
    assert not [word for word in ("dpsgd", "e0.5", "store", "module") if word in str(config)]


def test_an_assignment_of_another_version_is_refused_by_its_key() -> None:
    with pytest.raises(BadInput, match="trial_id: missing"):
        Assignment.decode({"assignment": ENVELOPE.seal({})}, ENVELOPE)


def test_the_words_of_a_crash_are_read_off_rays_text_and_by_nobody_else() -> None:
    words = "ValueError: cannot read IMG_48213-maria.jpg"
    crash = TrialCrashed.of(words, ENVELOPE)
    text = f"ray::_Inner.train() (pid=7)\n  File trainable.py\nsweeps.records.messages.{type(crash).__name__}: {crash}\n"
    assert words_of_crash(text, ENVELOPE) == words
    assert "IMG" not in text
    assert words_of_crash("The actor died: Worker exit type: SYSTEM_ERROR", ENVELOPE) is None
