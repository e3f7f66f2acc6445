"""Builds the configs of the runs outside the search: floor, ceiling, control and the winner's reruns."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpcore.config import SplitConfig, TrialConfig, parse_config
from dpcore.config.methods import NONPRIVATE, PUBLIC_ONLY
from search_spaces.searchable import COMPARED_ALIKE, leaf_paths
from search_spaces.space import STRATEGY_PATH, Draw, SpaceFile, set_value, value_at
from sweeps.records.trial_id import TrialId

if TYPE_CHECKING:
    from sweeps.records.results import Role, TrialRecord

PUBLIC_START = "public-start"
"""The trial id of the floor that reads no public view."""

PRIVATE_ONLY = ("clip_norm", "epsilon", "delta", "public_weight", "private_weight", "public_batch_size")
NO_DEFAULT = ("stages.private.steps", "stages.private.expected_batch_size")


@dataclass(frozen=True)
class Reference:
    """A run that spends no privacy and needs no search result."""

    trial_id: str
    role: Role
    config: TrialConfig


def free_references(space: SpaceFile, *, seed: int) -> tuple[Reference, ...]:
    """The public start, the floor of each split, and the ceiling, if the space wants them.

    Where a search moves what of the network trains, each choice has a floor of each split and a ceiling of its own: a run that trains
    the whole network is not to be beaten by a floor that trained its head.

    Where it moves the evaluation or the size of the input, each choice has floors and a ceiling of its own, too: scores are compared within
    one evaluation.

    A split whose public-view stage has a fixed number of steps gets a second floor, trained to convergence. It is not known beforehand
    which of the two is higher, and a private run has to beat both.

    Raises:
        BadInput: `references.ceiling` has a setting that TrialConfig does not know or refuses.
    """
    found: list[Reference] = []
    strategies, alike = space.strategies or (None,), space.alike
    if space.references.floor:
        starts = ((_named(PUBLIC_START, None, choice), public_start_config(space, seed=seed, alike=choice)) for choice in alike)
        found += [Reference(name, "floor", config) for name, config in starts]
        for split, strategy, choice in itertools.product(space.splits_in_use, strategies, alike):
            config = floor_config(space, split, seed=seed, strategy=strategy, alike=choice)
            name = _named(split.name, strategy, choice)
            found.append(Reference(str(TrialId.floor(name)), "floor", config))
            stage = config.stages.public_view
            if stage is not None and stage.until is None:
                longer = config.changed(**{"stages.public_view.steps": None, "stages.public_view.until": "converged"})
                found.append(Reference(str(TrialId.floor(name, converged=True)), "floor", longer))
    ceiling = space.references.ceiling
    if ceiling is not False:
        role: Role = "sealed_ceiling" if ceiling == "non_private" else "ceiling"
        is_one = role == "sealed_ceiling" or (isinstance(ceiling, dict) and STRATEGY_PATH in leaf_paths(ceiling))
        # a sealed one is compared with nothing
        for strategy, choice in itertools.product(strategies[:1] if is_one else strategies, alike[:1] if role != "ceiling" else alike):
            name = _named("ceiling", None if is_one else strategy, choice if len(alike) > 1 and role == "ceiling" else {})
            found.append(Reference(name, role, ceiling_config(space, seed=seed, strategy=strategy, alike=choice)))
    return tuple(found)


def _named(name: str, strategy: str | None, alike: Draw) -> str:
    """`floor-blur-none-temperature_0.5`."""
    choices = [f"{path.rpartition('.')[2]}_{value}" for path, value in alike.items()]
    return "-".join([name, *([] if strategy is None else [strategy]), *(re.sub(r"[^A-Za-z0-9.-]+", "_", one) for one in choices)])


def compared_alike(first: TrialConfig, second: TrialConfig) -> bool:
    """Whether the scores of two runs can be compared: one evaluation, on the same pixels."""
    return all(_of(first, path) == _of(second, path) for path in COMPARED_ALIKE)


def _of(config: TrialConfig, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), config)


def floor_config(space: SpaceFile, split: SplitConfig, *, seed: int, strategy: str | None = None, alike: Draw | None = None) -> TrialConfig:
    """The floor: training only on public data and public views. It costs no privacy, and a private run must beat it.

    `strategy`: the choice of what trains, where that is searched. `alike`: those of evaluation and input, where they are searched."""
    values = _without_private(space, seed, strategy, alike)
    values.update(method=PUBLIC_ONLY, start="public_view", split=split.model_dump(mode="json"), examples_per_unit=1)
    if value_at(values, "stages.public_view") is None:
        set_value(values, "stages.public_view", {"until": "converged"})
    return parse_config(TrialConfig, values, where="references.floor")


def public_start_config(space: SpaceFile, *, seed: int, alike: Draw | None = None) -> TrialConfig:
    """The public model before any view or private record. It is the floor of methods that read no view, and often above other floors."""
    values = _without_private(space, seed, alike=alike)
    values.update(method=PUBLIC_ONLY, start="public", split=None, examples_per_unit=1)
    return parse_config(TrialConfig, values, where="references.floor")


def ceiling_config(space: SpaceFile, *, seed: int, strategy: str | None = None, alike: Draw | None = None) -> TrialConfig:
    """The same training without privacy, with the settings of `references.ceiling` if given."""
    values = _without_private(space, seed, strategy, alike)
    values.update(method=NONPRIVATE, start="public", split=None)
    for path, value in space.references.ceiling.items() if isinstance(space.references.ceiling, dict) else ():
        set_value(values, path, value)
    return parse_config(TrialConfig, values, where="references.ceiling")


def control_config(best: TrialRecord, winner: TrialRecord) -> TrialConfig:
    """The best feature run with its private part switched off. Only free public training remains. It is scored as the winner is, which it
    is compared with."""
    return best.config.changed(private_weight=0.0, evaluation=winner.config.evaluation.model_dump(mode="json"))


def seed_config(winner: TrialRecord) -> TrialConfig:
    """The winner again, with fresh private sampling and noise, because these depend on the trial id. The public stages are those of
    the sweep: they cost nothing and do not affect the choice."""
    return winner.config


def _without_private(space: SpaceFile, seed: int, strategy: str | None = None, alike: Draw | None = None) -> dict[str, Any]:
    """`trial` without the fields of private methods. A searched field gets TrialConfig's default, or its smallest value if there is
    no default (a searched horizon); what trains is the `strategy`, or the first that is searched."""
    values: dict[str, Any] = copy.deepcopy(space.trial)
    if space.strategies:
        set_value(values, STRATEGY_PATH, strategy or space.strategies[0])
    for path, value in (space.alike[0] if alike is None else alike).items():
        set_value(values, path, value)
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
