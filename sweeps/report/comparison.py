"""Finds the winner at each ε and the scores to compare it with. Table, report and figure use these numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sweeps.records.references import compared_alike
from sweeps.report.uncertainty import Counts, Gain, gain_over, mean_stderr, score, score_stderr

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults, TrialRecord


MOST_RESCORED = 40
"""Trials of a search that a report scores again on other people: each takes a second, and several where views are fused."""

DOTS_DIFFER = "Dots: on the people of the search; all else: on people that no search saw"


@dataclass(frozen=True, kw_only=True)
class MethodGain:
    """What fresh seeds of one method gain over those of another at the same ε. `gain` None: one of the two has fewer than two."""

    method: str
    other: str
    gain: Gain | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One ε of a sweep. Scores are fractions; None is "not run", "not done" or, on people that no search saw, "not known".

    Attributes:
        epsilon: target of each trial.
        winner: the best trial of the search.
        seeds: the winner's settings with fresh seeds and fresh noise.
        floor_run: the best that the public part alone reaches, at no privacy cost: the highest of all public recipes that the sweep tried,
            whichever views they read.
        ceiling_run: no privacy.
        control_run: the winning feature-type run with its private part off.
        by_method: the best trial of each method.
        searched: every finished trial of the search.
        method_seeds: fresh seeds of the best trial of each method, where the sweep has them.
        other_controls: controls of other ε: free too.
        is_divided: whether the trials of the search were scored on other people than winner, references and fresh seeds are.
        people: over how many people scores are counted; None: not known.
        rescored: trial id → score on the people of the verdict; of the search's trials in a sweep that divides its people.
        errors: standard errors of the scores of winner, seeds, floor, control and ceiling, where they are known.
        method_errors: the same of what `method_score` gives.
        interval: of the gain over `bar`; None where the scores of single people are not known, or with fewer than two fresh seeds.
        gains: of the fresh seeds over `floor` and over `control`, each by itself.
        method_gains: the best method against each other one.
    """

    epsilon: float
    winner: TrialRecord | None
    seeds: tuple[TrialRecord, ...]
    floor_run: TrialRecord | None
    ceiling_run: TrialRecord | None
    control_run: TrialRecord | None
    by_method: dict[str, TrialRecord]
    searched: tuple[TrialRecord, ...] = ()
    method_seeds: Mapping[str, tuple[TrialRecord, ...]] = field(default_factory=dict)
    other_controls: tuple[TrialRecord, ...] = ()
    is_divided: bool = False
    people: int | None = None
    rescored: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    method_errors: Mapping[str, float] = field(default_factory=dict)
    interval: Gain | None = None
    gains: Mapping[str, Gain] = field(default_factory=dict)
    method_gains: tuple[MethodGain, ...] = ()

    @property
    def winner_score(self) -> float | None:
        """Score of the winner on the people of the verdict."""
        return self.shown(self.winner)

    @property
    def seed_scores(self) -> tuple[float, ...]:
        """Scores of the fresh seeds."""
        return tuple(found for record in self.seeds if (found := score_of(record)) is not None)

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
        """What the winner has to beat: the highest of floor and controls."""
        return _highest([run for run in (self.floor_run, self.control_run, *self.other_controls) if run is not None])

    @property
    def seed_mean(self) -> float | None:
        """Mean over the fresh seeds. The winner's own score is the best of many and therefore too high, on people that the search saw."""
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

    def seeds_of(self, method: str) -> tuple[TrialRecord, ...]:
        """Fresh seeds of the best trial of a method."""
        return self.method_seeds.get(method, ())

    def method_score(self, method: str) -> float | None:
        """Of a method: the mean of its fresh seeds where it has at least two, else its best trial."""
        seeds = [found for record in self.seeds_of(method) if (found := score_of(record)) is not None]
        return sum(seeds) / len(seeds) if len(seeds) > 1 else self.shown(self.by_method.get(method))

    def trials_of(self, method: str) -> int:
        """How many trials of the search a method had that came to their end."""
        return sum(record.config.method == method for record in self.searched)

    @property
    def dots_differ(self) -> bool:
        """Whether the dots of the search stand on its own people, as more trials than `MOST_RESCORED` are not scored again."""
        return self.is_divided and any(record.trial_id not in self.rescored for record in self.searched)

    def dot(self, record: TrialRecord) -> float | None:
        """Where a trial of the search has its dot."""
        return score_of(record) if self.dots_differ else self.shown(record)

    def shown(self, record: TrialRecord | None) -> float | None:
        """A run's score on the people of the verdict, on whom floor, ceiling and fresh seeds are scored; None where it is not known."""
        if record is None:
            return None
        return self.rescored.get(record.trial_id) if self.is_divided else score_of(record)


def compare(results: SweepResults, epsilons: Sequence[float], *, is_divided: bool = False) -> tuple[Comparison, ...]:
    """One comparison per ε, in the order given. `is_divided`: whether the search was scored on other people."""
    return tuple(_compare_at(results, epsilon, is_divided) for epsilon in epsilons)


