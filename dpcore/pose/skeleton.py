"""The two joint orders that dpsweep knows, and what follows from them.

Everything inside dpsweep uses MPII-16. COCO-17 is only read. Left and right are those of the person.
"""

from __future__ import annotations

from typing import Final

MPII_16: Final = (
    "r_ankle",
    "r_knee",
    "r_hip",
    "l_hip",
    "l_knee",
    "l_ankle",
    "pelvis",
    "thorax",
    "upper_neck",
    "head_top",
    "r_wrist",
    "r_elbow",
    "r_shoulder",
    "l_shoulder",
    "l_elbow",
    "l_wrist",
)
"""Joint names by index (K = 16)."""

JOINTS: Final[dict[str, int]] = {name: index for index, name in enumerate(MPII_16)}

FLIP_PAIRS: Final = ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))
"""Pairs of joints that swap when an image is mirrored."""

UNSCORED: Final = (JOINTS["pelvis"], JOINTS["thorax"])
"""Left out of the mean PCKh, as in HRNet's evaluation."""

GROUPS: Final[dict[str, tuple[int, ...]]] = {
    "head": (9,),
    "shoulder": (12, 13),
    "elbow": (11, 14),
    "wrist": (10, 15),
    "hip": (2, 3),
    "knee": (1, 4),
    "ankle": (0, 5),
}
"""The rows of a published PCKh table."""

BONES: Final = (
    (0, 1),
    (1, 2),
    (2, 6),
    (3, 6),
    (3, 4),
    (4, 5),
    (6, 7),
    (7, 8),
    (8, 9),
    (7, 12),
    (7, 13),
    (10, 11),
    (11, 12),
    (13, 14),
    (14, 15),
)
"""Pairs of joints to draw a line between; also the capsules of the person mask."""

COCO_17: Final = (
    "nose",
    "l_eye",
    "r_eye",
    "l_ear",
    "r_ear",
    "l_shoulder",
    "r_shoulder",
    "l_elbow",
    "r_elbow",
    "l_wrist",
    "r_wrist",
    "l_hip",
    "r_hip",
    "l_knee",
    "r_knee",
    "l_ankle",
    "r_ankle",
)

COCO_TO_MPII: Final[dict[int, tuple[int, ...]]] = {
    **{JOINTS[name]: (index,) for index, name in enumerate(COCO_17) if name in JOINTS},
    JOINTS["pelvis"]: (COCO_17.index("l_hip"), COCO_17.index("r_hip")),
    JOINTS["thorax"]: (COCO_17.index("l_shoulder"), COCO_17.index("r_shoulder")),
}
"""MPII joint → the COCO joints whose mean it is. Upper neck and head top have no counterpart and are not labelled."""
