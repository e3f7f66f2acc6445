"""The space that benchmarks of search and engine give to simulated trials: the four private methods over eight ε."""

from __future__ import annotations

from typing import Any

from search_spaces.loader import build_space
from search_spaces.space import SpaceFile
from sweeps.engine.surfaces import METHODS

EPSILONS = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0, 16.0)
PROJECTED, FEATURE = ["projected", "feature_projected"], ["feature", "feature_projected"]
DOCUMENT: dict[str, Any] = {
    "references": {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0},
    "splits": {"blur": {"transform": "gaussian_blur", "sigma_px": 4}},
    "trial": {
        "data": {
            "private": "synthetic/private",
            "public": "synthetic/public",
            "validation": "synthetic/validation",
            "nominal_examples": 4000,
        },
        "stages": {"private": {"steps": 100, "expected_batch_size": 256}},
    },
    "search": {
        "method": {"choice": list(METHODS)},
        "split": {"choice": ["blur"], "when": {"method": FEATURE}},
        "clip_norm": {"float": [1e-3, 10.0], "log": True},
        "optimizer.learning_rate": {"float": [1e-4, 1.0], "log": True},
        "subspace.rank": {"int": [4, 256], "log": True, "when": {"method": PROJECTED}},
        "public_weight": {"float": [0.0, 1.0], "when": {"method": FEATURE}},
    },
}


def space_of(sampler: str, trials: int, epsilons: tuple[float, ...]) -> SpaceFile:
    """The space that every contender searches."""
    sweep = {"epsilons": list(epsilons), "delta": 1e-5, "trials_per_epsilon": trials, "sampler": sampler, "accounting": "composed"}
    return build_space({"sweep": sweep, **DOCUMENT}, name="bench")
