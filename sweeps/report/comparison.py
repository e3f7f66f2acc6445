"""Finds the winner at each ε and the scores to compare it with. Table, report and figure use these numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sweeps.records.references import compared_alike
from sweeps.report.uncertainty import Counts, Gain, gain_over, mean_stderr, score_stderr

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One ε of a sweep. Scores are PCKh@0.5 fractions; None is "not run" or "not done".

    Attributes:
        epsilon: target of each trial.
        winner: the best private trial.
        seeds: the winner's settings with fresh seeds and fresh noise.
        floor_run: the best that the public part alone reaches, at no privacy cost. The higher of the public start and the floor of the
            winner's split. If the winner reads no public view, the best floor of all splits.
        ceiling_run: no privacy.
        control_run: the winning feature-type run with its private part off.
        by_method: the best trial of each method.
        searched: every finished trial of the search.
        errors: standard errors of the scores of winner, seeds, floor, control and ceiling, where they are known.
        method_errors: the same of the best trial of each method.
        interval: of the gain; None where the scores of single people are not known, or with fewer than two fresh seeds.
    """

    epsilon: float
    winner: TrialRecord | None
    seeds: tuple[TrialRecord, ...]
    floor_run: TrialRecord | None
    ceiling_run: TrialRecord | None
    control_run: TrialRecord | None
    by_method: dict[str, TrialRecord]
    searched: tuple[TrialRecord, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    method_errors: Mapping[str, float] = field(default_factory=dict)
    interval: Gain | None = None

    @property
    def seed_scores(self) -> tuple[float, ...]:
        """Scores of the fresh seeds."""
        return tuple(score for record in self.seeds if (score := score_of(record)) is not None)

    @property
    def floor(self) -> float | None:
        """Score of `floor_run`."""
        return _score_or_none(self.floor_run)

    @property
    def ceiling(self) -> float | None:
        """Score of `ceiling_run`."""
        return _score_or_none(self.ceiling_run)

    @property
    def control(self) -> float | None:
        """Score of `control_run`."""
        return _score_or_none(self.control_run)

    @property
    def bar(self) -> TrialRecord | None:
        """What the winner has to beat: the higher of floor and control."""
        return _highest([run for run in (self.floor_run, self.control_run) if run is not None])

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
        """Mean of the winner's fresh seeds minus the bar."""
        bar = _score_or_none(self.bar)
        return None if self.seed_mean is None or bar is None else self.seed_mean - bar


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
        seeds=tuple(record for record in results.seeds(epsilon) if score_of(record) is not None),
        floor_run=_floor_of(results, winner),
        ceiling_run=_highest(_comparable(results.of_role("ceiling"), winner)),
        control_run=_highest(_comparable(results.of_role("control", epsilon), winner)),
        by_method=by_method,
        searched=tuple(searched),
    )


def with_errors(comparison: Comparison, counts: Mapping[str, Counts]) -> Comparison:
    """The comparison with its standard errors and the interval of its gain, from the scores of single people (trial id → counts)."""
    runs = {
        "winner": comparison.winner,
        "floor": comparison.floor_run,
        "control": comparison.control_run,
        "ceiling": comparison.ceiling_run,
    }
    errors = {name: score_stderr(counts[run.trial_id]) for name, run in runs.items() if run is not None and run.trial_id in counts}
    known = all(record.trial_id in counts for record in comparison.seeds)
    seeds = [counts[record.trial_id] for record in comparison.seeds] if known else []
    if (of_mean := mean_stderr(seeds)) is not None:
        errors["seeds"] = of_mean
    bests = {method: score_stderr(counts[run.trial_id]) for method, run in comparison.by_method.items() if run.trial_id in counts}
    bar = comparison.bar
    interval = None if bar is None or bar.trial_id not in counts else gain_over(counts[bar.trial_id], seeds)
    return replace(comparison, errors=errors, method_errors=bests, interval=interval)


def shown_runs(comparisons: Sequence[Comparison]) -> tuple[TrialRecord, ...]:
    """The trials whose scores a report shows with an error, each once."""
    bars = (run for one in comparisons for run in (*one.seeds, one.winner, one.floor_run, one.control_run, one.ceiling_run))
    shown = (*bars, *(run for one in comparisons for run in one.by_method.values()))
    return tuple({run.trial_id: run for run in shown if run is not None}.values())


def _floor_of(results: SweepResults, winner: TrialRecord | None) -> TrialRecord | None:
    split = None if winner is None else winner.config.split
    floors = results.of_role("floor")
    own = [record for record in floors if split is None or record.config.split in (split, None)]
    return _highest(_comparable(own, winner))


def _comparable(records: Sequence[TrialRecord], winner: TrialRecord | None) -> list[TrialRecord]:
    """Those that were scored as the winner was: with the same evaluation, on the same pixels."""
    return [record for record in records if winner is None or compared_alike(record.config, winner.config)]


def _highest(records: Sequence[TrialRecord]) -> TrialRecord | None:
    return max((record for record in records if score_of(record) is not None), key=lambda one: score_of(one) or 0.0, default=None)


def _score_or_none(record: TrialRecord | None) -> float | None:
    return None if record is None else score_of(record)


def score_of(record: TrialRecord) -> float | None:
    """The score of a trial that ran to its end."""
    return record.score if record.state == "done" else None


def best_without_views(comparisons: Sequence[Comparison]) -> dict[str, float | None]:
    """The bars of accuracy against disclosure, by name: scores that need no public view."""
    scores = [
        score_of(record)
        for one in comparisons
        for record in one.by_method.values()
        if record.config.traits.is_private and not record.config.traits.uses_views and record.split is None
    ]
    return {
        "best private trial without views": max((score for score in scores if score is not None), default=None),
        "ceiling: no privacy": next((one.ceiling for one in comparisons), None),
    }
