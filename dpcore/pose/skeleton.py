"""Skeletons as data: joint names, mirrored pairs, lines, what normalises a score; and how one skeleton is read as another.

A dataset's manifest holds its skeleton. Everything that needs joints takes their number and names from there. Left and right are those
of the person. Torch-free.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dpcore.config.parsing import Part
from dpcore.config.registry import Table
from dpcore.errors import BadInput

Joint = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
"""The name of a joint in lower case; `l_` and `r_` begin the names of left and right joints."""


class Skeleton(Part):
    """The joints of a dataset, in the order of its keypoints.

    Attributes:
        name: as commands and tables spell it.
        joints: K names by index.
        flip_pairs: joints that swap when an image is mirrored.
        lines: pairs of joints to draw a line between.
        sigmas: the spread of each joint's annotations for OKS (COCO: standard deviation over the root of the person's area); None
            where nobody published one.
        unscored: joints that a mean PCK leaves out.
        groups: rows of a published table, each the mean of its joints.
        derived: joint → the joints whose mean it is, where another skeleton names those and not the joint itself.
        head: two joints whose distance is the head size of people whose record holds none; None: only records know head sizes.
        torso: two joints whose distance is the torso's size.
    """

    name: str = Field(min_length=1, max_length=100)
    joints: tuple[Joint, ...] = Field(min_length=1)
    flip_pairs: tuple[tuple[Joint, Joint], ...] = ()
    lines: tuple[tuple[Joint, Joint], ...] = ()
    sigmas: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    unscored: tuple[Joint, ...] = ()
    groups: dict[str, tuple[Joint, ...]] = Field(default_factory=dict)
    derived: dict[Joint, tuple[Joint, ...]] = Field(default_factory=dict)
    head: tuple[Joint, Joint] | None = None
    torso: tuple[Joint, Joint] | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        twice = sorted({joint for joint in self.joints if self.joints.count(joint) > 1})
        if twice:
            raise ValueError(f"skeleton {self.name}: the joint {twice[0]} is named twice; give each joint its own name")
        used = {
            "flip_pairs": [joint for pair in self.flip_pairs for joint in pair],
            "lines": [joint for line in self.lines for joint in line],
            "unscored": list(self.unscored),
            "groups": [joint for joints in self.groups.values() for joint in joints],
            "derived": list(self.derived),
            "head": list(self.head or ()),
            "torso": list(self.torso or ()),
        }
        for field, joints in used.items():
            strangers = [joint for joint in joints if joint not in self.joints]
            if strangers:
                raise ValueError(f"skeleton {self.name}: {field} names {strangers[0]}, which is none of its joints")
        pairs = used["flip_pairs"]
        if len(set(pairs)) != len(pairs):
            raise ValueError(f"skeleton {self.name}: a joint stands twice in flip_pairs; each joint has one mirror image")
        if self.sigmas is not None and len(self.sigmas) != len(self.joints):
            raise ValueError(f"skeleton {self.name}: {len(self.sigmas)} sigmas for {len(self.joints)} joints; give one for each")
        if set(self.unscored) == set(self.joints):
            raise ValueError(f"skeleton {self.name}: every joint is unscored, so no mean PCK exists; leave one joint to count")
        return self

    @property
    def count(self) -> int:
        """K, the number of joints."""
        return len(self.joints)

    @cached_property
    def index(self) -> dict[str, int]:
        """Joint name → its place among the keypoints."""
        return {name: place for place, name in enumerate(self.joints)}

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the one that takes its place when an image is mirrored: (K,)."""
        partner = {a: b for pair in self.flip_pairs for a, b in (pair, pair[::-1])}
        return tuple(self.index[partner.get(name, name)] for name in self.joints)

    @cached_property
    def line_places(self) -> tuple[tuple[int, int], ...]:
        """`lines` by the joints' places."""
        return tuple((self.index[a], self.index[b]) for a, b in self.lines)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(K,) bool: which joints a mean PCK counts."""
        return np.array([joint not in self.unscored for joint in self.joints])

    @property
    def mark(self) -> str:
        """What digests of data hold of the skeleton: empty for mpii_16, the only skeleton of earlier versions, so that their digests
        stay; else 16 hex digits over all that can change a weight."""
        return "" if self._decides() == MPII_16._decides() else hashlib.sha256(self._decides().encode()).hexdigest()[:16]

    def _decides(self) -> str:
        pairs = sorted(sorted(pair) for pair in self.flip_pairs)
        return json.dumps([self.joints, pairs, {name: self.derived[name] for name in sorted(self.derived)}])


def mapping(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], ...]:
    """For each joint of `target` the joints of `source` whose mean it is, by their places; empty where there are none.

    A joint of the same name is taken. Where there is none, a joint that `target` derives is the mean of its parents, if `source` names
    all of them.
    """
    found = []
    for joint in target.joints:
        parents = (joint,) if joint in source.index else target.derived.get(joint, ())
        found.append(tuple(source.index[parent] for parent in parents) if all(parent in source.index for parent in parents) else ())
    return tuple(found)


def mapped(
    keypoints: NDArray[np.floating], visible: NDArray[np.bool_], *, source: Skeleton, target: Skeleton
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Keypoints (..., K, 2) of `source` as (..., J, 2) of `target`, and which are labelled (..., J).

    A derived joint is labelled where all its parents are. A joint that `source` cannot give lies at the origin, not labelled.

    Raises:
        BadInput: `source` gives no joint of `target`.
    """
    parents = mapping(source, target)
    if not any(parents):
        raise BadInput(
            f"no joint of the skeleton {target.name} can be had from {source.name} by name: {', '.join(target.joints[:4])} … and "
            f"{', '.join(source.joints[:4])} …; give data whose joints have the same names"
        )
    points = np.zeros((*keypoints.shape[:-2], target.count, 2))
    labelled = np.zeros((*visible.shape[:-1], target.count), dtype=bool)
    for place, of in enumerate(parents):
        if of:
            points[..., place, :] = keypoints[..., list(of), :].mean(axis=-2)
            labelled[..., place] = visible[..., list(of)].all(axis=-1)
    return points, labelled


