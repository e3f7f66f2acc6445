"""Example spaces that several tests use."""

import copy
from typing import Any

from search_spaces.loader import build_space
from search_spaces.space import SpaceFile

DOCUMENT: dict[str, Any] = {
    "sweep": {"epsilons": [0.5, 2.0], "delta": 1e-5, "trials_per_epsilon": 4, "sampler": "random", "accounting": "composed"},
    "references": {"floor": True, "ceiling": True, "control": True, "winner_seeds": 2},
    "splits": {"blur": {"transform": "gaussian_blur", "sigma_px": 4}},
    "trial": {
        "data": {
            "private": "synthetic/private",
            "public": "synthetic/public",
            "validation": "synthetic/validation",
            "nominal_examples": 1000,
        },
        "stages": {"public_view": {"until": "converged"}, "private": {"steps": 3, "expected_batch_size": 10}},
    },
    "search": {
        "method": {"choice": ["dpsgd", "feature"]},
        "split": {"choice": ["blur"], "when": {"method": ["feature"]}},
        "clip_norm": {"float": [0.01, 1.0], "log": True},
        "public_weight": {"float": [0.1, 1.0], "when": {"method": ["feature"]}},
    },
}


def document(**sections: Any) -> dict[str, Any]:
    """A copy of DOCUMENT with keys of sections changed; `search=...` replaces the whole section."""
    changed = copy.deepcopy(DOCUMENT)
    for name, values in sections.items():
        changed[name] = values if name in ("search", "search_at", "splits", "constraints") else {**changed[name], **values}
    return changed


def space(**sections: Any) -> SpaceFile:
    """The checked space of `document`."""
    return build_space(document(**sections), name="example")
