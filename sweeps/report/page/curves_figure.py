"""Privacy against accuracy: one figure of all methods, and one panel per method with every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpcore.config import METHODS
from sweeps.report.comparison import Comparison
from sweeps.report.details.details import ReportDetails, SearchAt
from sweeps.report.details.expected_best import expected_best
from sweeps.report.page import svg
from sweeps.report.page.looks import CEILING, CONTROL, FLOOR, INK, MarkStyle, look_of
from sweeps.report.text import percent

WIDE, TALL = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 44, 160, 14, 46
PANEL_HEIGHT, PANEL_LEFT, PANEL_RIGHT, PANEL_BOTTOM = 236, 34, 8, 40
GAP_PX = 14.0
WIDEST_PX = 110.0
"""Most room that the dots of an ε take, so that they stay with their ε where there are few."""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where things lie: a slot per ε from left to right, scores upwards."""

    epsilons: tuple[float, ...]
    left: float
    right: float
    bottom: float
    y: svg.AxisScale

    @property
    def slot(self) -> float:
        """Room of an ε."""
        return (self.right - self.left) / len(self.epsilons)

    def x(self, epsilon: float, shift: float = 0.0) -> float:
        """The middle of an ε, moved by a share (-0.5 to 0.5) of the room for its dots."""
        return self.left + (self.epsilons.index(epsilon) + 0.5) * self.slot + shift * min(0.92 * self.slot, WIDEST_PX)

    def axes(self, metric: str, *, ticks: int = 5) -> list[str]:
        parts = svg.percent_axis(self.y, left=self.left, right=self.right, count=ticks)
        parts += [svg.text(self.x(one), self.bottom + 16, f"{one:g}", kind="tick", anchor="middle") for one in self.epsilons]
        middle = (self.left + self.right) / 2
        parts.append(svg.text(middle, self.bottom + 33, "ε of one trial (target)", kind="title", anchor="middle"))
        return [*parts, svg.text(4, 11, f"{metric}, %", kind="title")]


def present_methods(details: ReportDetails) -> tuple[str, ...]:
    """The methods of the search that have a finished trial, in the order of the table of methods; unknown ones last."""
    found = {one.record.config.method for search in details.searches for one in search.finished}
    return tuple(name for name in (*METHODS.names(), *sorted(found - set(METHODS.names()))) if name in found)


