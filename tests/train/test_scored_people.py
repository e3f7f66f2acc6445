"""A trial is scored on the people that it is told to be scored on, and on nobody else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.config.scored_people import ScoredPeople
from dpcore.data.catalog import open_dataset
from dpcore.data.validation_parts import rows_of
from dpcore.errors import Refused
from dpcore.inference.reading import PoseReading
from dpcore.pose.metrics import METRICS, counts_of_people
from dpcore.privacy.randomness import SweepKey
from dpcore.train.evaluator import scored_of
from dpcore.train.predictions import cached_predictions
from dpcore.train.saved import load_model
from dpcore.train.trainer import run_trial

Make = Callable[..., TrialConfig]
SEARCH, VERDICT = (ScoredPeople(search_frac=0.5, part=part) for part in ("search", "verdict"))


@pytest.mark.parametrize("people", [SEARCH, VERDICT, None])
def test_the_score_is_that_of_the_saved_model_on_these_people_alone(
    people: ScoredPeople | None, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    config = make_config()
    handout = handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder, people=people)
    last = list(run_trial(config, runtime, handout))[-1]
    saved, dataset = load_model(trial_folder), open_dataset("validation", train_places)
    reading = PoseReading.of(saved.config.model, saved.config.evaluation, saved.skeleton)
    found = cached_predictions(saved.network, dataset, reading, config=saved.config, places=train_places)
    counts = counts_of_people(METRICS.get("pckh_50"), scored_of(found, dataset))
    assert counts is not None
    rows = np.arange(len(dataset)) if people is None else rows_of(dataset, people)
    hits, counted = counts[rows].sum(axis=0)
    assert last.metrics["val/pckh_50"] == pytest.approx(hits / counted, abs=1e-12)


def test_a_folder_goes_on_with_the_people_that_it_began_with(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    config = make_config()

    def run(people: ScoredPeople) -> list[float]:
        handout = handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder, people=people)
        return [report.metrics["val/pckh_50"] for report in run_trial(config, runtime, handout)]

    assert run(SEARCH) == run(SEARCH)
    with pytest.raises(Refused, match=r"another trial \(people: "):
        run(VERDICT)
