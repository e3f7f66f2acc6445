"""Predictions over several views: the same in training and afterwards, made once, and kept as private as the people are."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from planned_trials import handed

from dpcore.config import EvaluationConfig, ModelConfig, Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.data.transforms import GeometryDraw
from dpcore.inference.movenet import MOVENET_LAYERS
from dpcore.inference.reading import PoseReading
from dpcore.model.network import build_network
from dpcore.pose.skeleton import MPII_16
from dpcore.privacy.randomness import Indices, SweepKey
from dpcore.train import predictions
from dpcore.train.evaluator import metrics_of
from dpcore.train.predictions import cached_predictions, predict
from dpcore.train.saved import load_model
from dpcore.train.trainer import run_trial

Make = Callable[..., TrialConfig]
MANY = {"evaluation__flip": True, "evaluation__rotations_deg": [0, 90, 180, 270], "evaluation__fuse": "maps"}


def folders(places: Places) -> list[Path]:
    return sorted(path for path in (places.cache_dir / "predictions").glob("*") if path.is_dir())


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_a_trials_score_over_views_is_that_of_its_saved_model(
    freeze: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, tmp_path: Path
) -> None:
    """Of a head on cached features of every view, and of a network that trains whole."""
    config = make_config(**MANY, model__freeze=freeze, stages__private__steps=1)
    handout = handed(config, places=train_places, trial_id="t", key=key, folder=tmp_path / "trial")
    report = list(run_trial(config, runtime, handout))[-1]
    saved, dataset = load_model(tmp_path / "trial"), open_dataset("validation", train_places)
    reading = PoseReading.of(saved.config.model, saved.config.evaluation, saved.skeleton)
    assert len(reading.views) == 8
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path / "cache")
    found = cached_predictions(saved.network, dataset, reading, config=saved.config, places=places)
    assert metrics_of(found, dataset=dataset, per_joint=False)["val/pckh_50"] == report.metrics["val/pckh_50"]


@pytest.mark.parametrize(("name", "mode"), [("validation", 0o755), ("private", 0o700)])
def test_fused_predictions_are_made_once_and_again_for_another_evaluation(
    name: str, mode: int, train_places: Places, make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "FUSED_VIEWS_AT_ONCE", 47)  # five people with eight views
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path / "cache")
    network = build_network(make_config().model, places, generator=torch.Generator().manual_seed(1))
    dataset, found = open_dataset(name, places), []
    calls: list[tuple[int, int]] = []
    heard: list[int] = []
    for changed in ({}, {}, {"evaluation.temperature": 2.0}):
        config = make_config("public_only", **MANY).changed(**changed)
        reading = PoseReading.of(config.model, config.evaluation, MPII_16)
        before = len(calls)
        found.append(cached_predictions(network, dataset, reading, config=config, places=places, on_progress=lambda *n: calls.append(n)))
        heard.append(len(calls) - before)
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    assert heard[1] == 0 < heard[0] == heard[2]
    assert [done for done, _ in calls[:2]] == [5, 10]
    assert len(folders(places)) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders(places)} == {mode}


def test_a_public_network_without_a_parameter_of_its_own_is_a_floor(
    shared_data: Path, train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path
) -> None:
    """MoveNet as it is, in two views of two sizes, through the trainer and back as a saved model."""
    model = {"backbone": "folded", "head": "movenet", "feature_layers": list(MOVENET_LAYERS), "feature_stride_px": 4, "freeze": "biases"}
    weights = str(shared_data / "models" / "movenet_lightning")
    views = {"scales": [1, 1.5], "fuse": "maps"}
    config = make_config("public_only", stages__public__steps=0, evaluation=views, model={**model, "weights": weights})
    report = list(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=None, folder=tmp_path / "trial")))[-1]
    assert 0 < report.metrics["val/pckh_50"] < 1
    saved, dataset = load_model(tmp_path / "trial"), open_dataset("validation", train_places)
    reading = PoseReading.of(saved.config.model, saved.config.evaluation, saved.skeleton)
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path / "cache")
    found = cached_predictions(saved.network, dataset, reading, config=saved.config, places=places)
    assert metrics_of(found, dataset=dataset, per_joint=False)["val/pckh_50"] == pytest.approx(report.metrics["val/pckh_50"], abs=1e-9)


@pytest.mark.parametrize(("shape", "wanted"), [((3, 256, 256), 4), ((3, 32, 32), 50), ((80, 256, 256), 50)])
def test_pictures_are_scored_few_at_a_time_and_features_by_many(shape: tuple[int, ...], wanted: int) -> None:
    """Pictures go through the whole network; 256 of 256 px at once are gigabytes of maps."""
    seen: list[int] = []

    class Given:
        def __len__(self) -> int:
            return 50

        def take(self, indices: Indices, draw: GeometryDraw | None) -> torch.Tensor:
            return torch.zeros(1, 1, 1, 1).expand(len(indices), *shape)

    class Tail(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(len(inputs))
            return torch.zeros(len(inputs), 16, 128), torch.zeros(len(inputs), 16, 128)

    model = ModelConfig(input_height_px=64, input_width_px=64)
    points, _ = predict(Tail(), [Given()], PoseReading.of(model, EvaluationConfig(), MPII_16))
    assert len(points) == sum(seen) == 50
    assert max(seen) == wanted
