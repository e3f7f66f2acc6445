"""Reads joints.mat of Leeds Sports Pose (LSP) and of its extension (LSPET)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.importers.label_checks import placed
from dpcore.importers.mat_files import load_mat
from dpcore.importers.people import LabelledPerson, LabelSource, PeopleFile, frame_of_joints
from dpcore.pose.skeleton import LSP_14

_DIGITS = {"LSP": 4, "LSPET": 5}
"""Pictures are im0001.jpg in LSP and im00001.jpg in LSPET."""


def read_lsp(source: LabelSource, *, one_based: bool) -> PeopleFile:
    """The people of joints.mat: one on each picture.

    | `joints` | whose | its third value |
    |---|---|---|
    | (3, 14, N) | LSP | whether the joint is hidden; all joints are labelled |
    | (14, 3, N) | LSPET | whether the joint is labelled |

    The files hold no box and no head size: people are cropped around their labelled joints, and scored by their torso or head segment.

    Raises:
        BadInput: names file and person.
    """
    joints = np.asarray(load_mat(source.annotations, "joints", wanted="lsp"))
    if joints.ndim != 3 or joints.shape[:2] not in ((3, LSP_14.count), (LSP_14.count, 3)) or not np.issubdtype(joints.dtype, np.number):
        raise BadInput(
            f"annotations {source.annotations}: joints must be numbers of shape (3, 14, N), as in LSP, or (14, 3, N), as in LSPET; "
            f"given {joints.dtype} {joints.shape}"
        )
    extended = joints.shape[0] == LSP_14.count
    rows = joints.transpose(2, 0, 1) if extended else joints.transpose(2, 1, 0)
    people = []
    for row, values in enumerate(rows.astype(np.float64), 1):
        said = values[:, 2] > 0 if extended else np.ones(LSP_14.count, dtype=bool)
        with source.record():
            people.append(_person(source, row, values[:, :2], said, digits=_DIGITS["LSPET" if extended else "LSP"], one_based=one_based))
    return PeopleFile(skeleton=LSP_14, people=tuple(people), origin=f"lsp {source.annotations.name}")


def _person(
    source: LabelSource, row: int, points: NDArray[np.float64], said: NDArray[np.bool_], *, digits: int, one_based: bool
) -> LabelledPerson:
    picture = f"im{row:0{digits}d}.jpg"
    where = f"{source.annotations}, person {row} ({picture})"
    labelled = placed(points, said, source.tally)
    joints = points - (1.0 if one_based else 0.0)
    return LabelledPerson(
        where=where,
        source_id=f"{source.annotations.name}, person {row}",
        picture=picture,
        person=str(row),
        joints=joints,
        labelled=labelled,
        frame=frame_of_joints(joints[labelled], source.tally, where=where),
    )
