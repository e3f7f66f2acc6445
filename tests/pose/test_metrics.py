"""Every PCK divides by its own size, and says what is missing where there is none."""

from typing import Any

import numpy as np
import pytest

from dpcore.errors import BadInput
from dpcore.pose.metrics import METRICS, Scored, Truth, counts_of_people, score_of, why_not
from dpcore.pose.pckh import PckhState
from dpcore.pose.skeleton import COCO_17, HAND_21, LSP_14, MPII_16, Skeleton

PEOPLE = 7


def truth_of(skeleton: Skeleton = COCO_17, **changes: Any) -> Truth:
    generator = np.random.default_rng(11)
    facts: dict[str, Any] = {
        "keypoints": generator.uniform(3, 61, (PEOPLE, skeleton.count, 2)),
        "visible": generator.random((PEOPLE, skeleton.count)) > 0.2,
        "head_size_px": generator.uniform(5, 9, PEOPLE),
        "box_side_px": generator.uniform(31, 57, PEOPLE),
        "areas_px2": generator.uniform(800, 2000, PEOPLE),
        "image_ids": np.array([f"i{n // 2}" for n in range(PEOPLE)]),
        "places": np.column_stack([generator.uniform(50, 90, (PEOPLE, 2)), generator.uniform(0.3, 1.9, PEOPLE)]),
        "middle_px": (32.0, 24.0),
    }
    return Truth(skeleton=skeleton, **{**facts, **changes})


def scored(truth: Truth, *, noise_px: float = 6.0, confidence: float = 1.0) -> Scored:
    generator = np.random.default_rng(5)
    predictions = truth.keypoints + generator.normal(0, noise_px, truth.keypoints.shape)
    return Scored(predictions, truth, np.full(truth.visible.shape, confidence))


def share_within(given: Scored, sizes: Any, threshold: float) -> float:
    """Word by word, one joint at a time."""
    hits = total = 0
    for person in range(PEOPLE):
        for joint in range(given.truth.skeleton.count):
            if not given.visible[person, joint] or not np.isfinite(sizes[person]):
                continue
            distance = np.hypot(*(given.predictions[person, joint] - given.keypoints[person, joint]))
            total += 1
            hits += distance <= threshold * sizes[person]
    return hits / total


def test_a_box_pck_divides_by_the_longer_side() -> None:
    given = scored(truth_of())
    assert score_of(METRICS.get("pck_bbox_20"), given) == share_within(given, given.truth.box_side_px, 0.2)


def test_a_torso_pck_leaves_out_people_whose_torso_is_not_labelled() -> None:
    given = scored(truth_of())
    ends = [COCO_17.index[joint] for joint in ("l_shoulder", "r_hip")]
    torso = np.hypot(*(given.keypoints[:, ends[0]] - given.keypoints[:, ends[1]]).T)
    sizes = np.where(given.visible[:, ends].all(axis=1), torso, np.nan)
    assert 0 < np.isnan(sizes).sum() < PEOPLE
    assert score_of(METRICS.get("pck_torso_20"), given) == share_within(given, sizes, 0.2)


@pytest.mark.parametrize("name", ["pckh_50", "pckh_10", "pck_bbox_20", "pck_torso_20"])
def test_a_score_is_the_sum_of_its_people(name: str) -> None:
    given = scored(truth_of(MPII_16), noise_px=2.7)
    counts = counts_of_people(METRICS.get(name), given)
    assert counts is not None
    assert score_of(METRICS.get(name), given) == counts[:, 0].sum() / counts[:, 1].sum()
    assert ((counts[:, 0] >= 0) & (counts[:, 0] <= counts[:, 1])).all()


def test_pckh_is_that_of_the_state_of_earlier_versions() -> None:
    given = scored(truth_of(MPII_16), noise_px=2.7)
    state = PckhState.of(given.predictions, given.keypoints, given.visible, given.head_size_px)
    assert score_of(METRICS.get("pckh_50"), given) == state.mean(0.5)
    assert score_of(METRICS.get("pckh_10"), given) == state.mean(0.1)


UNKNOWN = np.full(PEOPLE, np.nan)


@pytest.mark.parametrize(
    ("name", "truth", "reason"),
    [
        ("pckh_50", truth_of(head_size_px=UNKNOWN), "no head size is known"),
        ("pck_bbox_20", truth_of(box_side_px=UNKNOWN), "no person's box is known"),
        ("pck_torso_20", truth_of(HAND_21.model_copy(update={"torso": None})), "hand_21 names no torso"),
        ("pck_torso_20", truth_of(visible=np.eye(PEOPLE, 17, dtype=bool)), "nobody has both l_shoulder and r_hip labelled"),
        ("pckh_50", truth_of(visible=np.zeros((PEOPLE, 17), dtype=bool)), "no joint that PCKh counts is labelled"),
        ("oks_ap", truth_of(LSP_14), "lsp_14 has none"),
        ("oks_ap", truth_of(areas_px2=np.where(np.arange(PEOPLE) == 2, np.nan, 900.0)), "1 of 7 people have none"),
        ("oks_ap", truth_of(places=np.full((PEOPLE, 3), np.nan)), "where each crop was cut"),
    ],
)
def test_what_is_missing_is_said_and_gives_no_number(name: str, truth: Truth, reason: str) -> None:
    said = why_not(METRICS.get(name), truth)
    assert said is not None
    assert reason in said
    with pytest.raises(BadInput):
        score_of(METRICS.get(name), scored(truth))


def test_data_that_give_everything_miss_nothing() -> None:
    assert {name: why_not(METRICS.get(name), truth_of()) for name in METRICS.own} == dict.fromkeys(METRICS.own)


def test_points_of_a_crop_come_back_to_their_image() -> None:
    truth = truth_of()
    there = (truth.keypoints - truth.places[:, None, :2]) * truth.places[:, None, 2:] + np.array(truth.middle_px)
    np.testing.assert_allclose(truth.in_image(there), truth.keypoints, rtol=1e-12)
