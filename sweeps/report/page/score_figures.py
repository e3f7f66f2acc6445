"""Accuracy against disclosure, and the score of each joint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpcore.privacy.disclosure import CLOSE
from sweeps.report.details.joints import JointScores
from sweeps.report.disclosure import DisclosureRow
from sweeps.report.page import svg
from sweeps.report.page.looks import CEILING, FLOOR, INK
from sweeps.report.text import percent

EPSILON_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#1b1f24")
EPSILON_MARKERS = ("o", "^", "s", "D", "P", "X", "v", "*")


def draw_disclosure_figure(rows: Sequence[DisclosureRow], bars: Mapping[str, float | None], *, metric: str) -> str | None:
    """What each public view shows against the accuracy that it allows. None where no split could be measured."""
    placed = [(row, value) for row in rows if (value := row.disclosure.disclosure) is not None]
    marks = [score for row, _ in placed for score in (row.floor, *row.by_epsilon.values()) if score is not None]
    if not placed or not marks:
        return None
    width, height, left, right, bottom = 600.0, 320.0, 42.0, 152.0, 44.0
    low, high = svg.around([*marks, *(score for score in bars.values() if score is not None)])
    x = svg.AxisScale(low=0.0, high=1.0, start=left, end=width - right)
    y = svg.AxisScale(low=max(0.0, low), high=min(1.0, high), start=height - bottom, end=24)
    body = [f'<rect class="close" x="{x(CLOSE):.1f}" y="24" width="{x(1) - x(CLOSE):.1f}" height="{height - bottom - 24:.1f}"/>']
    body += [svg.text(x(1) - 4, 36, "nearly shows the picture", kind="tick", anchor="end")]
    body += svg.percent_axis(y, left=left, right=width - right)
    body += [svg.text(x(value), height - bottom + 16, f"{value:g}", kind="tick", anchor="middle") for value in (0, 0.25, 0.5, 0.75, 1)]
    body += [
        svg.text(
            (left + width - right) / 2,
            height - 8,
            "disclosure of the public view (0 a blind guess, 1 the original)",
            kind="title",
            anchor="middle",
        )
    ]
    body += [svg.text(4, 12, f"{metric}, %", kind="title")]
    body += [part for name, score in bars.items() if score is not None for part in _bar(name, score, y, left=left, right=width - right)]
    epsilons = sorted({epsilon for row, _ in placed for epsilon in row.by_epsilon})
    for row, value in placed:
        body += _column(row, value, epsilons, x, y)
    body += _key(epsilons, width - right + 14)
    said = "; ".join(f"{row.name}: disclosure {value:.2f}, floor {percent(row.floor)} percent" for row, value in placed)
    return svg.figure(body, width=width, height=height, label=f"{metric} over disclosure. {said}", kind="wide")


def _bar(name: str, score: float, y: svg.AxisScale, *, left: float, right: float) -> list[str]:
    look = CEILING if name.startswith("ceiling") else None
    line = svg.line(left, y(score), right, y(score), kind="reference ceiling" if look else "reference control", colour=CEILING.colour)
    return [line, svg.text(left + 4, y(score) - 4, f"{name} {percent(score)}", kind="tick halo")]


def _column(row: DisclosureRow, value: float, epsilons: Sequence[float], x: svg.AxisScale, y: svg.AxisScale) -> list[str]:
    found = [svg.line(x(value), y.start, x(value), y.end, kind="grid"), svg.text(x(value) + 4, y.start - 6, row.name, kind="name")]
    if row.floor is not None:
        says = f"floor of {row.name}: {percent(row.floor)} %, disclosure {value:.2f}"
        found.append(svg.mark("_", x(value), y(row.floor), colour=FLOOR.colour, kind="dot best", says=says))
    for number, epsilon in enumerate(epsilons):
        score = row.by_epsilon.get(epsilon)
        if score is not None:
            shape, colour = EPSILON_MARKERS[number % len(EPSILON_MARKERS)], EPSILON_COLOURS[number % len(EPSILON_COLOURS)]
            says = f"best trial with {row.name} at ε = {epsilon:g}: {percent(score)} %"
            found.append(svg.mark(shape, x(value), y(score), colour=colour, kind="dot best", says=says))
    return found


def _key(epsilons: Sequence[float], x: float) -> list[str]:
    found = [svg.mark("_", x + 6, 34, colour=FLOOR.colour, kind="dot key"), svg.text(x + 18, 38, "floor (views alone)", kind="name")]
    for number, epsilon in enumerate(epsilons):
        y = 54 + 18 * number
        shape, colour = EPSILON_MARKERS[number % len(EPSILON_MARKERS)], EPSILON_COLOURS[number % len(EPSILON_COLOURS)]
        found += [svg.mark(shape, x + 6, y, colour=colour, kind="dot key"), svg.text(x + 18, y + 4, f"best, ε = {epsilon:g}", kind="name")]
    return found


def draw_joints(one: JointScores) -> str:
    """One line per joint: floor, winner and ceiling."""
    row, left, right, top = 21.0, 104.0, 14.0, 30.0
    height = top + row * len(one.joints) + 26
    known = [score for joint in one.joints for score in (joint.winner, joint.floor, joint.ceiling) if score is not None]
    low, high = svg.around(known)
    x = svg.AxisScale(low=max(0.0, low), high=min(1.0, high), start=left, end=svg.PANEL_WIDTH - right)
    body = _joint_key(left)
    for value in x.ticks(4):
        body += [
            svg.line(x(value), top - 4, x(value), height - 24, kind="grid"),
            svg.text(x(value), height - 8, f"{100 * value:g}", kind="tick", anchor="middle"),
        ]
    for number, joint in enumerate(one.joints):
        y = top + row * (number + 0.5)
        name = joint.joint.replace("_", " ")
        body.append(svg.text(left - 8, y + 4, name, kind="name", anchor="end"))
        marks = [
            (joint.floor, "|", FLOOR.colour, "floor"),
            (joint.ceiling, "|", CEILING.colour, "ceiling"),
            (joint.winner, "o", INK, "winner"),
        ]
        places = [x(score) for score, *_ in marks if score is not None]
        if len(places) > 1:
            body.append(svg.line(min(places), y, max(places), y, kind="span"))
        for score, shape, colour, kind in marks:
            if score is not None:
                body.append(svg.mark(shape, x(score), y, colour=colour, kind="dot", says=f"{name}, {kind}: {percent(score)} %"))
    said = ", ".join(f"{joint.joint} {percent(joint.winner, 0)}" for joint in one.joints)
    return svg.figure(body, width=svg.PANEL_WIDTH, height=height, label=f"PCKh@0.5 of each joint at ε = {one.epsilon:g}, percent: {said}")


def _joint_key(left: float) -> list[str]:
    found = []
    for x, shape, colour, name in ((0.0, "|", FLOOR.colour, "floor"), (62.0, "o", INK, "winner"), (136.0, "|", CEILING.colour, "ceiling")):
        found += [svg.mark(shape, left + x, 12, colour=colour, kind="dot key"), svg.text(left + x + 10, 16, name, kind="name")]
    return found
