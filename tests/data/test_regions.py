"""Masks hide what they promise, and everything where labels do not tell."""

import numpy as np
import pytest

from dpcore.data.regions import hidden_pixels
from dpcore.data.synthetic import draw_record
from dpcore.pose.skeleton import MPII_16

PERSON = next(r for r in (draw_record("public", seed=0, index=i) for i in range(50)) if r.visible.all())


def mask(region: str, visible: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None, head: float = PERSON.head_size_px) -> np.ndarray:  # type: ignore[type-arg]
    shown = PERSON.visible if visible is None else visible
    return hidden_pixels(region, PERSON.keypoints, shown, head, size_px=(64, 64), skeleton=MPII_16)  # type: ignore[arg-type]


def test_the_person_mask_covers_every_joint_and_the_background_mask_none() -> None:
    columns, rows = np.rint(PERSON.keypoints).astype(int).T
    assert mask("person")[rows, columns].all()
    assert not mask("background")[rows, columns].any()
    np.testing.assert_array_equal(mask("background"), ~mask("person"))
    assert 0.1 < mask("person").mean() < 0.6


def test_the_head_lies_inside_the_person() -> None:
    head = mask("head")
    assert head.any()
    assert not (head & ~mask("person")).any()
    assert mask("all").all()


@pytest.mark.parametrize(
    ("region", "joint", "hides_all"), [("head", 9, True), ("head", 0, False), ("person", 0, True), ("background", 0, True)]
)
def test_a_region_with_an_unlabelled_joint_hides_everything(region: str, joint: int, hides_all: bool) -> None:
    visible = np.arange(16) != joint
    assert mask(region, visible).all() == hides_all


def test_an_unknown_head_size_is_replaced_by_the_labelled_head() -> None:
    assert mask("head", head=float("nan")).any()


@pytest.mark.parametrize("region", ["head", "person", "background"])
def test_a_head_of_no_size_hides_everything(region: str) -> None:
    keypoints = PERSON.keypoints.copy()
    keypoints[9] = keypoints[8]
    everything = np.ones(16, dtype=bool)
    assert hidden_pixels(region, keypoints, everything, float("nan"), size_px=(64, 64), skeleton=MPII_16).all()  # type: ignore[arg-type]


def test_joints_that_all_lie_on_one_point_do_not_publish_the_background() -> None:
    keypoints = np.zeros((16, 2), dtype=np.float32)
    hidden = hidden_pixels("background", keypoints, np.ones(16, dtype=bool), 8.0, size_px=(64, 64), skeleton=MPII_16)
    assert hidden[32:, 32:].all()


@pytest.mark.parametrize("region", ["head", "person"])
def test_a_region_beyond_the_crop_hides_everything(region: str) -> None:
    """An empty mask would publish the whole crop."""
    keypoints = PERSON.keypoints + np.array([200.0, 0.0], dtype=np.float32)
    assert hidden_pixels(region, keypoints, PERSON.visible, PERSON.head_size_px, size_px=(64, 64), skeleton=MPII_16).all()  # type: ignore[arg-type]


def test_a_person_who_fills_the_crop_leaves_no_background_to_hide_so_everything_is_hidden() -> None:
    assert hidden_pixels("background", PERSON.keypoints, PERSON.visible, 400.0, size_px=(64, 64), skeleton=MPII_16).all()
