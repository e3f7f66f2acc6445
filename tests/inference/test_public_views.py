"""A model may be asked about the public view of a picture, alone or beside the picture itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_models import save_network

from dpcore.config import EvaluationConfig, Places, SplitConfig
from dpcore.config.parsing import parse_config
from dpcore.data.splitting import decode_view, encode_view
from dpcore.data.synthetic import draw_record
from dpcore.errors import BadInput, Refused
from dpcore.inference.reading import PoseReading
from sweeps.models.claims import load_claim
from sweeps.models.keypoints.estimator import Keypoints, PoseEstimator
from sweeps.models.onnx_export import export_onnx

BLUR = SplitConfig(name="blur_3", transform="gaussian_blur", sigma_px=3.0, sharpen="wiener")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.stack([draw_record("public", seed=5, index=index).image for index in range(3)])


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    folder = tmp_path_factory.mktemp("views")
    return PoseEstimator.load(save_network(folder / "model", Places(data_dir=folder, cache_dir=folder)))


def asked(estimator: PoseEstimator, crops: np.ndarray, **evaluation: object) -> Keypoints:
    config = estimator.saved.config.model_copy(update={"evaluation": EvaluationConfig.model_validate(evaluation)})
    return replace(estimator, saved=replace(estimator.saved, config=config)).of_crops(crops)


def test_a_view_is_asked_about_as_the_public_side_would_read_it(estimator: PoseEstimator, crops: np.ndarray) -> None:
    seen = decode_view(encode_view(crops, BLUR), BLUR, size_px=(crops.shape[1], crops.shape[2]))
    found = asked(estimator, crops, inputs="view", view=BLUR)
    assert np.array_equal(found.points, asked(estimator, seen).points)
    assert np.abs(found.points - asked(estimator, crops).points).max() > 0.1


def test_both_are_the_mean_of_their_maps_and_no_flip_test(estimator: PoseEstimator, crops: np.ndarray) -> None:
    config = estimator.saved.config
    reading = PoseReading.of(config.model, EvaluationConfig(inputs="both", view=BLUR), estimator.saved.skeleton)
    assert [view.public for view in reading.views] == [False, True]
    assert not reading.is_direct
    seen = decode_view(encode_view(crops, BLUR), BLUR, size_px=(crops.shape[1], crops.shape[2]))
    with torch.no_grad():
        outputs = [estimator.saved.network(torch.from_numpy(one).permute(0, 3, 1, 2).float() / 127.5 - 1) for one in (crops, seen)]
        maps = [reading.readout.maps(one).probabilities() for one in outputs]
        wanted, _ = reading.readout.points((maps[0] + maps[1]) / 2)
    assert np.abs(asked(estimator, crops, inputs="both", view=BLUR).points - wanted.numpy()).max() < 1e-3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inputs": "view"}, "give view: a split, whole"),
        ({"view": BLUR.model_dump()}, "leave view out"),
        ({"inputs": "both", "view": {**BLUR.model_dump(), "sharpen": "none", "region": "head"}}, "found by labels"),
    ],
)
def test_an_evaluation_of_views_that_means_nothing_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_config(EvaluationConfig, values)


def test_a_graph_cannot_make_views_from_bytes(places: Places, tmp_path: Path) -> None:
    model = save_network(tmp_path / "model", places, evaluation=EvaluationConfig(inputs="view", view=BLUR))
    with pytest.raises(Refused, match="made from bytes"):
        export_onnx(model, tmp_path / "m.onnx", load_claim(model))
    assert not (tmp_path / "m.onnx").exists()
