"""Predictions on pictures are the evaluator's own, brought back to the picture's px."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved_models import save_network

from dpcore.config import EvaluationConfig, Places
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record
from dpcore.errors import BadInput
from dpcore.inference.reading import PoseReading
from dpcore.train.inputs import InputBuilder
from dpcore.train.predictions import predict
from dpcore.train.saved import load_model, save_model
from sweeps.models.keypoints.boxes import PersonBox
from sweeps.models.keypoints.estimator import PoseEstimator


@pytest.fixture
def crops(places: Places) -> ShardSet:
    header = DatasetHeader(name="people", role="PUBLIC", protected=False, height_px=64, width_px=64, origin="a test")
    write_shards(places.data_dir / "people", [draw_record("public", seed=5, index=index) for index in range(7)], header=header)
    return open_shards(places.data_dir / "people")


def evaluated(model: Path, dataset: ShardSet, places: Places, evaluation: EvaluationConfig) -> np.ndarray:
    saved = load_model(model)
    split = saved.network.split("none")
    builder = InputBuilder.for_split(split, model=saved.config.model, places=places, device=torch.device("cpu"))
    reading = PoseReading.of(saved.config.model, evaluation, saved.skeleton)
    return predict(split.tail, builder.scored(dataset, reading), reading)[0].numpy()


@pytest.mark.parametrize(
    "evaluation",
    [EvaluationConfig(), EvaluationConfig(flip=True), EvaluationConfig(rotations_deg=(0, 90, 180, 270), scales=(1, 1.2), fuse="maps")],
    ids=["one", "flip", "many"],
)
def test_crops_give_the_evaluators_predictions_bit_for_bit(
    evaluation: EvaluationConfig, model: Path, crops: ShardSet, places: Places
) -> None:
    estimator = PoseEstimator.load(model)
    config = estimator.saved.config.model_copy(update={"evaluation": evaluation})
    found = replace(estimator, saved=replace(estimator.saved, config=config)).of_crops(crops.images(np.arange(len(crops))))
    assert np.array_equal(found.points.astype(np.float32), evaluated(model, crops, places, evaluation))
    assert found.scores.shape == (7, 16)
    assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_batches_change_nothing(model: Path, crops: ShardSet) -> None:
    estimator, pixels = PoseEstimator.load(model), crops.images(np.arange(len(crops)))
    assert np.allclose(estimator.in_batches(pixels, at_once=3).points, estimator.of_crops(pixels).points, atol=1e-4)


def test_a_picture_of_the_inputs_size_is_its_own_crop(model: Path, crops: ShardSet) -> None:
    estimator, pixels = PoseEstimator.load(model), crops.images(np.arange(2))
    assert np.array_equal(estimator.crop_of(None, (64, 64)).cut(Image.fromarray(pixels[1])), pixels[1])
    assert np.array_equal(estimator.of_picture(Image.fromarray(pixels[1]), [None]).points[0], estimator.of_crops(pixels[1:]).points[0])


def test_a_whole_picture_lies_in_the_middle_of_its_crop(model: Path) -> None:
    box = PoseEstimator.load(model).crop_of(None, (90, 171))
    corners = box.to_crop(np.array([[-0.5, -0.5], [89.5, 170.5], [44.5, 85.0]]))
    assert corners[:, 1].tolist() == pytest.approx([-0.5, 63.5, 31.5])
    assert corners[2].tolist() == pytest.approx([31.5, 31.5])
    assert corners[0, 0] + corners[1, 0] == pytest.approx(63.0)


def test_a_persons_box_is_cropped_with_the_margin_and_comes_back(model: Path) -> None:
    estimator = PoseEstimator.load(model)
    box = estimator.crop_of(PersonBox(left=10, top=20, width=31, height=52), (131, 97))
    assert box.box_px == 52 * 1.25
    assert box.centre == (25.0, 45.5)
    points = np.array([[3.7, 61.2], [130.0, -4.0]])
    assert box.to_photograph(box.to_crop(points)) == pytest.approx(points)
    assert PoseEstimator.load(model, box_scale=1.5).crop_of(PersonBox(left=0, top=0, width=9, height=40), (50, 50)).box_px == 60


def test_the_margin_is_that_of_the_training_data(places: Places, tmp_path: Path) -> None:
    saved = load_model(save_network(tmp_path / "first", places))
    save_model(tmp_path / "wide", saved.network, config=saved.config, meta={}, box_scale=1.4)
    box = PersonBox(left=0, top=0, width=9, height=40)
    assert PoseEstimator.load(tmp_path / "wide").crop_of(box, (50, 50)).box_px == pytest.approx(56)
    assert PoseEstimator.load(tmp_path / "wide", box_scale=1.5).crop_of(box, (50, 50)).box_px == 60


def test_crops_of_another_shape_and_a_model_of_nan_are_refused(model: Path) -> None:
    estimator = PoseEstimator.load(model)
    with pytest.raises(BadInput, match=r"uint8 \(N, 64, 64, 3\), given float64 \(1, 64, 64, 3\)"):
        estimator.of_crops(np.zeros((1, 64, 64, 3)))  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in estimator.saved.network.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(BadInput, match="no numbers"):
        estimator.of_crops(np.zeros((1, 64, 64, 3), dtype=np.uint8))
    assert len(estimator.of_crops(np.zeros((0, 64, 64, 3), dtype=np.uint8))) == 0
