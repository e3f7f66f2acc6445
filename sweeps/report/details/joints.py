"""PCKh@0.5 of each joint: the winner's fresh seeds beside floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.records.results import TrialRecord
    from sweeps.report.comparison import Comparison

PREFIX = "val/pckh_50/"


@dataclass(frozen=True, kw_only=True)
class JointScore:
    """One joint, as fractions; None where a run has no score of it."""

    joint: str
    winner: float | None
    floor: float | None
    ceiling: float | None


@dataclass(frozen=True, kw_only=True)
class JointScores:
    """The joints at one ε, in the order of the skeleton. `seeds`: over how many runs `winner` is the mean; 0: the winner itself."""

    epsilon: float
    seeds: int
    joints: tuple[JointScore, ...]


def joint_scores(comparisons: Sequence[Comparison]) -> tuple[JointScores, ...]:
    """One per ε whose winner told its joints: models do at their end, and where the data have head sizes."""
    found = []
    for one in comparisons:
        if one.winner is None:
            continue
        seeds = [scores for record in one.seeds if (scores := _of(record))]
        runs = seeds or [_of(one.winner)]
        names = list(dict.fromkeys(name for scores in runs for name in scores))
        floor, ceiling = _of(one.floor_run), _of(one.ceiling_run)
        joints = tuple(
            JointScore(
                joint=name, winner=_mean([run[name] for run in runs if name in run]), floor=floor.get(name), ceiling=ceiling.get(name)
            )
            for name in names
        )
        if joints:
            found.append(JointScores(epsilon=one.epsilon, seeds=len(seeds), joints=joints))
    return tuple(found)


def _of(record: TrialRecord | None) -> dict[str, float]:
    """Joint → PCKh@0.5 in the last report of a run."""
    if record is None or not record.curve:
        return {}
    return {name.removeprefix(PREFIX): value for name, value in record.curve[-1].metrics.items() if name.startswith(PREFIX)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