def _compare_at(results: SweepResults, epsilon: float, is_divided: bool) -> Comparison:
    winner = results.best(epsilon)
    by_method: dict[str, TrialRecord] = {}
    searched = [
        record for record in results.records if record.role == "search" and record.epsilon == epsilon and score_of(record) is not None
    ]
    for record in sorted(searched, key=lambda one: score_of(one) or 0.0):
        by_method[record.config.method] = record
    reruns = [record for record in results.of_role("seed", epsilon) if score_of(record) is not None]
    return Comparison(
        epsilon=epsilon,
        winner=winner,
        seeds=tuple(record for record in results.seeds(epsilon) if score_of(record) is not None),
        floor_run=_highest(_comparable(_public_runs(results, is_divided=is_divided), winner)),
        ceiling_run=_highest(_comparable(results.of_role("ceiling"), winner)),
        control_run=_highest(_comparable(results.of_role("control", epsilon), winner)),
        by_method=by_method,
        searched=tuple(searched),
        method_seeds={
            method: tuple(record for record in reruns if record.config == best.config) for method, best in by_method.items() if reruns
        },
        other_controls=tuple(record for record in _comparable(results.of_role("control"), winner) if record.epsilon != epsilon),
        is_divided=is_divided,
    )


def _public_runs(results: SweepResults, *, is_divided: bool) -> list[TrialRecord]:
    """Every public recipe that the sweep tried: its floors, and trials of the search that read no private record, where these were scored
    on the same people."""
    searched = [] if is_divided else results.of_role("search")
    return [
        *results.of_role("floor"),
        *(record for record in searched if not (record.config.adds_noise or record.config.traits.is_unbounded)),
    ]


def with_errors(comparison: Comparison, counts: Mapping[str, Counts]) -> Comparison:
    """The comparison with its standard errors and the intervals of its gains, from the scores of single people (trial id → counts)."""
    runs = {
        "winner": comparison.winner,
        "floor": comparison.floor_run,
        "control": comparison.control_run,
        "ceiling": comparison.ceiling_run,
    }
    errors = {name: score_stderr(counts[run.trial_id]) for name, run in runs.items() if run is not None and run.trial_id in counts}
    seeds = _counts_of(comparison.seeds, counts)
    if (of_mean := mean_stderr(seeds)) is not None:
        errors["seeds"] = of_mean
    bars = {name: runs[name] for name in ("floor", "control")}
    against = {name: gain_over(counts[run.trial_id], seeds) for name, run in bars.items() if run is not None and run.trial_id in counts}
    bar = comparison.bar
    found = replace(
        comparison,
        people=next((len(one) for one in counts.values()), None),
        rescored={run.trial_id: score(counts[run.trial_id]) for run in comparison.searched if run.trial_id in counts},
        errors=errors,
        interval=None if bar is None or bar.trial_id not in counts else gain_over(counts[bar.trial_id], seeds),
        gains={name: gain for name, gain in against.items() if gain is not None},
    )
    return replace(found, method_errors=_method_errors(found, counts), method_gains=_method_gains(found, counts))


def _counts_of(records: Sequence[TrialRecord], counts: Mapping[str, Counts]) -> list[Counts]:
    """Of all the records, or of none."""
    return [counts[record.trial_id] for record in records] if all(record.trial_id in counts for record in records) else []


def _method_errors(comparison: Comparison, counts: Mapping[str, Counts]) -> dict[str, float]:
    found: dict[str, float] = {}
    for method, best in comparison.by_method.items():
        of_seeds = mean_stderr(_counts_of(comparison.seeds_of(method), counts))
        if of_seeds is not None:
            found[method] = of_seeds
        elif best.trial_id in counts:
            found[method] = score_stderr(counts[best.trial_id])
    return found


def _method_gains(comparison: Comparison, counts: Mapping[str, Counts]) -> tuple[MethodGain, ...]:
    """The method with the highest score against each other one, the closest first."""
    scores = {method: found for method in comparison.by_method if (found := comparison.method_score(method)) is not None}
    first, *others = sorted(scores, key=lambda method: -scores[method]) or [""]
    reruns = {method: _counts_of(comparison.seeds_of(method), counts) for method in scores}
    return tuple(MethodGain(method=first, other=other, gain=gain_over(reruns[other], reruns[first])) for other in others)


def shown_runs(comparisons: Sequence[Comparison]) -> tuple[TrialRecord, ...]:
    """The trials whose scores a report shows with an error, each once. Where the search was scored on other people, all of its trials are
    among them, so that their dots stand beside floor and ceiling; of more than `MOST_RESCORED` the best of each method alone."""
    bars = (run for one in comparisons for run in (*one.seeds, one.winner, one.floor_run, one.control_run, one.ceiling_run, one.bar))
    shown = (*bars, *(run for one in comparisons for run in one.by_method.values()))
    again = [run for one in comparisons for seeds in one.method_seeds.values() for run in seeds]
    searched = [run for one in comparisons if one.is_divided for run in one.searched]
    if len(searched) <= MOST_RESCORED:
        again += searched
    return tuple({run.trial_id: run for run in (*shown, *again) if run is not None}.values())


def _comparable(records: Sequence[TrialRecord], winner: TrialRecord | None) -> list[TrialRecord]:
    """Those that were scored as the winner was: with the same evaluation, on the same pixels."""
    return [record for record in records if winner is None or compared_alike(record.config, winner.config)]


def _highest(records: Sequence[TrialRecord]) -> TrialRecord | None:
    return max((record for record in records if score_of(record) is not None), key=lambda one: score_of(one) or 0.0, default=None)


def _score_or_none(record: TrialRecord | None) -> float | None:
    return None if record is None else score_of(record)


def score_of(record: TrialRecord) -> float | None:
    """The score of a trial that ran to its end, on the people that it was scored on."""
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
        "best private trial without views": max((found for found in scores if found is not None), default=None),
        "ceiling: no privacy": next((one.ceiling for one in comparisons), None),
    }
