"""Crops that are shown otherwise than they are stored: pixels and labels move together, and come back."""

import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dpcore.config import ModelConfig, Places, SplitConfig
from dpcore.data.caches import derived_entries, purge_caches
from dpcore.data.catalog import shown_to
from dpcore.data.framing import CropFrame, Resized, Turned
from dpcore.data.shards import ShardSet, open_shards
from dpcore.data.synthetic import synth
from dpcore.data.views import build_views
from dpcore.errors import Refused
from dpcore.pose.skeleton import COCO_17, MPII_16
from dpcore.train.evaluator import metrics_of

SIDE = 41
SPOTS = np.array([[20.0, 20.0], [9.0, 31.0], [30.0, 12.0]])
FRAMES: list[CropFrame] = [
    Resized(stored_px=(SIDE, SIDE), size_px=(82, 82), crop_zoom=1.0),
    Resized(stored_px=(SIDE, SIDE), size_px=(64, 64), crop_zoom=1.7),
    Resized(stored_px=(SIDE, SIDE), size_px=(96, 64), crop_zoom=0.8),
    *[Turned(side_px=SIDE, mark="by hand", turns=np.array([quarters] * 3, dtype=np.int8)) for quarters in range(4)],
]


def spot(x: float, y: float) -> NDArray[np.uint8]:
    """A crop with one bright, round spot."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def middle_of(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    weight = image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.mark)
def test_labels_move_with_the_pixels_and_come_back(frame: CropFrame) -> None:
    rows = np.arange(3)
    shown = frame.of_images(np.stack([spot(*one) for one in SPOTS]), rows)
    assert shown.shape == (3, *frame.size_px, 3)
    points = frame.of_points(SPOTS[:, None], rows)
    low, high = points[:, 0].min(axis=1), (points[:, 0] - np.array(frame.size_px)[::-1]).max(axis=1)
    inside = (low > 8) & (high < -8)
    assert inside[0]
    np.testing.assert_allclose([middle_of(one) for one in shown[inside]], points[inside, 0], atol=0.05)
    np.testing.assert_allclose(frame.back(points, rows)[:, 0], SPOTS, atol=1e-9)


def test_a_turn_counts_counterclockwise_as_seen() -> None:
    frame = Turned(side_px=4, mark="by hand", turns=np.array([1], dtype=np.int8))
    np.testing.assert_array_equal(frame.of_points(np.array([[[3.0, 1.0]]]), np.array([0])), [[[1.0, 0.0]]])


@pytest.fixture
def people(places: Places) -> ShardSet:
    synth(places.data_dir / "people", "private", count=12, seed=0, role="PRIVATE", name="people")
    return open_shards(places.data_dir / "people")


def test_whole_crops_of_the_inputs_size_are_as_they_are_stored(people: ShardSet) -> None:
    assert shown_to(ModelConfig(), people) is people
    assert shown_to(ModelConfig(crop_zoom=1.0), people) is people


def test_a_dataset_in_a_frame_has_the_labels_of_what_it_shows(people: ShardSet) -> None:
    shown = shown_to(ModelConfig(input_side_px=96, crop_zoom=1.25), people)
    assert shown.images(np.array([7, 2])).shape == (2, 96, 96, 3)
    assert (shown.manifest.height_px, shown.manifest.width_px) == (96, 96)
    grown = 1.5 * 1.25
    np.testing.assert_allclose(shown.head_size_px, people.head_size_px * grown, rtol=1e-6)
    labelled = people.visible
    np.testing.assert_allclose(shown.keypoints[labelled], ((people.keypoints - 31.5) * grown + 47.5)[labelled], atol=1e-4)
    assert not shown.keypoints[~labelled].any()
    assert shown.manifest.box_scale == pytest.approx(people.manifest.box_scale / 1.25)
    assert shown.identity != people.identity != shown_to(ModelConfig(input_side_px=96, crop_zoom=1.0), people).identity
    assert shown.source is people
    assert shown.members.cohort == people.members.cohort


def test_a_dataset_in_a_frame_travels_and_keeps_its_frame_under_other_joints(people: ShardSet, places: Places) -> None:
    shown = shown_to(ModelConfig(input_side_px=96, crop_zoom=1.25), people)
    again = pickle.loads(pickle.dumps(shown))
    assert again.identity == shown.identity
    np.testing.assert_array_equal(again.images(np.arange(3)), shown.images(np.arange(3)))
    synth(places.data_dir / "others", "public", count=5, seed=1, role="PUBLIC", name="others")
    others = shown_to(ModelConfig(input_side_px=96, crop_zoom=1.25), open_shards(places.data_dir / "others"))
    mapped = others.as_skeleton(COCO_17)
    assert mapped.manifest.height_px == 96
    ankle = COCO_17.index["r_ankle"], MPII_16.index["r_ankle"]
    np.testing.assert_array_equal(mapped.keypoints[:, ankle[0]], others.keypoints[:, ankle[1]])


def test_a_score_is_taken_in_px_of_the_stored_crops(people: ShardSet) -> None:
    shown = shown_to(ModelConfig(input_side_px=128, crop_zoom=1.0), people)
    away = 0.45 * shown.head_size_px[:, None, None] * np.array([1.0, 0.0])
    for points, score in ((shown.keypoints + away, 1.0), (shown.keypoints + 1.3 * away, 0.0)):
        predicted = torch.from_numpy(points.astype(np.float32)), torch.ones(points.shape[:2])
        assert metrics_of(predicted, dataset=shown, per_joint=False)["val/pckh_50"] == score


def test_views_of_what_is_shown_are_purged_with_their_people_and_join_with_the_others(people: ShardSet, places: Places) -> None:
    shown = shown_to(ModelConfig(input_side_px=96, crop_zoom=1.0), people)
    head = SplitConfig(name="head", transform="pixelate", cell_px=8, region="head")
    assert build_views(shown, head, places).images(np.arange(2)).shape == (2, 96, 96, 3)
    assert len(derived_entries(people.identity, places)) == 1
    with pytest.raises(Refused, match=r"together show \d+ of 12 records completely"):
        build_views(people, head.model_copy(update={"name": "rest", "region": "background"}), places)
    purge_caches("people", places)
    assert derived_entries(people.identity, places) == []
