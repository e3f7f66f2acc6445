"""Finds the winner at each ε and the scores to compare it with. Table, report and figure use these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One ε of a sweep. Scores are PCKh@0.5 fractions; None is "not run" or "not done".

    Attributes:
        epsilon: target of each trial.
        winner: the best private trial.
        seed_scores: the winner's settings with fresh seeds and fresh noise.
        floor: score that the public part alone reaches, at no privacy cost. The higher of the public start and the floor of the
            winner's split. If the winner reads no public view, the best floor of all splits.
        ceiling: no privacy.
        control: the winning feature-type run with its private part off.
        by_method: the best trial of each method.
    """

    epsilon: float
    winner: TrialRecord | None
    seed_scores: tuple[float, ...]
    floor: float | None
    ceiling: float | None
    control: float | None
    by_method: dict[str, TrialRecord]

    @property
    def seed_mean(self) -> float | None:
        """Mean over the fresh seeds. The winner's own score is the best of many and therefore too high."""
        return sum(self.seed_scores) / len(self.seed_scores) if self.seed_scores else None

    @property
    def seed_spread(self) -> float | None:
        """Highest minus lowest fresh seed; None with fewer than two."""
        return max(self.seed_scores) - min(self.seed_scores) if len(self.seed_scores) > 1 else None

    @property
    def gain(self) -> float | None:
        """Mean of the winner's fresh seeds minus the higher of floor and control."""
        bars = [bar for bar in (self.floor, self.control) if bar is not None]
        return None if self.seed_mean is None or not bars else self.seed_mean - max(bars)

    @property
    def is_gain_clear(self) -> bool:
        """Whether the gain is more than the spread of the seeds."""
        return self.gain is not None and self.seed_spread is not None and self.gain > self.seed_spread


def compare(results: SweepResults, epsilons: Sequence[float]) -> tuple[Comparison, ...]:
    """One comparison per ε, in the order given."""
    return tuple(_compare_at(results, epsilon) for epsilon in epsilons)


def _compare_at(results: SweepResults, epsilon: float) -> Comparison:
    winner = results.best(epsilon)
    by_method: dict[str, TrialRecord] = {}
    searched = [
        record for record in results.records if record.role == "search" and record.epsilon == epsilon and score_of(record) is not None
    ]
    for record in sorted(searched, key=lambda one: score_of(one) or 0.0):
        by_method[record.config.method] = record
    return Comparison(
        epsilon=epsilon,
        winner=winner,
        seed_scores=tuple(score for record in results.seeds(epsilon) if (score := score_of(record)) is not None),
        floor=_floor_of(results, winner),
        ceiling=_highest(results.of_role("ceiling")),
        control=_highest(results.of_role("control", epsilon)),
        by_method=by_method,
    )


def _floor_of(results: SweepResults, winner: TrialRecord | None) -> float | None:
    split = None if winner is None else winner.config.split
    floors = results.of_role("floor")
    own = [record for record in floors if split is None or record.config.split in (split, None)]
    return _highest(own)


def _highest(records: Sequence[TrialRecord]) -> float | None:
    return max((score for record in records if (score := score_of(record)) is not None), default=None)


def score_of(record: TrialRecord) -> float | None:
    """PCKh@0.5 of a trial that ran to its end."""
    return record.pckh_50 if record.state == "done" else None
