"""The table of a grid over methods, ε and clipping norms, as papers on private pose estimation print it.

A row is a strategy and a clipping norm, a column is a method, and a cell holds the scores over ε. What others published stands in a
row below ours, where data and network are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpcore.config import METHODS, TrialConfig
from dpcore.config.metrics import PCKH_50
from dpcore.errors import BadInput, Corrupt
from search_spaces.space import STRATEGY_PATH, Choice, SpaceFile
from sweeps.report.published import numbers
from sweeps.report.text import percent

if TYPE_CHECKING:
    from dpcore.config import Places
    from sweeps.records.results import SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec

AXES = ("method", "clip_norm")
Rows = tuple[list[str], list[list[str]]]


@dataclass(frozen=True, kw_only=True)
class GridTable:
    """A grid's scores in the layout of a published table.

    Attributes:
        scores: header and rows: strategy and clipping norm against method.
        bars: header and rows: floor and ceiling of each strategy.
        notes: how to read it, and why nothing published stands beside it where that is so.
    """

    scores: Rows
    bars: Rows
    notes: tuple[str, ...]


def grid_table(results: SweepResults, spec: SweepSpec) -> GridTable | None:
    """The table of a sweep that ran a grid over methods and clipping norms; None of any other sweep.

    Each cell holds the only trial of its point, or the best one where the grid has further axes.
    """
    space = spec.space
    if not _is_such_a_grid(space):
        return None
    done = [one for one in results.of_role("search") if one.state == "done" and one.score is not None]
    differing = differences(done[0].config, spec.places) if done else ("nothing is done yet",)
    if results.metric != PCKH_50:
        differing = (f"the sweep maximises {results.metric_title}, theirs is PCKh@0.5", *differing)
    epsilons, methods = sorted(space.sweep.epsilons), [name for name in numbers.METHODS if name in space.methods]
    methods += [name for name in space.methods if name not in methods]
    header = ["setting", "", *(METHODS.get(name).label or name for name in methods)]
    rows = []
    for strategy in _strategies(space, done):
        for clip_norm in _clip_norms(space):
            cells = [[_score(done, strategy, clip_norm, name, epsilon) for epsilon in epsilons] for name in methods]
            rows.append([f"{strategy}, C = {clip_norm:g}", "", *map(_cell, cells)])
            theirs = [[numbers.published_pckh(strategy, clip_norm, name, epsilon) for epsilon in epsilons] for name in methods]
            if not differing and any(value is not None for row in theirs for value in row):
                rows.append(["  published", "", *map(_cell, theirs)])
    bars = _bars(results, _strategies(space, done), published=not differing)
    return GridTable(scores=(header, rows), bars=bars, notes=_notes(results, epsilons, differing, several=_points_per_cell(space)))


def differences(config: TrialConfig, places: Places) -> tuple[str, ...]:
    """Why the published numbers are of something else than this trial; empty where data and network are theirs."""
    model, found = config.model, []
    if not model.backbone.startswith(numbers.BACKBONE):
        found.append(f"the network is {model.backbone}, theirs is TinyViT-5M")
    if model.head != numbers.HEAD or (model.input_height_px, model.input_width_px) != numbers.INPUT_PX:
        found.append("head or crop size are others: theirs are flat and 256×192 px")
    for name, people in ((config.data.private, numbers.TRAIN_PEOPLE), (config.data.validation, numbers.VALIDATION_PEOPLE)):
        if config.is_rehearsal or not _is_of_mpii(name, people, places):
            found.append(f"{name} is not the part of MPII that they used, or is not on this machine")
    return tuple(found)


def _is_of_mpii(name: str, people: int, places: Places) -> bool:
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.manifest import load_manifest

    try:
        manifest = load_manifest(dataset_folder(name, places))
    except (BadInput, Corrupt):
        return False
    return manifest.count == people and manifest.origin.startswith(("hrnet", "mpii"))


def _is_such_a_grid(space: SpaceFile) -> bool:
    return space.sweep.sampler_traits.is_listed and all(
        isinstance(space.parameters_at(epsilon).get(axis), Choice) for axis in AXES for epsilon in space.sweep.epsilons
    )


def _strategies(space: SpaceFile, done: Sequence[TrialRecord]) -> tuple[str, ...]:
    return space.strategies or tuple(dict.fromkeys(str(one.config.model.freeze) for one in done)) or ("all",)


def _clip_norms(space: SpaceFile) -> list[float]:
    axes = (space.parameters_at(epsilon)["clip_norm"] for epsilon in space.sweep.epsilons)
    return sorted({float(value) for axis in axes if isinstance(axis, Choice) for value in axis.choice if isinstance(value, int | float)})


def _points_per_cell(space: SpaceFile) -> bool:
    """Whether a cell can hold several points: the grid has choices beside method, clipping norm and strategy."""
    return any(
        isinstance(parameter, Choice) and len(parameter.choice) > 1 and path not in (*AXES, STRATEGY_PATH, "split")
        for epsilon in space.sweep.epsilons
        for path, parameter in space.parameters_at(epsilon).items()
    )


def _score(done: Sequence[TrialRecord], strategy: str, clip_norm: float, method: str, epsilon: float) -> float | None:
    point = (strategy, clip_norm, method, epsilon)
    scores = [
        one.score
        for one in done
        if one.score is not None and (str(one.config.model.freeze), one.config.clip_norm, one.config.method, one.epsilon) == point
    ]
    return max(scores, default=None)


def _cell(scores: Sequence[float | None]) -> str:
    return " ".join(map(percent, scores))


def _bars(results: SweepResults, strategies: Sequence[str], *, published: bool) -> Rows:
    header = ["strategy", "", "floor", "ceiling", *(["published floor", "published ceiling"] if published else [])]
    rows = []
    for strategy in strategies:
        runs = [[one for one in results.of_role(role) if str(one.config.model.freeze) == strategy] for role in ("floor", "ceiling")]
        scores = [max((one.score for one in found if one.state == "done" and one.score is not None), default=None) for found in runs]
        theirs = numbers.published_floor_and_ceiling(strategy) if published else ()
        rows.append([strategy, "", *map(percent, [*scores, *theirs])])
    return header, rows


def _notes(results: SweepResults, epsilons: Sequence[float], differing: Sequence[str], *, several: bool) -> tuple[str, ...]:
    cells = f"each cell: {results.metric_title} in percent at ε = " + ", ".join(f"{epsilon:g}" for epsilon in epsilons)
    best = ["where a cell has several trials it shows the best of them"] if several else []
    if differing:
        return (cells, *best, f"nothing published stands beside it: {'; '.join(differing)}")
    said = (
        f"published: {numbers.SOURCE}. Its code breaks the guarantee that it states (noise-free gradients of the private batch, a "
        "subspace of private pictures), so its numbers are no bar for runs that keep it"
    )
    return (cells, *best, said)
