"""The joint orders agree with each other."""

from dpcore.pose.skeleton import BONES, COCO_17, COCO_TO_MPII, FLIP_PAIRS, GROUPS, JOINTS, MPII_16, UNSCORED


def test_flip_pairs_exchange_left_and_right_of_one_joint() -> None:
    for right, left in FLIP_PAIRS:
        assert MPII_16[right].replace("r_", "l_", 1) == MPII_16[left]


def test_every_scored_joint_but_the_neck_is_in_exactly_one_group() -> None:
    grouped = sorted(joint for joints in GROUPS.values() for joint in joints)
    assert grouped == [joint for joint in range(16) if joint not in (*UNSCORED, JOINTS["upper_neck"])]


def test_coco_joints_keep_their_names_and_sides() -> None:
    for joint, parents in COCO_TO_MPII.items():
        names = {COCO_17[parent] for parent in parents}
        assert names == {MPII_16[joint]} or MPII_16[joint] in ("pelvis", "thorax")
    assert JOINTS["upper_neck"] not in COCO_TO_MPII
    assert JOINTS["head_top"] not in COCO_TO_MPII


def test_bones_join_all_joints() -> None:
    assert {joint for bone in BONES for joint in bone} == set(range(16))
