"""Labelling conventions: where on a drawn body the annotators of a domain mark each joint.

Every real dataset has its own. LSP marks hips higher than MPII, COCO knows no top of the head, motion capture has markers on the skin and
MPII marks joint centres. A network of one convention is wrong by a constant share of a limb in another, however well it sees. On
LSPET, this is most of what private training adds to public inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpcore.data.people import FOOT_CM, JOINTS, Person

SIDES: Final = ("r", "l")


@dataclass(frozen=True, kw_only=True)
class LabelConvention:
    """Where joints are marked, as shares of a body's lengths. Without any share they are marked in their centres.

    Attributes:
        towards: (joint, another joint, share of the way to it). A negative share goes beyond. A name without a side counts for both sides.
        on_foot: how far along the foot ankles are marked: 1 is the tip of the toes.
    """

    towards: tuple[tuple[str, str, float], ...] = ()
    on_foot: float = 0.0


JOINT_CENTRES: Final = LabelConvention()
"""MPII's: the centres of the joints, and the top of the head."""
SURFACE_MARKERS: Final = LabelConvention(
    towards=(("hip", "shoulder", 0.35), ("pelvis", "thorax", 0.35), ("head_top", "upper_neck", 0.5), ("wrist", "elbow", -0.45)),
    on_foot=1.0,
)
"""As a motion-capture suit has its markers: on the waist, in the middle of the head, on the tips of fingers and toes.

Unforeshortened, each lies 11 to 17 cm from the joint's centre. PCKh@0.5 forgives 12.4 cm."""


def labels_of(person: Person, convention: LabelConvention) -> NDArray[np.float64]:
    """(16, 2) px: where the annotators of a convention mark a person's joints."""
    marked = person.joints[:, :2].copy()
    for name, other, share in convention.towards:
        for joint, goal in [(name, other)] if name in JOINTS else [(f"{side}_{name}", f"{side}_{other}") for side in SIDES]:
            start, end = person.joints[JOINTS[joint], :2], person.joints[JOINTS[goal], :2]
            marked[JOINTS[joint]] = start + share * (end - start)
    for side, toes in zip(SIDES, person.toes, strict=True):
        marked[JOINTS[f"{side}_ankle"]] += convention.on_foot * FOOT_CM * person.px_per_cm * toes[:2]
    return marked
