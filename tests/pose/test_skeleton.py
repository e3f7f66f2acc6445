"""Skeletons hold together, keep what earlier versions counted, and are read as one another by name."""

import numpy as np
import pytest
from pydantic import ValidationError

from dpcore.errors import BadInput
from dpcore.pose.skeleton import COCO_17, HAND_21, LSP_14, MPII_16, POSETRACK_17, SKELETONS, Skeleton, mapped, mapping

EVERY = [SKELETONS.get(name) for name in SKELETONS.own]


@pytest.mark.parametrize("skeleton", EVERY, ids=lambda skeleton: skeleton.name)
def test_every_skeleton_is_valid_and_survives_json(skeleton: Skeleton) -> None:
    assert Skeleton.model_validate_json(skeleton.model_dump_json()) == skeleton
    assert skeleton.name.endswith(f"_{skeleton.count}")


@pytest.mark.parametrize("skeleton", EVERY, ids=lambda skeleton: skeleton.name)
def test_flip_pairs_exchange_left_and_right_of_one_joint(skeleton: Skeleton) -> None:
    sided = {joint for joint in skeleton.joints if joint.startswith(("l_", "r_"))}
    assert {joint for pair in skeleton.flip_pairs for joint in pair} == sided
    assert all(left.replace("l_", "r_", 1) == right for left, right in skeleton.flip_pairs)
    assert [skeleton.mirrored[place] for place in skeleton.mirrored] == list(range(skeleton.count))


@pytest.mark.parametrize("skeleton", [one for one in EVERY if one != POSETRACK_17], ids=lambda skeleton: skeleton.name)
def test_lines_reach_all_joints(skeleton: Skeleton) -> None:
    assert {joint for line in skeleton.lines for joint in line} == set(skeleton.joints)


def test_mpii_is_what_earlier_versions_had_built_in() -> None:
    order = (
        "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist"
    )
    assert MPII_16.joints == tuple(order.split())
    assert MPII_16.mirrored == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
    assert np.flatnonzero(~MPII_16.scored).tolist() == [6, 7]
    limbs = ((0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5))
    assert MPII_16.line_places == (*limbs, (6, 7), (7, 8), (8, 9), (7, 12), (7, 13), (10, 11), (11, 12), (13, 14), (14, 15))
    assert MPII_16.mark == ""


def test_only_what_can_change_a_weight_marks_a_digest() -> None:
    values = COCO_17.model_dump()
    marks = {
        "joints": Skeleton(**{**values, "joints": COCO_17.joints[::-1]}).mark,
        "pairs": Skeleton(**{**values, "flip_pairs": COCO_17.flip_pairs[1:]}).mark,
        "derived": Skeleton(**{**values, "derived": {"nose": ("l_ear", "r_ear")}}).mark,
        "none": COCO_17.mark,
    }
    assert len(set(marks.values())) == 4
    assert Skeleton(**{**values, "lines": (), "sigmas": None, "name": "mine"}).mark == COCO_17.mark


def test_coco_gives_mpii_its_limbs_and_the_middles_of_hips_and_shoulders() -> None:
    found = dict(zip(MPII_16.joints, mapping(COCO_17, MPII_16), strict=True))
    assert found["pelvis"] == (COCO_17.index["l_hip"], COCO_17.index["r_hip"])
    assert found["thorax"] == (COCO_17.index["l_shoulder"], COCO_17.index["r_shoulder"])
    assert found["upper_neck"] == found["head_top"] == ()
    others = {joint: parents for joint, parents in found.items() if joint[:2] in ("l_", "r_")}
    assert all(COCO_17.joints[parents[0]] == joint for joint, parents in others.items())


def test_a_derived_joint_needs_all_its_parents_labelled_and_a_named_one_is_taken_as_it_is() -> None:
    points = np.random.default_rng(3).uniform(0, 50, size=(5, 17, 2))
    labelled = np.ones((5, 17), dtype=bool)
    labelled[2, COCO_17.index["l_shoulder"]] = False
    joints, visible = mapped(points, labelled, source=COCO_17, target=LSP_14)
    neck = LSP_14.index["neck"]
    np.testing.assert_allclose(joints[:, neck], points[:, [5, 6]].mean(axis=1))
    assert visible[:, neck].tolist() == [True, True, False, True, True]
    assert not visible[:, LSP_14.index["head_top"]].any()
    again, _ = mapped(joints, visible, source=LSP_14, target=LSP_14)
    np.testing.assert_array_equal(again, joints)


def test_skeletons_without_a_common_joint_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="no joint of the skeleton coco_17 can be had from hand_21"):
        mapped(np.zeros((1, 21, 2)), np.ones((1, 21), dtype=bool), source=HAND_21, target=COCO_17)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": ("a", "b", "a")}, "the joint a is named twice"),
        ({"flip_pairs": (("a", "b"), ("b", "c"))}, "stands twice in flip_pairs"),
        ({"lines": (("a", "d"),)}, "lines names d"),
        ({"sigmas": (0.1, 0.2)}, "2 sigmas for 3 joints"),
        ({"unscored": ("a", "b", "c")}, "every joint is unscored"),
        ({"torso": ("a", "x")}, "torso names x"),
        ({"joints": ("Left Wrist", "b", "c")}, "pattern"),
    ],
)
def test_what_does_not_fit_is_refused_at_birth(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Skeleton.model_validate({"name": "three", "joints": ("a", "b", "c"), **changes})
