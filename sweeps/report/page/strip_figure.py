"""The strip of an answer: floor, control, ceiling and the winner's fresh seeds of one ε on one line. All strips share a scale."""

from __future__ import annotations

from sweeps.report.comparison import Comparison
from sweeps.report.page import svg
from sweeps.report.page.looks import CEILING, CONTROL, FLOOR, INK, look_of
from sweeps.report.text import percent

HEIGHT, LINE, LEFT, RIGHT = 92, 46, 10, 10
LABEL_PX = 62.0


def draw_strip(one: Comparison, *, scores: tuple[float, float], metric: str) -> str:
    """The strip of one ε.

    Args:
        one: what is shown.
        scores: lowest and highest score of all strips, as fractions.
        metric: title of the score.
    """
    x = svg.AxisScale(low=scores[0], high=scores[1], start=LEFT + 8, end=svg.PANEL_WIDTH - RIGHT - 8)
    body = [svg.line(LEFT, LINE, svg.PANEL_WIDTH - RIGHT, LINE, kind="grid")]
    for value in x.ticks(6):
        body += [svg.line(x(value), LINE - 3, x(value), LINE + 3, kind="grid")]
        body += [svg.text(x(value), HEIGHT - 4, f"{100 * value:g}", kind="tick", anchor="middle")]
    named: list[tuple[float, str]] = []
    for look, name in ((CEILING, "ceiling"), (CONTROL, "control"), (FLOOR, "floor")):
        score, error = getattr(one, name), one.errors.get(name)
        if score is None:
            continue
        if error is not None:
            body.append(svg.line(x(score - error), LINE, x(score + error), LINE, kind="range", colour=look.colour))
        says = f"{name}: {percent(score)} %" + ("" if error is None else f" ± {percent(error)}")
        body.append(svg.mark("|", x(score), LINE, colour=look.colour, kind="dot", says=says))
        named.append((x(score), f"{name} {percent(score)}"))
    body += _winner(one, x, named)
    body += _names(named)
    shown = ", ".join(name for _, name in sorted(named))
    return svg.figure(body, width=svg.PANEL_WIDTH, height=HEIGHT, label=f"ε = {one.epsilon:g}, {metric} in percent: {shown}")


def _winner(one: Comparison, x: svg.AxisScale, named: list[tuple[float, str]]) -> list[str]:
    if one.winner is None:
        return []
    look = look_of(one.winner.config.method)
    if one.seed_mean is None:
        score = one.winner_score
        if score is None:
            return []
        named.append((x(score), f"best trial {percent(score)}"))
        return [svg.mark(look.marker, x(score), LINE, colour=look.colour, kind="dot", trial=one.winner.trial_id)]
    error = one.errors.get("seeds")
    found = []
    if error is not None:
        found.append(svg.line(x(one.seed_mean - error), LINE, x(one.seed_mean + error), LINE, kind="range", colour=INK))
    scored = [(record.trial_id, record.score or 0.0) for record in one.seeds]
    found += [svg.mark(look.marker, x(score), LINE, colour=look.colour, kind="dot", trial=name) for name, score in scored]
    named.append((x(one.seed_mean), f"fresh seeds {percent(one.seed_mean)}"))
    return found


def _names(named: list[tuple[float, str]]) -> list[str]:
    """Names in two lines above and one below, so that none lies on another."""
    found, ends = [], dict.fromkeys((16.0, 30.0, 72.0), -1000000000.0)
    for place, name in sorted(named):
        half = 3.1 * len(name)
        middle = min(max(place, half), svg.PANEL_WIDTH - half)
        row = next((row for row in (30.0, 16.0, 72.0) if ends[row] <= middle - half), 72.0)
        ends[row] = middle + half + 4
        edge = LINE - 8 if row < LINE else LINE + 8
        found += [
            svg.line(place, edge, middle, row + (3 if row < LINE else -10), kind="lead"),
            svg.text(middle, row, name, kind="name", anchor="middle"),
        ]
    return found
