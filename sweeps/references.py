"""The configs of the runs outside the search: floor, ceiling, control and the winner's reruns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from dpcore.config import SplitConfig, TrialConfig, parse_config
from search_spaces.space import SpaceFile, set_value, value_at
from sweeps.results import TrialRecord

PRIVATE_ONLY = ("clip_norm", "epsilon", "delta", "public_weight", "private_weight", "public_batch_size")
NO_DEFAULT = ("stages.private.steps", "stages.private.expected_batch_size", "data.nominal_examples")


def floor_config(space: SpaceFile, split: SplitConfig, *, seed: int) -> TrialConfig:
    """Public data and public views alone, trained to convergence: what costs nothing and a private run must beat."""
    values = _without_private(space, seed)
    values.update(method="public_only", start="public_view", split=split.model_dump(mode="json"))
    if value_at(values, "stages.public_view") is None:
        set_value(values, "stages.public_view", {"until": "converged"})
    return parse_config(TrialConfig, values, where="references.floor")


def public_start_config(space: SpaceFile, *, seed: int) -> TrialConfig:
    """The public model before any view or private record: the floor of whoever reads no view, and often above the others."""
    values = _without_private(space, seed)
    values.update(method="public_only", start="public", split=None)
    return parse_config(TrialConfig, values, where="references.floor")


def ceiling_config(space: SpaceFile, *, seed: int) -> TrialConfig:
    """The same training without privacy."""
    values = _without_private(space, seed)
    values.update(method="nonprivate", start="public", split=None)
    return parse_config(TrialConfig, values, where="references.ceiling")


def control_config(best: TrialRecord) -> TrialConfig:
    """The best feature run with its private part switched off: what remains is free public training."""
    return best.config.changed(private_weight=0.0)


def seed_config(winner: TrialRecord) -> TrialConfig:
    """The winner again. Its private sampling and noise are fresh, as they follow the trial id; the public stages, which cost
    nothing and are no part of the choice, are those of the sweep."""
    return winner.config


def _without_private(space: SpaceFile, seed: int) -> dict[str, Any]:
    """`trial` without what only private methods have. A searched field takes TrialConfig's default; where there is none
    (a searched horizon), its smallest value."""
    values: dict[str, Any] = copy.deepcopy(space.trial)
    for path in NO_DEFAULT:
        parameter = space.search.get(path)
        if parameter is not None:
            set_value(values, path, parameter.value_at(0.0))
    for path in PRIVATE_ONLY:
        values.pop(path, None)
    if isinstance(values.get("subspace"), Mapping):
        values.pop("subspace")
    values.setdefault("seed", seed)
    return values
