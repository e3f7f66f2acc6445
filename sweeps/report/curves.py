"""Draws learning curves (PCKh over private steps): one figure per trial, and one per ε with all its trials.

A curve needs two points, so floors and trials with one score have no curve. The driver draws curves from the reports that it
received, so they show only released states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.records.results import title_of
from sweeps.records.trial_id import epsilon_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sweeps.records.results import SweepResults, TrialRecord

FOLDER = "curves"
FEWEST_POINTS = 2
OTHER_COLOUR = "#555555"

Points = list[tuple[int, float]]


def points_of(record: TrialRecord) -> Points:
    """(private steps, score as a fraction) of every report that has a score."""
    return [(point.step, point.metrics[record.metric_key]) for point in record.curve if record.metric_key in point.metrics]


def has_curve(record: TrialRecord) -> bool:
    """Whether there are enough points to draw a line."""
    return len(points_of(record)) >= FEWEST_POINTS


def save_trial_curve(record: TrialRecord, folder: Path) -> Path | None:
    """Writes the curve of an ended trial to `<trial_id>.png`. Returns None if it has fewer than two points.

    An existing file is kept: a resume asks for each curve again, but an ended trial reports nothing new.
    """
    if not has_curve(record):
        return None
    path = folder / f"{record.trial_id}.png"
    if not path.exists():
        _save(_draw_trial(record), path)
    return path


def save_epsilon_curves(results: SweepResults, folder: Path) -> tuple[Path, ...]:
    """Writes one figure per ε with the curves of all its trials and of the ceiling, and the level of the floor.

    An ε without any curve gets no figure.
    """
    paths = []
    for epsilon in results.epsilons:
        drawn = [record for record in results.records if record.epsilon == epsilon and has_curve(record)]
        if drawn:
            path = folder / f"curves_eps_{epsilon_name(epsilon)}.png"
            _save(_draw_epsilon(results, epsilon, drawn), path)
            paths.append(path)
    return tuple(paths)


def _draw_trial(record: TrialRecord) -> Figure:
    target = "" if record.epsilon is None else f", ε = {record.epsilon:g}"
    figure, axes = _empty(f"{record.trial_id}: {record.config.method}{target}", size=(5.2, 3.2), metric=record.metric)
    _line(axes, record, color=_colour(record), marker="o", ms=3, lw=1.5)
    return figure


def _draw_epsilon(results: SweepResults, epsilon: float, drawn: Sequence[TrialRecord]) -> Figure:
    figure, axes = _empty(f"{results.name}: all trials at ε = {epsilon:g}", size=(7.2, 4.6), metric=results.metric)
    best = results.best(epsilon)
    labelled: set[str] = set()
    for record in drawn:
        is_best = best is not None and record.trial_id == best.trial_id
        label = f"{record.trial_id} (best)" if is_best else _label(record)
        style = {"lw": 2.6, "zorder": 5, "marker": "o", "ms": 4} if is_best else {"lw": 1.0, "alpha": 0.75, "ls": _dash(record)}
        _line(axes, record, color=_colour(record), label=None if label in labelled else label, **style)
        labelled.add(label)
    for record in filter(has_curve, results.ceilings):
        _line(axes, record, color=OTHER_COLOUR, ls="--", lw=1.2, label="ceiling: no privacy (ε = ∞)")
    floors = [record.score for record in results.floors if record.state == "done" and record.score is not None]
    if floors:
        axes.axhline(100 * max(floors), color="#d55e00", ls="--", lw=1.2, label="highest floor: public part alone (free)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    return figure


def _empty(title: str, *, size: tuple[float, float], metric: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A Figure object instead of pyplot: no global state, no display.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("private steps")
    axes.set_ylabel(f"{title_of(metric)} on validation, %")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    return figure, axes


def _line(axes: Axes, record: TrialRecord, **style: object) -> None:
    points = points_of(record)
    draw: Callable[..., object] = axes.plot
    draw([step for step, _ in points], [100 * score for _, score in points], **style)


def _colour(record: TrialRecord) -> str:
    return record.config.traits.colour


def _label(record: TrialRecord) -> str:
    method = record.config.traits.label or record.config.method
    kinds = {"seed": " (fresh seeds of the winner)", "control": " (control: private part off)"}
    return f"{method}{kinds.get(record.role, '')}"


def _dash(record: TrialRecord) -> str:
    return {"seed": "-.", "control": ":"}.get(record.role, "-")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
