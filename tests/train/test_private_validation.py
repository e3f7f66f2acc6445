"""A trial whose validation people are private: one noised score at its end, and nothing before it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.config.scored_people import ScoredPeople
from dpcore.data.catalog import open_dataset
from dpcore.data.synthetic import synth
from dpcore.errors import BadInput, Refused
from dpcore.privacy.randomness import PrivateStreams, RandomStream, SweepKey
from dpcore.privacy.score_release import ScoreRelease
from dpcore.train.evaluator import unit_scores
from dpcore.train.reports import Report
from dpcore.train.trainer import run_trial

QUIET = ScoreRelease(noise_multiplier=1e-6, nominal_units=24)
LOUD = ScoreRelease(noise_multiplier=24.0, nominal_units=24)
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture(scope="module")
def private_places(train_places: Places) -> Places:
    synth(train_places.data_dir / "patients", "private", count=24, seed=9, role="PRIVATE", name="patients")
    return train_places


@pytest.fixture
def run(private_places: Places, make_config: MakeConfig, runtime: RuntimeFlags) -> Callable[..., list[Report]]:
    def reports(validation: ScoreRelease | None, *, method: str = "dpsgd", data: str = "patients", **given: Any) -> list[Report]:
        config = make_config(method, data__validation=data)
        given = {"key": SweepKey(bytes(32)), "trial_id": "t", "folder": None, **given}
        return list(run_trial(config, runtime, handed(config, places=private_places, validation=validation, **given)))

    return reports


def test_only_the_last_report_has_a_score_and_that_one_alone(run: Callable[..., list[Report]]) -> None:
    *before, last = run(QUIET)
    assert before
    assert not [name for report in before for name in report.metrics if name.startswith("val/")]
    assert [name for name in last.metrics if name.startswith("val/")] == ["val/pckh_50"]


def test_the_floor_is_a_release_like_any_other(run: Callable[..., list[Report]]) -> None:
    quiet, loud = (run(release, method="public_only")[-1].metrics["val/pckh_50"] for release in (QUIET, LOUD))
    assert 0 < quiet < 1
    assert abs(loud - quiet) > 1e-3


def test_the_noise_follows_trial_and_key_and_a_replay_has_it_again(run: Callable[..., list[Report]]) -> None:
    scores = [run(LOUD, **given)[-1].metrics["val/pckh_50"] for given in ({}, {}, {"trial_id": "other"}, {"key": SweepKey(b"k" * 32)})]
    assert scores[0] == scores[1]
    assert len(set(scores)) == 3


def test_the_score_has_a_stream_that_nothing_else_draws_from(run: Callable[..., list[Report]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    stream = PrivateStreams.stream

    def listening(self: PrivateStreams, name: str, step: int) -> RandomStream:
        asked.append((name, step))
        return stream(self, name, step)

    monkeypatch.setattr(PrivateStreams, "stream", listening)
    run(LOUD)
    assert asked[-1] == ("validation", 6)
    assert len(set(asked)) == len(asked) > 6


def test_scores_of_different_people_have_different_noise(run: Callable[..., list[Report]]) -> None:
    """The same trial under the same key, scored on either part: equal noise would reveal the difference of two sums."""
    noise = []
    for part in ("search", "verdict"):
        given = {"method": "public_only", "people": ScoredPeople(search_frac=0.5, part=part)}
        loud, quiet = (run(release, **given)[-1].metrics["val/pckh_50"] for release in (LOUD, QUIET))
        noise.append(loud - quiet)
    assert abs(noise[0] - noise[1]) > 1e-3


def test_private_people_are_not_scored_on_for_free(run: Callable[..., list[Report]]) -> None:
    with pytest.raises(Refused, match=r"data\.validation.*PRIVATE"):
        run(None)
    with pytest.raises(Refused, match="PRIVATE is needed"):
        run(QUIET, data="validation")
    with pytest.raises(BadInput, match="private score"):
        run(QUIET, method="public_only", key=None)


def test_a_unit_counts_once_however_many_examples_it_has(
    private_places: Places,
) -> None:
    dataset = open_dataset("patients", private_places)
    answers = torch.from_numpy(dataset.keypoints.copy())
    answers[:10] = 1e6
    units = np.array(["a"] * 20 + ["b", "c", "d", "e"])
    sure = torch.ones(answers.shape[:2])
    for metric in ("pckh_50", "pck_bbox_20", "pck_torso_20"):
        scores = unit_scores((answers, sure), dataset=dataset, units=units, metric=metric)
        assert ((scores >= 0) & (scores <= 1)).all()
        if metric != "pck_torso_20":  # a torso is not labelled on everybody
            np.testing.assert_allclose(scores, [0.5, 1, 1, 1, 1])
    with pytest.raises(BadInput, match="oks_ap is no mean over people"):
        unit_scores((answers, sure), dataset=dataset, units=units, metric="oks_ap")


def test_the_score_that_leaves_is_the_metric_that_was_asked_for(run: Callable[..., list[Report]]) -> None:
    asked = run(LOUD, metric="pck_bbox_20")
    assert [name for report in asked for name in report.metrics if name.startswith("val/")] == ["val/pck_bbox_20"]