def mirrored_pairs(joints: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The pairs `l_NAME`, `r_NAME` among joints, for skeletons whose names say their side."""
    return tuple((joint, f"r_{joint[2:]}") for joint in joints if joint.startswith("l_") and f"r_{joint[2:]}" in joints)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[tuple[str, str], ...]:
    """`a-b-c d-e` as the lines a-b, b-c and d-e."""
    chains = [chain.split("-") for chain in text.split()]
    return tuple((a, b) for chain in chains for a, b in itertools.pairwise(chain))


_MIDDLES = {"pelvis": ("l_hip", "r_hip"), "thorax": ("l_shoulder", "r_shoulder")}
_NECK = {"neck": ("l_shoulder", "r_shoulder")}
_TORSO = ("l_shoulder", "r_hip")
"""As in PCK@0.2 of the torso (Sapp and Taskar, CVPR 2013)."""
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_SIDED = {limb: (f"l_{limb}", f"r_{limb}") for limb in _LIMBS}
_ARMS_AND_LEGS = "l_shoulder-l_elbow-l_wrist r_shoulder-r_elbow-r_wrist l_hip-l_knee-l_ankle r_hip-r_knee-r_ankle"
_TRUNK = "l_shoulder-r_shoulder-r_hip-l_hip-l_shoulder"
_COCO_SIGMAS = {
    **{"nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062},
    **{"hip": 0.107, "knee": 0.087, "ankle": 0.089},
}
"""COCO's own, from its evaluation (cocodataset.org, keypoint evaluation)."""


def _sigmas(joints: tuple[str, ...], **others: float) -> tuple[float, ...]:
    table = {**_COCO_SIGMAS, **others}
    return tuple(table[joint] if joint in table else table[joint.partition("_")[2]] for joint in joints)


_MPII_JOINTS = _words(
    "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist"
)
_COCO_JOINTS = _words(
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle"
)
_LSP_JOINTS = _words("r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist neck head_top")
_CROWDPOSE_JOINTS = _words("l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle head_top neck")
_AIC_JOINTS = _words("r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee r_ankle l_hip l_knee l_ankle head_top neck")
_HALPE_JOINTS = (*_COCO_JOINTS, *_words("head_top neck pelvis l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel"))
_POSETRACK_JOINTS = ("nose", "head_bottom", "head_top", *_COCO_JOINTS[3:])
_JHMDB_JOINTS = _words("neck belly head r_shoulder l_shoulder r_hip l_hip r_elbow l_elbow r_knee l_knee r_wrist l_wrist r_ankle l_ankle")
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND_JOINTS = ("wrist", *(f"{finger}{knuckle}" for finger in _FINGERS for knuckle in range(1, 5)))
_FACE = "nose-l_eye-l_ear nose-r_eye-r_ear l_eye-r_eye"

MPII_16: Final = Skeleton(
    name="mpii_16",
    joints=_MPII_JOINTS,
    flip_pairs=mirrored_pairs(_MPII_JOINTS),
    lines=_lines(
        "r_ankle-r_knee-r_hip-pelvis l_hip-pelvis l_hip-l_knee-l_ankle pelvis-thorax-upper_neck-head_top thorax-r_shoulder "
        "thorax-l_shoulder r_wrist-r_elbow-r_shoulder l_shoulder-l_elbow-l_wrist"
    ),
    unscored=("pelvis", "thorax"),
    groups={"head": ("head_top",), **_SIDED},
    derived=_MIDDLES,
    torso=_TORSO,
)
"""MPII (Andriluka et al., CVPR 2014), scored as in HRNet's evaluation. Head sizes come from head boxes. No OKS sigmas are published."""

COCO_17: Final = Skeleton(
    name="coco_17",
    joints=_COCO_JOINTS,
    flip_pairs=mirrored_pairs(_COCO_JOINTS),
    lines=_lines(f"{_ARMS_AND_LEGS} {_TRUNK} {_FACE} l_ear-l_shoulder r_ear-r_shoulder"),
    sigmas=_sigmas(_COCO_JOINTS),
    groups={"head": _COCO_JOINTS[:5], **_SIDED},
    torso=_TORSO,
)
"""COCO keypoints (Lin et al., ECCV 2014); also OCHuman and Human-Art."""

LSP_14: Final = Skeleton(
    name="lsp_14",
    joints=_LSP_JOINTS,
    flip_pairs=mirrored_pairs(_LSP_JOINTS),
    lines=_lines(f"{_ARMS_AND_LEGS} l_hip-r_hip head_top-neck-l_shoulder neck-r_shoulder l_shoulder-l_hip r_shoulder-r_hip"),
    groups={"head": ("head_top", "neck"), **_SIDED},
    derived=_NECK,
    head=("neck", "head_top"),
    torso=_TORSO,
)
"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010)."""

CROWDPOSE_14: Final = LSP_14.model_copy(
    update={"name": "crowdpose_14", "joints": _CROWDPOSE_JOINTS, "sigmas": _sigmas(_CROWDPOSE_JOINTS, head_top=0.079, neck=0.079)}
)
"""CrowdPose (Li et al., CVPR 2019), sigmas of its own evaluation."""

AIC_14: Final = LSP_14.model_copy(
    update={
        "name": "aic_14",
        "joints": _AIC_JOINTS,
        "sigmas": (
            *(0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642, 0.03686941, 0.01981803, 0.03843971),
            *(0.03412318, 0.02415081, 0.01291456, 0.01236173),
        ),
    }
)
"""AI Challenger (Wu et al., arXiv:1711.06475), sigmas of its own evaluation."""

HALPE_26: Final = Skeleton(
    name="halpe_26",
    joints=_HALPE_JOINTS,
    flip_pairs=mirrored_pairs(_HALPE_JOINTS),
    lines=_lines(
        f"{_ARMS_AND_LEGS} {_FACE} head_top-neck-pelvis neck-l_shoulder neck-r_shoulder pelvis-l_hip pelvis-r_hip l_ankle-l_big_toe "
        "l_ankle-l_small_toe l_ankle-l_heel r_ankle-r_big_toe r_ankle-r_small_toe r_ankle-r_heel"
    ),
    sigmas=_sigmas(_HALPE_JOINTS, head_top=0.026, neck=0.026, pelvis=0.066, big_toe=0.079, small_toe=0.079, heel=0.079),
    groups={"head": (*_COCO_JOINTS[:5], "head_top"), **_SIDED},
    derived={**_NECK, "pelvis": _MIDDLES["pelvis"]},
    head=("neck", "head_top"),
    torso=_TORSO,
)
"""Halpe's 26 body joints (Fang et al., TPAMI 2022), sigmas of its own evaluation. Its `head` is head_top here, its `hip` the pelvis."""

POSETRACK_17: Final = Skeleton(
    name="posetrack_17",
    joints=_POSETRACK_JOINTS,
    flip_pairs=mirrored_pairs(_POSETRACK_JOINTS),
    lines=_lines(f"{_ARMS_AND_LEGS} {_TRUNK} head_top-nose-head_bottom head_bottom-l_shoulder head_bottom-r_shoulder"),
    groups={"head": ("nose", "head_bottom", "head_top"), **_SIDED},
    head=("head_bottom", "head_top"),
    torso=_TORSO,
)
"""PoseTrack 2018 (Andriluka et al., CVPR 2018). Its ears are never labelled; it is scored by head boxes."""

JHMDB_15: Final = Skeleton(
    name="jhmdb_15",
    joints=_JHMDB_JOINTS,
    flip_pairs=mirrored_pairs(_JHMDB_JOINTS),
    lines=_lines(f"{_ARMS_AND_LEGS} head-neck-belly neck-l_shoulder neck-r_shoulder belly-l_hip belly-r_hip"),
    groups={"head": ("head",), **_SIDED},
    derived=_NECK,
    torso=_TORSO,
)
"""J-HMDB (Jhuang et al., ICCV 2013)."""

HAND_21: Final = Skeleton(
    name="hand_21",
    joints=_HAND_JOINTS,
    lines=_lines(" ".join(f"wrist-{finger}1-{finger}2-{finger}3-{finger}4" for finger in _FINGERS)),
    sigmas=(
        *(0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021, 0.032),
        *(0.02, 0.019, 0.022, 0.031),
    ),
    groups={finger: tuple(f"{finger}{knuckle}" for knuckle in range(1, 5)) for finger in _FINGERS},
    torso=("wrist", "middle_finger1"),
)
"""A hand as in COCO-WholeBody (Jin et al., ECCV 2020; its sigmas) and OneHand10K. A mirrored hand is one of the other side: no pairs.
The palm, from wrist to the middle finger's root, stands for the torso."""

SKELETONS = Table("skeleton", Skeleton, (MPII_16, COCO_17, LSP_14, CROWDPOSE_14, AIC_14, HALPE_26, POSETRACK_17, JHMDB_15, HAND_21))
"""Skeletons by name; OCHuman and Human-Art are coco_17. A dataset may bring its own: its manifest holds it whole."""
