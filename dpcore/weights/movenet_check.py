"""Checks a folded MoveNet against what the original graph finds in a drawn person.

The decoding is the graph's own: the cell of the person's centre, weighted towards the middle of the picture, names by regression where each
joint should be; the best cell of the joint's heat map near there, moved by its offset, is the joint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import Corrupt
from dpcore.weights.drawn_person import drawn_person
from dpcore.weights.folding import FoldedNetwork
from dpcore.weights.movenet_reference import MOVENET_REFERENCES, MoveNetReference

HEADS = ("heat.out", "reg.out", "center.out", "off.out")
NEAR_CELLS = 1.8
"""What the graph adds to a distance in cells before it divides a score by it."""

MOST_OFF_PX, MOST_OFF_SCORE, MOST_OFF_RMS = 0.1, 0.001, 1e-4
"""What another executor may differ by: float32 sums in another order, and the graph's own constants, which are float16. Measured: Lightning
0.042 px (its graph multiplies cells by 1/48 in float16), Thunder 0.0002 px; scores 6e-6, maps 2e-6."""


@dataclass(frozen=True, kw_only=True)
class MoveNetCheck:
    """The largest differences to the reference: of a keypoint in pixels, of a score, of a head's rms as a fraction of it."""

    off_px: float
    off_score: float
    off_rms: float

    def line(self) -> str:
        """For people."""
        return (
            f"checked: 17 keypoints of a drawn person within {self.off_px:.4f} px and {self.off_score:.5f} of score of the original graph, "
            f"maps of the four heads within {self.off_rms:.1e} of their size"
        )


def check_movenet(network: FoldedNetwork, variant: str, *, where: str) -> MoveNetCheck:
    """Runs the network on the drawn person.

    Raises:
        Corrupt: what it finds is not what the original graph finds.
    """
    reference = MOVENET_REFERENCES[variant]
    side_px = {"lightning": 192, "thunder": 256}[variant]
    picture = drawn_person(side_px)
    if hashlib.sha256(picture.tobytes()).hexdigest() != reference.picture:
        raise Corrupt("the drawn person has other bytes than the reference was computed for; the installed dpsweep is damaged")
    maps = head_maps(network, picture, where=where)
    found = compare(maps, reference, side_px=side_px)
    if not (found.off_px <= MOST_OFF_PX and found.off_score <= MOST_OFF_SCORE and found.off_rms <= MOST_OFF_RMS):  # also refuses nan
        raise Corrupt(
            f"{where}: these are not the weights of MoveNet {variant}: on the drawn person keypoints are {found.off_px:.3g} px off "
            f"(at most {MOST_OFF_PX}), scores {found.off_score:.3g} (at most {MOST_OFF_SCORE}); fetch the package again"
        )
    return found


def head_maps(network: FoldedNetwork, picture: NDArray[np.uint8], *, where: str) -> dict[str, NDArray[Any]]:
    """The four heads' maps (C, h, w) for a picture (H, W, 3) of bytes."""
    import torch

    from dpcore.model.folded import features_of

    features = features_of(network.topology, network.tensors, HEADS, where=where)
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return {name: maps[0].double().numpy() for name, maps in features.maps(pixels).items()}


def compare(maps: Mapping[str, NDArray[Any]], reference: MoveNetReference, *, side_px: int) -> MoveNetCheck:
    """The differences between maps and the reference."""
    found, expected = movenet_keypoints(maps), np.array(reference.keypoints)
    rms = [abs(float(np.sqrt((maps[name] ** 2).mean())) / reference.rms[name] - 1) for name in HEADS]
    return MoveNetCheck(
        off_px=float(np.abs(found[:, :2] - expected[:, :2]).max() * side_px),
        off_score=float(np.abs(found[:, 2] - expected[:, 2]).max()),
        off_rms=max(rms),
    )


def movenet_keypoints(maps: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """(17, 3): x and y as fractions of the picture, and a score in [0, 1], as the original graph decodes them.

    Args:
        maps: of the four heads, (C, h, w).
    """
    _, height, width = maps["center.out"].shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    middle = 1.0 / (np.hypot(rows - height // 2, columns - width // 2) + NEAR_CELLS)
    centre = np.unravel_index((_sigmoid(maps["center.out"][0]) * middle).argmax(), (height, width))
    towards = maps["reg.out"].reshape(-1, 2, height, width)[:, :, centre[0], centre[1]] + np.array(centre)
    scores = _sigmoid(maps["heat.out"])
    found = []
    for joint, (row, column) in enumerate(towards):
        near = scores[joint] / (np.hypot(rows - row, columns - column) + NEAR_CELLS)
        best = np.unravel_index(near.argmax(), (height, width))
        off_row, off_column = maps["off.out"][2 * joint : 2 * joint + 2, best[0], best[1]]
        found.append(((best[1] + off_column) / width, (best[0] + off_row) / height, scores[joint][best]))
    return np.array(found)


def _sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))
