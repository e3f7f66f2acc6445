"""Random articulated people: joint angles drawn in 3-D, seen by an orthographic camera.

Foreshortening, left-right ambiguity seen from behind and joints outside the crop come from the geometry, not from noise
on a template. Lengths are in cm of a compact figure: the head is a little large so that it stays 8 to 12 px high in a
64 px crop.

Body frame: x to the person's left, y up, z forward. Camera frame: x right, y down, z towards the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpcore.pose.skeleton import MPII_16

JOINTS = MPII_16.index
"""A drawn body has MPII's joints."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SPINE_CM, NECK_CM, HEAD_CM = 45.0, 8.0, 33.0
SHOULDER_CM, HIP_CM = 18.0, 10.0
UPPER_ARM_CM, FOREARM_CM, THIGH_CM, SHIN_CM = 27.0, 25.0, 38.0, 37.0
HEAD_WIDTH_CM = 25.0
FOOT_CM: Final = 14.0
HEAD_SIZE_CM: Final = 0.6 * float(np.hypot(HEAD_CM, HEAD_WIDTH_CM))
"""0.6 · diagonal of the upright head box: the denominator of PCKh, as for MPII."""


@dataclass(frozen=True, kw_only=True)
class PoseLaw:
    """How a domain's people stand and move. Angles in degrees, standard deviations of normals unless said."""

    yaw_deg: float
    from_behind_prob: float
    tilt_deg: float
    lean_deg: float
    camera_pitch_deg: float
    thigh_raise_mean_deg: float
    thigh_raise_deg: float
    thigh_spread_deg: float
    knee_deg: float
    raised_arm_prob: float
    elbow_max_deg: float
    lying_prob: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """One person in camera coordinates of the crop: px, and z towards the camera in the same unit.

    Attributes:
        joints: (16, 3).
        forward: (3,) unit vector the face looks along.
        toes: (2, 3) unit vectors of the right and left foot.
        px_per_cm: scale of the crop.
    """

    joints: Vector
    forward: Vector
    toes: Vector
    px_per_cm: float

    @property
    def head_size_px(self) -> float:
        """The PCKh denominator."""
        return HEAD_SIZE_CM * self.px_per_cm


def draw_person(law: PoseLaw, generator: np.random.Generator, *, size_px: int) -> Person:
    """One random person, placed in a square crop as a person detector would, with its errors."""
    root = _root_rotation(law, generator)
    torso = _turn("x", generator.normal(0, 12)) @ _turn("z", generator.normal(0, 10)) @ _turn("y", generator.normal(0, 14))
    head = torso @ _turn("x", generator.normal(5, 14)) @ _turn("y", generator.normal(0, 28)) @ _turn("z", generator.normal(0, 9))
    body = _joints_of_body(law, generator, torso=torso, head=head)
    toes = np.stack([_foot(body[JOINTS[f"{side}_knee"]] - body[JOINTS[f"{side}_ankle"]]) for side in "rl"])
    to_camera = np.diag([1.0, -1.0, 1.0]) @ _turn("x", generator.normal(0, law.camera_pitch_deg)) @ root
    seen = body @ to_camera.T
    px_per_cm, shift_px = _placement(seen, generator, size_px)
    joints = seen * px_per_cm
    joints[:, :2] += shift_px
    return Person(
        joints=joints,
        forward=to_camera @ (head @ np.array([0.0, 0.0, 1.0])),
        toes=toes @ to_camera.T,
        px_per_cm=px_per_cm,
    )


def _root_rotation(law: PoseLaw, generator: np.random.Generator) -> Matrix:
    yaw = generator.normal(0, law.yaw_deg) + (180.0 if generator.random() < law.from_behind_prob else 0.0)
    lying = generator.random() < law.lying_prob
    tilt = generator.normal(0, law.tilt_deg) + (90.0 * generator.choice([-1.0, 1.0]) if lying else 0.0)
    return _turn("z", tilt) @ _turn("y", yaw) @ _turn("x", generator.normal(0, law.lean_deg))


