"""Skeletons tell left from right by colour, brightness and shape."""

import numpy as np
import pytest
from PIL import Image

from dpcore.pose.skeleton import MPII_16
from sweeps.models.keypoints.drawing import LEFT, MIDDLE, RIGHT, draw_people, side_of

POINTS = np.array([[20.0 + 25 * (index % 4), 20.0 + 25 * (index // 4)] for index in range(16)])


@pytest.mark.parametrize(
    ("joint", "side"), [("l_knee", "l"), ("right_hip", "r"), ("Left-Ear", "l"), ("pelvis", ""), ("lower_back", ""), ("rib", "")]
)
def test_a_joints_name_says_its_side(joint: str, side: str) -> None:
    assert side_of(joint) == side


def test_left_right_and_middle_joints_have_their_colours_and_the_picture_stays() -> None:
    picture = Image.new("RGB", (120, 120), (60, 90, 60))
    drawn = draw_people(picture, [(POINTS, np.full(16, 0.9))], joints=MPII_16.joints, lines=MPII_16.line_places)
    for joint, colour in (("r_ankle", RIGHT), ("l_wrist", LEFT), ("pelvis", MIDDLE)):
        x, y = POINTS[MPII_16.index[joint]].astype(int).tolist()
        assert drawn.getpixel((x, y)) == colour
    assert picture.getcolors() == [(120 * 120, (60, 90, 60))]


def test_left_and_right_differ_in_brightness_too() -> None:
    left, right = (Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)) for colour in (LEFT, RIGHT))
    assert left - right > 60


def test_an_unsure_joint_is_hollow_and_a_joint_beyond_the_picture_does_no_harm() -> None:
    picture, points = Image.new("RGB", (200, 200), (60, 90, 60)), 1.6 * POINTS
    points[3] = [-500.0, 9000.0]
    scores = np.full(16, 0.9)
    scores[10] = 0.1
    drawn = draw_people(picture, [(points, scores)], joints=MPII_16.joints, lines=())
    x, y = points[10].astype(int).tolist()
    assert drawn.getpixel((x, y)) == (60, 90, 60)
