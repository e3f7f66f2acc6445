"""Two sweeps side by side: in which settings their spaces differ, and what came out at each ε, at which price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.report.comparison import compare
from sweeps.report.text import number, percent
from sweeps.terminal.tables import render_table

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec
    from sweeps.report.comparison import Comparison

ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One sweep at one ε: its winner, the mean of the winner's fresh seeds, and the floor. Scores are fractions; None is not known."""

    sweep: str
    epsilon: float
    trial_id: str | None
    method: str | None
    score: float | None
    seed_mean: float | None
    floor: float | None


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What `dpsweep compare` shows.

    Attributes:
        names: of the two sweeps. metrics: the titles of what each maximised.
        prices: ε of each sweep as a whole; None where it promises nothing or has not ended. deltas: of the prices.
        settings: dotted path of the space → its value in both, where they differ.
        outcomes: of each ε that either has, the first sweep's before the second's.
    """

    names: tuple[str, str]
    metrics: tuple[str, str]
    prices: tuple[float | None, float | None]
    deltas: tuple[float, float]
    settings: Mapping[str, tuple[str, str]]
    outcomes: tuple[Outcome, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether the two scores are of one metric."""
        return self.metrics[0] == self.metrics[1]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "settings": {path: list(both) for path, both in self.settings.items()}}

    def text(self) -> str:
        """For a person."""
        rows = [
            [
                f"{one.epsilon:g}",
                one.sweep,
                one.trial_id or ABSENT,
                one.method or ABSENT,
                *map(percent, (one.score, one.seed_mean, one.floor)),
            ]
            for one in self.outcomes
        ]
        title = self.metrics[0] if self.is_comparable else "score"
        parts = [render_table(["ε", "sweep", "winner", "method", f"{title} %", "fresh seeds %", "floor %"], rows)]
        if not self.is_comparable:
            parts.append(f"the scores are of different metrics: {self.names[0]} {self.metrics[0]}, {self.names[1]} {self.metrics[1]}")
        prices = [
            f"{name}: ε = {number(price)} at δ = {delta:.3g}"
            for name, price, delta in zip(self.names, self.prices, self.deltas, strict=True)
        ]
        parts.append("price of the whole sweep\n" + "\n".join(f"  {one}" for one in prices))
        if self.settings:
            parts.append(render_table(["setting", "", *self.names], [[path, "", *both] for path, both in self.settings.items()]))
        else:
            parts.append("their spaces are the same")
        return "\n\n".join(parts)


def put_side_by_side(first: tuple[SweepSpec, SweepResults], second: tuple[SweepSpec, SweepResults]) -> SideBySide:
    """Compares two sweeps as far as they have come."""
    both = (first, second)
    epsilons = sorted({epsilon for spec, _ in both for epsilon in spec.space.sweep.epsilons})
    outcomes = [
        _outcome(spec.name, compare(found, [epsilon], is_divided=spec.space.sweep.verdict_people is not None)[0])
        for epsilon in epsilons
        for spec, found in both
        if epsilon in spec.space.sweep.epsilons
    ]
    flat = [dict(_leaves(spec.space.document())) for spec, _ in both]
    paths = [path for path in dict.fromkeys([*flat[0], *flat[1]]) if path != "name" and flat[0].get(path) != flat[1].get(path)]
    return SideBySide(
        names=(first[0].name, second[0].name),
        metrics=(first[1].metric_title, second[1].metric_title),
        prices=(first[1].sweep_epsilon, second[1].sweep_epsilon),
        deltas=(first[1].delta, second[1].delta),
        settings={path: (flat[0].get(path, ABSENT), flat[1].get(path, ABSENT)) for path in paths},
        outcomes=tuple(outcomes),
    )


def _outcome(sweep: str, found: Comparison) -> Outcome:
    winner = found.winner
    return Outcome(
        sweep=sweep,
        epsilon=found.epsilon,
        trial_id=None if winner is None else winner.trial_id,
        method=None if winner is None else winner.config.method,
        score=found.winner_score,
        seed_mean=found.seed_mean,
        floor=found.floor,
    )


def _leaves(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a nested document under its dotted path, as a text."""
    for key, value in values.items():
        path = f"{place}.{key}" if place else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        elif isinstance(value, list):
            yield path, ", ".join(str(one) for one in value) or "none"
        elif value is not None and value != {}:
            yield path, str(value)