def _joints_of_body(law: PoseLaw, generator: np.random.Generator, *, torso: Matrix, head: Matrix) -> Vector:
    joints = np.zeros((MPII_16.count, 3))
    thorax = torso @ np.array([0.0, SPINE_CM, 0.0])
    neck = thorax + torso @ np.array([0.0, NECK_CM, 0.0])
    joints[JOINTS["thorax"]], joints[JOINTS["upper_neck"]] = thorax, neck
    joints[JOINTS["head_top"]] = neck + head @ np.array([0.0, HEAD_CM, 0.0])
    for side, sign in (("r", -1.0), ("l", 1.0)):
        shoulder = thorax + torso @ np.array([sign * SHOULDER_CM, 0.0, 0.0])
        hip = np.array([sign * HIP_CM, 0.0, 0.0])
        upper, fore = (torso @ part for part in _arm(law, generator, sign))
        thigh, shin = _leg(law, generator, sign)
        joints[JOINTS[f"{side}_shoulder"]] = shoulder
        joints[JOINTS[f"{side}_elbow"]] = shoulder + UPPER_ARM_CM * upper
        joints[JOINTS[f"{side}_wrist"]] = shoulder + UPPER_ARM_CM * upper + FOREARM_CM * fore
        joints[JOINTS[f"{side}_hip"]] = hip
        joints[JOINTS[f"{side}_knee"]] = hip + THIGH_CM * thigh
        joints[JOINTS[f"{side}_ankle"]] = hip + THIGH_CM * thigh + SHIN_CM * shin
    return joints


def _arm(law: PoseLaw, generator: np.random.Generator, sign: float) -> tuple[Vector, Vector]:
    """Directions of upper arm and forearm in the torso's frame."""
    raised = generator.random() < law.raised_arm_prob
    away = np.radians(generator.uniform(40, 165) if raised else abs(generator.normal(14, 12)))
    swing = np.radians(generator.normal(25, 40))
    upper = np.array([sign * np.sin(away) * np.cos(swing), -np.cos(away), np.sin(away) * np.sin(swing)])
    bend = np.radians(generator.uniform(0, law.elbow_max_deg))
    towards = np.array([-0.4 * sign, 0.5, 1.0]) + 0.7 * generator.normal(size=3)
    return upper, _bent(upper, towards, bend)


def _leg(law: PoseLaw, generator: np.random.Generator, sign: float) -> tuple[Vector, Vector]:
    """Directions of thigh and shin in the body frame. Knees bend backwards only."""
    raise_ = np.radians(np.clip(generator.normal(law.thigh_raise_mean_deg, law.thigh_raise_deg), -30, 120))
    spread = np.radians(np.clip(generator.normal(8, law.thigh_spread_deg), -12, 65))
    thigh = np.array([sign * np.sin(spread), -np.cos(spread) * np.cos(raise_), np.cos(spread) * np.sin(raise_)])
    bend = np.radians(min(abs(generator.normal(0, law.knee_deg)) + max(0.0, 0.5 * np.degrees(raise_)), 140.0))
    return thigh, _bent(thigh, np.array([0.0, -0.3, -1.0]), bend)


def _foot(shin_up: Vector) -> Vector:
    return _bent(shin_up / np.linalg.norm(shin_up), np.array([0.0, 0.1, 1.0]), np.radians(100.0))


def _bent(direction: Vector, towards: Vector, angle: float) -> Vector:
    """`direction` turned by `angle` towards the part of `towards` that is orthogonal to it."""
    side = towards - (towards @ direction) * direction
    turned: Vector = np.cos(angle) * direction + np.sin(angle) * side / max(float(np.linalg.norm(side)), 1e-9)
    return turned


def _placement(seen_cm: Vector, generator: np.random.Generator, size_px: int) -> tuple[float, Vector]:
    """Scale and shift: the joints' box fills 4/5 of the crop (HRNet's margin of 1.25), give or take a detector's error."""
    low, high = seen_cm[:, :2].min(axis=0), seen_cm[:, :2].max(axis=0)
    px_per_cm = size_px / 1.25 / float((high - low).max()) * float(np.exp(generator.normal(0.02, 0.08)))
    # a crouching person would fill the crop with a head of 20 px: people are annotated at a scale, not at a pose
    head_px = np.clip(HEAD_SIZE_CM * px_per_cm, 0.125 * size_px, 0.1875 * size_px)
    px_per_cm = float(head_px) / HEAD_SIZE_CM
    middle = (size_px - 1) / 2 + generator.normal(0, 0.025 * size_px, size=2)
    return px_per_cm, middle - px_per_cm * (low + high) / 2


def _turn(axis: str, angle_deg: float) -> Matrix:
    """Right-handed rotation about a body axis."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
