"""The search at one ε: parallel coordinates, importances and learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from dpcore.train.reports import EPSILON_SPENT
from search_spaces.space import Choice
from sweeps.records.results import TrialRecord
from sweeps.report.comparison import Comparison, score_of
from sweeps.report.curves import points_of
from sweeps.report.details.details import SearchAt, ShownTrial
from sweeps.report.details.importance import Importances
from sweeps.report.details.settings import SearchedSetting, text_of
from sweeps.report.page import svg
from sweeps.report.page.looks import CEILING, FLOOR, look_of
from sweeps.report.text import percent

AXIS_PX, PARALLEL_HEIGHT, TOP, BOTTOM = 118.0, 300.0, 44.0, 24.0
SIDE_PX = 58.0
MOST_POINTS = 60
SHADES = ("#c6ced6", "#a9bccd", "#86a6c3", "#5f8fb8", "#3a75a8", "#175a8f", "#08406b")
"""From low to high scores: one hue that gets darker, so that the best lines stand out on white, in print and without colours."""
BEST_COLOUR = "#d55e00"


def draw_parallel(search: SearchAt, *, metric: str) -> str | None:
    """Every finished trial as a line over its settings, to its score on the right. None with fewer than two trials or no setting."""
    finished = sorted(search.finished, key=_score)
    settings = [one for one in search.settings if one.choices is None or len(one.choices) > 1]
    if len(finished) < 2 or not settings:
        return None
    low, high = TOP, PARALLEL_HEIGHT - BOTTOM
    scores = [_score(one) for one in finished]
    bounds = svg.around(scores, margin=0.03)
    scales = [_Axis(one, finished, low=high, high=low) for one in settings]
    last = svg.AxisScale(low=bounds[0], high=bounds[1], start=high, end=low)
    width = 2 * SIDE_PX + AXIS_PX * len(settings)
    body = []
    for one in finished:
        places = [(SIDE_PX + AXIS_PX * number, scale(one)) for number, scale in enumerate(scales)]
        points = [*places, (width - SIDE_PX, last(_score(one)))]
        is_best = one is finished[-1]
        colour = BEST_COLOUR if is_best else _shade(_score(one), scores)
        body.append(svg.path(points, kind="strand best" if is_best else "strand", colour=colour, trial=one.record.trial_id))
    for number, setting in enumerate(settings):
        body += _axis_parts(setting, SIDE_PX + AXIS_PX * number, finished, low=low, high=high)
    body += _score_axis(last, width - SIDE_PX, metric)
    label = f"parallel coordinates of {len(finished)} trials at ε = {search.epsilon:g} over {', '.join(one.label for one in settings)}"
    return svg.figure(body, width=width, height=PARALLEL_HEIGHT, label=label, kind="parallel")


class _Axis:
    """Where a trial crosses the axis of a setting; below it where the setting is not active."""

    def __init__(self, setting: SearchedSetting, trials: Sequence[ShownTrial], *, low: float, high: float) -> None:
        self._path, self._missing = setting.path, low + 12
        parameter = setting.parameter
        if isinstance(parameter, Choice):
            self._places = {
                value: low + (number + 0.5) / len(parameter.choice) * (high - low) for number, value in enumerate(parameter.choice)
            }
            self._scale = None
        else:
            self._places = {}
            self._scale = svg.AxisScale(low=parameter.bounds[0], high=parameter.bounds[1], start=low, end=high, log=parameter.log)

    def __call__(self, one: ShownTrial) -> float:
        value = one.drawn.get(self._path)
        if value is None:
            return self._missing
        if self._scale is not None and isinstance(value, int | float):
            return self._scale(value)
        return self._places.get(value, self._missing)


def _axis_parts(setting: SearchedSetting, x: float, trials: Sequence[ShownTrial], *, low: float, high: float) -> list[str]:
    found = [svg.line(x, low, x, high, kind="axis"), svg.text(x, 14, setting.label, kind="name", anchor="middle")]
    parameter = setting.parameter
    if isinstance(parameter, Choice):
        for number, value in enumerate(parameter.choice):
            y = high + (number + 0.5) / len(parameter.choice) * (low - high)
            found.append(svg.text(x + 5, y - 3, _choice_name(setting, value), kind="tick halo"))
    else:
        scale = svg.AxisScale(low=parameter.bounds[0], high=parameter.bounds[1], start=high, end=low, log=parameter.log)
        for value in scale.ticks(4):
            found += [
                svg.line(x - 3, scale(value), x + 3, scale(value), kind="axis"),
                svg.text(x + 6, scale(value) + 4, f"{value:g}", kind="tick halo"),
            ]
    if any(setting.path not in one.drawn for one in trials):
        found.append(svg.text(x + 6, high + 16, "not used", kind="tick halo"))
    return [*found, _brush(x, low, high + 18)]


def _choice_name(setting: SearchedSetting, value: object) -> str:
    return look_of(str(value)).name if setting.path == "method" else text_of(value)


def _score_axis(scale: svg.AxisScale, x: float, metric: str) -> list[str]:
    found = [svg.line(x, scale.start, x, scale.end, kind="axis"), svg.text(x, 14, f"{metric}, %", kind="name", anchor="middle")]
    for value in scale.ticks(6):
        found += [
            svg.line(x - 3, scale(value), x + 3, scale(value), kind="axis"),
            svg.text(x + 6, scale(value) + 4, f"{100 * value:g}", kind="tick"),
        ]
    return [*found, _brush(x, scale.end, scale.start)]


def _brush(x: float, top: float, bottom: float) -> str:
    """Where a person drags along an axis."""
    return f'<rect class="brush" x="{x - 12:.0f}" y="{top:.0f}" width="24" height="{bottom - top:.0f}"/>'


def _shade(score: float, scores: Sequence[float]) -> str:
    """The shade of a score between the lowest and the highest one."""
    low, high = min(scores), max(scores)
    share = 1.0 if high == low else (score - low) / (high - low)
    return SHADES[round(share * (len(SHADES) - 1))]


def draw_importances(found: Importances) -> str | None:
    """Bars of the shares; None where there are too few trials to tell."""
    if not found.shares:
        return None
    row, left = 24.0, 132.0
    x = svg.AxisScale(low=0.0, high=max(found.shares.values()), start=left, end=svg.PANEL_WIDTH - 46)
    body = []
    for number, (label, share) in enumerate(found.shares.items()):
        y = 6 + row * number
        body.append(svg.text(left - 8, y + 14, label, kind="name", anchor="end"))
        body.append(f'<rect class="share" x="{left:.1f}" y="{y + 3:.1f}" width="{max(1.0, x(share) - left):.1f}" height="14" rx="2"/>')
        body.append(svg.text(x(share) + 6, y + 14, f"{percent(share, 0)} %", kind="tick"))
    label = "; ".join(f"{label} {percent(share, 0)} percent" for label, share in found.shares.items())
    return svg.figure(
        body, width=svg.PANEL_WIDTH, height=row * len(found.shares) + 12, label=f"importance at ε = {found.epsilon:g}: {label}"
    )


def draw_learning(search: SearchAt, one: Comparison, *, metric: str) -> str | None:
    """Scores over private steps, with ε spent on top; None where no trial has two reports."""
    trials = [shown.record for shown in search.trials if len(points_of(shown.record)) > 1]
    seeds = [record for record in one.seeds if len(points_of(record)) > 1]
    if not trials:
        return None
    width, height, left, right, top, bottom = 560.0, 300.0, 40.0, 12.0, 46.0, 40.0
    every = [point for record in (*trials, *seeds) for point in points_of(record)]
    bars = [score for score in (one.floor, one.ceiling) if score is not None]
    low, high = svg.around([score for _, score in every] + bars)
    x = svg.AxisScale(low=0.0, high=float(max(step for step, _ in every)), start=left, end=width - right)
    y = svg.AxisScale(low=max(0.0, low), high=min(1.0, high), start=height - bottom, end=top)
    body = svg.percent_axis(y, left=left, right=width - right)
    body += [svg.text(x(step), height - bottom + 16, f"{step:g}", kind="tick", anchor="middle") for step in x.ticks(6)]
    body += [
        svg.text((left + width - right) / 2, height - 6, "private steps", kind="title", anchor="middle"),
        svg.text(4, 12, f"{metric}, %", kind="title"),
    ]
    body += _spent_axis(one.winner or trials[0], x, top)
    for look, score in ((CEILING, one.ceiling), (FLOOR, one.floor)):
        if score is not None:
            body += [svg.line(left, y(score), width - right, y(score), kind=f"reference {look.dash}", colour=look.colour)]
            body += [svg.text(width - right, y(score) - 4, look.name, kind="tick halo", anchor="end")]
    for record in trials:
        is_best = one.winner is not None and record.trial_id == one.winner.trial_id
        body.append(_learning_curve(record, x, y, kind="learning winner" if is_best else "learning"))
    body += [_learning_curve(record, x, y, kind="learning seed") for record in seeds]
    label = (
        f"{metric} over private steps of {len(trials)} trials at ε = {search.epsilon:g}; the winner's line is thick, fresh seeds are dashed"
    )
    return svg.figure(body, width=width, height=height, label=label)


def _learning_curve(record: TrialRecord, x: svg.AxisScale, y: svg.AxisScale, *, kind: str) -> str:
    points = points_of(record)
    stride = -(-len(points) // MOST_POINTS)
    kept = [*points[:-1:stride], points[-1]]
    colour = look_of(record.config.method).colour
    return svg.path([(x(step), y(score)) for step, score in kept], kind=kind, colour=colour, trial=record.trial_id)


def _spent_axis(record: TrialRecord, x: svg.AxisScale, top: float) -> list[str]:
    """ε that a run has spent after so many steps, from its own reports; nothing where it spends none."""
    spent = {point.step: point.metrics[EPSILON_SPENT] for point in record.curve if EPSILON_SPENT in point.metrics}
    if not spent:
        return []
    found, last = [svg.text((x.start + x.end) / 2, 12, f"ε spent by {record.trial_id}", kind="title", anchor="middle")], -1e9
    for step, epsilon in spent.items():
        if x(step) - last >= 46 or step == max(spent):
            anchor = "end" if x(step) > x.end - 14 else "middle"
            if step == max(spent) and x(step) - last < 46:
                continue
            found += [svg.text(x(step), 27, f"{epsilon:.3g}", kind="tick", anchor=anchor), svg.line(x(step), 31, x(step), 36, kind="axis")]
            last = x(step)
    return [*found, svg.line(x.start, 36, x.end, 36, kind="axis")]


def _score(one: ShownTrial) -> float:
    return score_of(one.record) or 0.0
