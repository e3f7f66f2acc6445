"""Crops turned upright by a public detector: who decides, what moves along, and what comes back."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from planned_trials import handed

from dpcore.config import DataConfig, Places, RuntimeFlags, TrialConfig
from dpcore.data.caches import purge_caches
from dpcore.data.catalog import open_dataset
from dpcore.data.framing import Turned, turned_images
from dpcore.data.manifest import Record
from dpcore.data.shards import ShardSet, write_shards
from dpcore.data.synthetic import draw_record
from dpcore.data.transforms import to_tensor
from dpcore.errors import BadInput
from dpcore.inference.movenet import MoveNetReadout
from dpcore.inference.reading import PoseReading
from dpcore.inference.upright import UprightDetector
from dpcore.pose.skeleton import COCO_17
from dpcore.privacy.claim import claim_of
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.randomness import SweepKey
from dpcore.train import upright
from dpcore.train.evaluator import metrics_of
from dpcore.train.saved import load_model
from dpcore.train.trainer import run_trial
from dpcore.train.trial_data import TrialData, open_trial_data
from sweeps.models.keypoints.estimator import PoseEstimator

Make = Callable[..., TrialConfig]
CELL_PX = 8
ROWS = np.arange(64)


@dataclass(frozen=True)
class DetailDetector:
    """Turns by what only a sharp picture shows: the order of a pixel and its neighbour."""

    name: str = "detail"

    def turns(self, images: NDArray[np.uint8]) -> NDArray[np.int8]:
        detail = np.abs(np.diff(images.astype(np.int64), axis=2)).sum(axis=(1, 2, 3))
        return (detail // CELL_PX % 4).astype(np.int8)  # a pixelated row shows each difference eight times


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UprightDetector, "of", lambda data, places: DetailDetector() if data.canonical_rotation else None)


@pytest.fixture(scope="module")
def shuffled(train_places: Places) -> str:
    """The private dataset with other pixels, which its pixelated views do not show."""
    header = open_dataset("private", train_places).manifest.header.model_copy(update={"name": "shuffled"})
    if not (train_places.data_dir / "shuffled").exists():
        write_shards(train_places.data_dir / "shuffled", _shuffled_records(64), header=header)
    return "shuffled"


def _shuffled_records(count: int) -> Iterator[Record]:
    generator = np.random.default_rng(0)
    for index in range(count):
        record = draw_record("private", seed=2, index=index)
        cells = record.image.reshape(8, CELL_PX, 8, CELL_PX, 3).transpose(0, 2, 1, 3, 4).reshape(64, CELL_PX**2, 3)
        mixed = np.stack([cell[generator.permutation(CELL_PX**2)] for cell in cells])
        yield replace(record, image=mixed.reshape(8, 8, CELL_PX, CELL_PX, 3).transpose(0, 2, 1, 3, 4).reshape(64, 64, 3))


def opened(make: Make, places: Places, runtime: RuntimeFlags, method: str, private: str = "private", **paths: Any) -> TrialData:
    return open_trial_data(make(method, data__private=private, data__canonical_rotation="models/any", **paths), places, runtime)


def turns_of(dataset: ShardSet) -> NDArray[np.int8]:
    assert isinstance(dataset.frame, Turned)
    return dataset.frame.turns


@pytest.mark.usefixtures("spied")
@pytest.mark.parametrize("method", ["feature", "feature_projected", "dpsgd"])
def test_public_views_and_turns_do_not_move_with_what_a_view_hides(
    method: str, shuffled: str, train_places: Places, make_config: Make, runtime: RuntimeFlags
) -> None:
    """Two datasets that differ in their sharp pixels alone give one public side. DP-SGD from the floor reads views, too."""
    split = {"name": "pixel_8", "transform": "pixelate", "cell_px": CELL_PX}
    floor = {"split": split, "start": "public_view", "stages__public_view": {"steps": 3, "batch_size": 8}}
    more = floor if method == "dpsgd" else {}
    found = [opened(make_config, train_places, runtime, method, name, **more) for name in ("private", shuffled)]
    first, second = (data.views for data in found)
    assert first is not None
    assert second is not None
    assert (found[0].private.images(ROWS) != found[1].private.images(ROWS)).any()
    np.testing.assert_array_equal(first.stored.images(ROWS), second.stored.images(ROWS))
    np.testing.assert_array_equal(first.labels.keypoints, second.labels.keypoints)
    np.testing.assert_array_equal(turns_of(found[0].private), turns_of(found[1].private))
    assert first.stored.digest == second.stored.digest
    sharp = [opened(make_config, train_places, runtime, "dpsgd", name).private for name in ("private", shuffled)]
    assert (turns_of(sharp[0]) != turns_of(sharp[1])).any()  # the detector would have told
    assert (turns_of(sharp[0]) != turns_of(found[0].private)).any()


@pytest.mark.usefixtures("spied")
def test_a_pair_is_turned_as_one_and_its_labels_with_it(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    data = opened(make_config, train_places, runtime, "feature")
    plain = open_trial_data(make_config("feature"), train_places, runtime)
    turns = turns_of(data.private)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(data.private.images(ROWS), turned_images(plain.private.images(ROWS), turns))
    assert data.views is not None
    assert plain.views is not None
    np.testing.assert_array_equal(data.views.stored.images(ROWS), turned_images(plain.views.stored.images(ROWS), turns))
    np.testing.assert_array_equal(data.views.labels.keypoints, data.private.keypoints)
    row, joint = next((int(row), int(joint)) for row, joint in np.argwhere(plain.private.visible) if turns[row] == 1)
    x, y = plain.private.keypoints[row, joint]
    np.testing.assert_allclose(data.private.keypoints[row, joint], [y, 63 - x], atol=1e-4)


@pytest.mark.usefixtures("spied")
def test_a_record_is_turned_by_itself_alone(shuffled: str, train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    """Other people in the dataset move no turn of a record, so a sum over records moves by one row as before."""
    images = open_dataset("private", train_places).images(ROWS)
    alone = np.array([DetailDetector().turns(images[row : row + 1])[0] for row in range(64)])
    np.testing.assert_array_equal(turns_of(opened(make_config, train_places, runtime, "dpsgd").private), alone)


@pytest.mark.usefixtures("spied")
def test_turns_are_made_once_for_their_owner_alone_and_purged(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path)
    first = opened(make_config, places, runtime, "feature")
    made = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "turns").iterdir() if path.is_dir()}
    assert 0o700 in made
    monkeypatch.setattr(DetailDetector, "turns", None)
    again = opened(make_config, places, runtime, "feature")
    assert again.digests() == first.digests() != open_trial_data(make_config("feature"), places, runtime).digests()
    purge_caches("private", places)
    with pytest.raises(TypeError):
        opened(make_config, places, runtime, "feature")


def test_rotation_is_in_the_fingerprint_and_in_the_claim(make_config: Make) -> None:
    plain, turned = make_config("dpsgd"), make_config("dpsgd", data__canonical_rotation="models/any")
    axis = make_config("dpsgd", data__canonical_rotation="models/any", data__rotation_rule="axis")
    assert len({plain.fingerprint(), turned.fingerprint(), axis.fingerprint()}) == 3
    for config, said in (
        (turned, "by the record's own pixels"),
        (make_config("feature", data__canonical_rotation="m"), "by the record's public view alone"),
    ):
        assert any(said in line for line in _public(config))
    assert not any("detector" in line for line in _public(plain))


def _public(config: TrialConfig) -> tuple[str, ...]:
    @dataclass(frozen=True)
    class Named:
        name: str
        role: str
        protected: bool = False

    named = {"private": Named("private", "PRIVATE"), "public": Named("public", "PUBLIC"), "validation": Named("validation", "PUBLIC")}
    plan = PrivacyPlan(
        sampling_prob=0.25,
        steps=6,
        noise_multiplier=2.3,
        delta=1e-3,
        epsilon_target=1.0,
        epsilon_planned=1.0,
        relation="add_remove",
    )
    return claim_of(config, plan, named).public


def test_what_cannot_be_turned_is_refused(make_config: Make) -> None:
    with pytest.raises(BadInput, match=r"data\.rotation_rule axis belongs to data\.canonical_rotation"):
        make_config("dpsgd", data__rotation_rule="axis")
    with pytest.raises(BadInput, match=r"turns square crops by quarters: give a square input, not 64x96 px"):
        make_config("dpsgd", data__canonical_rotation="models/any", model__input_width_px=96)


def test_movenet_turns_a_picture_to_the_same_side_however_it_lies(shared_data: Path, tmp_path: Path) -> None:
    """A photograph, turned by hand."""
    person = np.asarray(Image.open(next(iter(sorted((shared_data / "mpii" / "images").iterdir())))).convert("RGB").resize((192, 192)))
    places = Places(data_dir=shared_data, cache_dir=tmp_path)
    lying = np.stack([np.rot90(person, quarters) for quarters in range(4)])
    data = DataConfig(private="p", public="q", validation="v", nominal_examples=9, canonical_rotation="models/movenet_lightning")
    detector = UprightDetector.of(data, places)
    assert detector is not None
    turns = detector.turns(lying)
    assert sorted(turns.tolist()) == [0, 1, 2, 3]
    assert len({one.tobytes() for one in turned_images(lying, turns)}) == 1
    assert detector.turns(lying[2:3]) == turns[2]


@pytest.mark.parametrize(("towards", "quarters"), [((0, -1), 0), ((1, 0), 1), ((0, 1), 2), ((-1, 0), 3), ((0.6, -1), 0), ((1, -0.6), 1)])
def test_the_axis_of_the_torso_is_turned_to_point_up(towards: tuple[float, float], quarters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.full((1, 17, 2), 90.0)
    for side in ("l", "r"):
        points[:, COCO_17.index[f"{side}_shoulder"]] += 40 * torch.tensor(towards)
    monkeypatch.setattr(MoveNetReadout, "points_of", lambda self, outputs, mirrored: (points, None))
    network: Any = lambda tensor: tensor  # noqa: E731
    crop = np.zeros((1, 192, 192, 3), dtype=np.uint8)
    assert UprightDetector(network=network, weights="models/any", rule="axis").turns(crop) == quarters
    frame = Turned(side_px=192, mark="by hand", turns=np.array([quarters], dtype=np.int8))
    moved = frame.of_points(points.numpy(), np.array([0]))[0]
    across, up = moved[COCO_17.index["l_shoulder"]] - moved[COCO_17.index["l_hip"]]
    assert -up > abs(across)


def test_a_trial_on_turned_crops_is_scored_and_saved_as_one_that_is_read_back(
    shared_data: Path, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, tmp_path: Path
) -> None:
    weights = str(shared_data / "models" / "movenet_lightning")
    config = make_config("feature", data__canonical_rotation=weights)
    reports = list(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=tmp_path / "trial")))
    assert 0 < reports[-1].metrics["privacy/epsilon_spent"] <= 1.0
    saved, dataset = load_model(tmp_path / "trial"), open_dataset("validation", train_places)
    assert saved.detector is not None
    rows = np.arange(len(dataset))
    shown = upright.as_read(dataset, saved.config, train_places, saved.detector)
    turns = turns_of(shown)
    assert turns.any()
    with torch.no_grad():
        reading = PoseReading.of(saved.config.model, saved.config.evaluation, saved.skeleton)
        points, confidence = reading.points_in(to_tensor(turned_images(dataset.images(rows), turns)), saved.network)
    assert metrics_of((points, confidence), dataset=shown, per_joint=False)["val/pckh_50"] == pytest.approx(
        reports[-1].metrics["val/pckh_50"], abs=0.02
    )
    estimator = PoseEstimator.load(tmp_path / "trial")
    found = estimator.of_crops(dataset.images(rows))
    np.testing.assert_allclose(found.points, shown.frame.back(points.numpy(), rows), atol=1e-3)
