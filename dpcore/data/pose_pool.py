"""Pools of public poses: where people's joints are, without their pictures.

A pool is an npz with `joints` (N, K, 2) in px and `labelled` (N, K) bool, in the order of the dataset's skeleton. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.pose.skeleton import Skeleton

CROP_OF_BOX = 1.5
"""Side of a crop over the longer side of the box of its joints: 1.2 from joints to person, 1.25 around the person, as importers cut."""
_LEAST_LABELLED = 4


def read_pool(path: Path, skeleton: Skeleton) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Positions (N, K, 2) in shares of the crop that an importer would cut, and which are labelled (N, K).

    Each pose counts as its mirror image too.

    Raises:
        BadInput: there is no such file, it is no pool, or its joints are not those of `skeleton`.
    """
    try:
        with np.load(path, allow_pickle=False) as pool:
            joints, labelled = pool["joints"].astype(np.float64), pool["labelled"].astype(bool)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"model.position_prior: {path} is no pool of poses ({error}); give an npz with joints and labelled") from error
    if joints.shape[1:] != (skeleton.count, 2) or labelled.shape != joints.shape[:2]:
        raise BadInput(
            f"model.position_prior: {path}: joints {joints.shape}, labelled {labelled.shape}; {skeleton.name} has {skeleton.count} joints"
        )
    kept = labelled.sum(axis=1) >= _LEAST_LABELLED
    joints, labelled = joints[kept], labelled[kept]
    low = np.where(labelled[..., None], joints, np.inf).min(axis=1)
    high = np.where(labelled[..., None], joints, -np.inf).max(axis=1)
    side = CROP_OF_BOX * np.maximum((high - low).max(axis=1), 1e-9)
    places = (joints - ((low + high) / 2)[:, None]) / side[:, None, None] + 0.5
    mirrored = list(skeleton.mirrored)
    turned = places[:, mirrored] * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])
    return np.concatenate([places, turned]), np.concatenate([labelled, labelled[:, mirrored]])