def score_range(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Of everything that the figures show, so that all panels share one scale."""
    scores: list[float | None] = list(_dot_scores(comparisons).values())
    for one in comparisons:
        scores += [one.floor, one.control, one.ceiling, *one.seed_scores]
    low, high = svg.around([score for score in scores if score is not None])
    return max(0.0, low), min(1.0, high)


def draw_overview(details: ReportDetails, comparisons: Sequence[Comparison], *, metric: str) -> str:
    """All methods over ε: every trial as a dot, the expected best of equally many trials as a line, the winners' fresh seeds, and floor,
    control and ceiling."""
    ordered = sorted(comparisons, key=lambda one: one.epsilon)
    low, high = score_range(comparisons)
    y = svg.AxisScale(low=low, high=high, start=TALL - BOTTOM, end=TOP + 8)
    frame = _Frame(epsilons=tuple(one.epsilon for one in ordered), left=LEFT, right=WIDE - RIGHT, bottom=TALL - BOTTOM, y=y)
    methods, scores = present_methods(details), _dot_scores(comparisons)
    labels: list[tuple[float, MarkStyle, str]] = []
    body = [*frame.axes(metric), *_references(frame, ordered, labels)]
    for place, method in enumerate(methods):
        look, shift = look_of(method), _shift(place, len(methods))
        body += _dots(frame, details.searches, method, scores, shift=shift, jitter=0.5 / (len(methods) + 1), kind="dot faint")
        points = _expected(frame, details, method, scores)
        if len(points) > 1:
            body.append(svg.path(points, kind="curve", colour=look.colour))
        if points:
            labels.append((points[-1][1], look, look.name))
    body += _winners(frame, ordered)
    body += _labels(labels, frame)
    label = f"{metric} over ε for {', '.join(look_of(name).name for name in methods)}, with floor, control and ceiling"
    return svg.figure(body, width=WIDE, height=TALL, label=label, kind="wide")


def draw_panels(details: ReportDetails, comparisons: Sequence[Comparison], *, metric: str) -> list[tuple[MarkStyle, str]]:
    """One panel per method: every trial as a dot, the best with its error bar, the expected best as a line, floor, control, ceiling."""
    ordered = sorted(comparisons, key=lambda one: one.epsilon)
    low, high = score_range(comparisons)
    bottom = PANEL_HEIGHT - PANEL_BOTTOM
    y = svg.AxisScale(low=low, high=high, start=bottom, end=22)
    frame = _Frame(epsilons=tuple(one.epsilon for one in ordered), left=PANEL_LEFT, right=svg.PANEL_WIDTH - PANEL_RIGHT, bottom=bottom, y=y)
    found, dots = [], _dot_scores(comparisons)
    for method in present_methods(details):
        look = look_of(method)
        body = [*frame.axes(metric, ticks=4), *_references(frame, ordered, [])]
        points = _expected(frame, details, method, dots)
        body += [svg.path(points, kind="curve", colour=look.colour)] if len(points) > 1 else []
        body += _dots(frame, details.searches, method, dots, shift=0.0, jitter=0.55, kind="dot")
        body += [part for one in ordered for part in _best(frame, one, method, look)]
        scores = [percent(one.shown(best)) for one in ordered if (best := one.by_method.get(method)) is not None]
        label = f"{look.name}: {metric} of every trial over ε; best at each ε {', '.join(scores)} percent"
        found.append((look, svg.figure(body, width=svg.PANEL_WIDTH, height=PANEL_HEIGHT, label=label)))
    return found


def _shift(place: int, count: int) -> float:
    """Where a method's dots lie in the slot of an ε, as a share of the slot."""
    return 0.0 if count < 2 else 0.8 * (place / (count - 1) - 0.5)


def _dots(
    frame: _Frame, searches: Sequence[SearchAt], method: str, scores: Mapping[str, float], *, shift: float, jitter: float, kind: str
) -> list[str]:
    look, found = look_of(method), []
    for search in searches:
        own = [one for one in search.finished if one.record.config.method == method and one.record.trial_id in scores]
        for number, one in enumerate(own):
            aside = shift + jitter * ((0.618034 * number) % 1.0 - 0.5)  # an even spread that repeats bit for bit
            x, y = frame.x(search.epsilon, aside), frame.y(scores[one.record.trial_id])
            found.append(svg.mark(look.marker, x, y, colour=look.colour, kind=kind, trial=one.record.trial_id))
    return found


def _expected(frame: _Frame, details: ReportDetails, method: str, scores: Mapping[str, float]) -> list[tuple[float, float]]:
    """The expected best of equally many trials at each ε; empty where numbers are secret."""
    if details.is_sealed or details.common_trials < 1:
        return []
    points = []
    for search in sorted(details.searches, key=lambda one: one.epsilon):
        own = [one.record for one in search.finished if one.record.config.method == method]
        found = [scores[record.trial_id] for record in own if record.trial_id in scores]
        if found and len(found) == len(own):
            points.append((frame.x(search.epsilon), frame.y(expected_best(found, details.common_trials))))
    return points


def _best(frame: _Frame, one: Comparison, method: str, look: MarkStyle) -> list[str]:
    best, score = one.by_method.get(method), one.method_score(method)
    if best is None or score is None:
        return []
    x, error = frame.x(one.epsilon, 0.44), one.method_errors.get(method)
    bar = [] if error is None else [svg.error_bar(x, frame.y(score - error), frame.y(score + error), colour=INK)]
    says = f"best {look.name} trial at ε = {one.epsilon:g}\n{percent(score)} %" + ("" if error is None else f" ± {percent(error)}")
    return [*bar, svg.mark(look.marker, x, frame.y(score), colour=look.colour, kind="dot best", trial=best.trial_id, says=says)]


def _references(frame: _Frame, ordered: Sequence[Comparison], labels: list[tuple[float, MarkStyle, str]]) -> list[str]:
    """Floor, control and ceiling across the slot of each ε."""
    found = []
    for look, name in ((CEILING, "ceiling"), (CONTROL, "control"), (FLOOR, "floor")):
        last: float | None = None
        for one in ordered:
            score = getattr(one, name)
            if score is None:
                continue
            x, last = frame.x(one.epsilon), frame.y(score)
            found.append(svg.line(x - frame.slot / 2, last, x + frame.slot / 2, last, kind=f"reference {look.dash}", colour=look.colour))
        if last is not None:
            labels.append((last, look, {"ceiling": "ceiling (ε = ∞)", "control": "control (free)", "floor": "floor (free)"}[name]))
    return found


def _winners(frame: _Frame, ordered: Sequence[Comparison]) -> list[str]:
    found = []
    for one in ordered:
        if one.seed_mean is None:
            continue
        x, y, error = frame.x(one.epsilon, 0.5), frame.y(one.seed_mean), one.errors.get("seeds")
        low, high = (min(one.seed_scores), max(one.seed_scores)) if error is None else (one.seed_mean - error, one.seed_mean + error)
        says = f"winner's fresh seeds at ε = {one.epsilon:g}\nmean {percent(one.seed_mean)} %, {percent(low)} to {percent(high)}"
        found += [svg.error_bar(x, frame.y(low), frame.y(high), colour=INK), svg.mark("*", x, y, colour=INK, kind="dot star", says=says)]
    return found


def _labels(labels: Sequence[tuple[float, MarkStyle, str]], frame: _Frame) -> list[str]:
    """Names at the right end, each at the height of what it names."""
    places = svg.spread([y for y, _, _ in labels], gap=GAP_PX, low=TOP + 6, high=frame.bottom)
    found = []
    for (y, look, name), place in zip(labels, places, strict=True):
        found.append(svg.line(frame.right + 2, y, frame.right + 14, place, kind="lead", colour=look.colour))
        found.append(svg.mark(look.marker, frame.right + 22, place, colour=look.colour, kind="dot key"))
        found.append(svg.text(frame.right + 33, place + 4, name, kind="name"))
    return found


def _dot_scores(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Trial id → where its dot stands, of every finished trial of the search."""
    return {record.trial_id: score for one in comparisons for record in one.searched if (score := one.dot(record)) is not None}
