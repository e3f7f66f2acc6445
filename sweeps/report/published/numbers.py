"""PCKh@0.5 on MPII val as published: Differentially Private 2D Human Pose Estimation (Sivangi et al., arXiv:2504.10190, CVPR 2026).

Percent. Numbers with two decimals in the paper's figure were read off it, to about 0.05. The published code breaks the guarantee that
it states: its noise-free public gradient comes from the private batch, among others. So these are its numbers, and no bar that a run with
a guarantee has to reach.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCE = "Sivangi et al., arXiv:2504.10190"
EPSILONS = (0.2, 0.4, 0.6, 0.8)
METHODS = ("dpsgd", "projected", "feature", "feature_projected")
"""The order of the columns."""

TRAIN_PEOPLE, VALIDATION_PEOPLE = 22_246, 2_958
"""The crops of MPII that it trains and scores on: HRNet's train.json and valid.json."""
BACKBONE, HEAD, INPUT_PX = "timm:tiny_vit_5m", "flat", (256, 192)
"""The network: how the backbone's name begins, the head, and height and width of a crop."""

_Row = tuple[tuple[float, float, float, float], ...]

PCKH: Mapping[tuple[str, float], _Row] = {
    ("ft", 0.01): ((63.9, 73.8, 76.9, 78.2), (78.5, 79.2, 79.9, 80.6), (75.5, 78.6, 79.9, 80.4), (82.5, 82.0, 82.0, 81.9)),
    ("ft", 0.1): ((28.5, 39.8, 45.2, 49.9), (73.2, 77.2, 76.1, 77.5), (49.0, 61.7, 65.3, 67.6), (80.3, 81.6, 82.1, 82.6)),
    ("ft", 1.0): ((5.9, 8.4, 12.2, 12.5), (10.3, 37.0, 37.9, 56.3), (9.3, 15.0, 18.4, 22.1), (54.8, 64.0, 67.1, 71.7)),
    ("full_ft", 0.01): ((24.0, 30.9, 35.7, 39.8), (53.6, 59.8, 61.1, 64.3), (43.9, 53.0, 56.8, 59.0), (78.1, 77.4, 77.3, 75.7)),
    ("full_ft", 0.1): ((16.1, 18.6, 21.7, 22.7), (13.6, 14.4, 15.4, 15.9), (23.1, 28.4, 31.9, 33.3), (73.5, 78.0, 78.9, 79.9)),
    ("full_ft", 1.0): ((1.4, 5.9, 8.6, 9.3), (8.7, 8.7, 11.9, 11.2), (10.0, 12.5, 12.8, 15.7), (11.0, 13.5, 16.3, 16.3)),
}
"""(strategy, clipping norm) → a row per method of `METHODS`, at `EPSILONS`. Of scratch, private numbers are not at hand."""

FLOOR_AND_CEILING: Mapping[str, tuple[float, float]] = {"ft": (83.61, 89.36), "full_ft": (70.32, 88.28), "scratch": (17.99, 76.89)}
"""Strategy → trained on blurred pictures alone, and trained without privacy."""


def published_pckh(strategy: str, clip_norm: float, method: str, epsilon: float) -> float | None:
    """PCKh@0.5 as a fraction; None where it is not published."""
    row = PCKH.get((strategy, clip_norm))
    if row is None or method not in METHODS or epsilon not in EPSILONS:
        return None
    return row[METHODS.index(method)][EPSILONS.index(epsilon)] / 100


def published_floor_and_ceiling(strategy: str) -> tuple[float | None, float | None]:
    """The two as fractions; None where they are not published."""
    floor, ceiling = FLOOR_AND_CEILING.get(strategy, (None, None))
    return None if floor is None else floor / 100, None if ceiling is None else ceiling / 100
