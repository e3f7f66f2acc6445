"""The parts of a figure on the page: scales, axes, marks and labels as SVG text.

A figure is SVG in the page itself: it is sharp on any screen, prints, and its text can be read aloud and searched. Marks are `use` of
symbols that stand once in the page, so that a thousand trials stay small. What a mark says when it is pointed at stands in `data-t`; trials
of one id light up together in all figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import escape

PANEL_WIDTH = 340
"""Units of a panel's width: a phone shows them one to one, so that text keeps its size."""

MARKERS: Mapping[str, str] = {
    "o": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "s": "M-3.6,-3.6h7.2v7.2h-7.2z",
    "^": "M0,-4.6L4.4,3.4H-4.4z",
    "v": "M0,4.6L4.4,-3.4H-4.4z",
    "D": "M0,-5L5,0L0,5L-5,0z",
    "P": "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "X": "M-4.4,-2.4l2,-2l2.4,2.4l2.4,-2.4l2,2l-2.4,2.4l2.4,2.4l-2,2l-2.4,-2.4l-2.4,2.4l-2,-2l2.4,-2.4z",
    "*": "M0,-6L1.6,-2L6,-1.9L2.5,0.9L3.7,5L0,2.6L-3.7,5L-2.5,0.9L-6,-1.9L-1.6,-2z",
    "|": "M-1.3,-7h2.6v14h-2.6z",
    "_": "M-7,-1.3h14v2.6h-14z",
}
"""Path of each marker around its own middle, by matplotlib's letters."""

OTHER_MARKER = "v"


@dataclass(frozen=True, kw_only=True)
class AxisScale:
    """A straight map from values to units of a figure; `log`: straight in the logarithm.

    `low` is shown at `start`, `high` at `end`. Where both values are equal, everything lies in the middle.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high = self._raw(self.low), self._raw(self.high)
        share = 0.5 if high == low else (self._raw(value) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values within the scale."""
        if self.log:
            return self._log_ticks(count)
        from matplotlib.ticker import MaxNLocator

        found = MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        margin = 1e-9 * max(1.0, abs(self.high - self.low))
        return [float(value) for value in found if self.low - margin <= value <= self.high + margin]

    def _log_ticks(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [
                factor * 10.0**power
                for power in range(first, last + 1)
                for factor in factors
                if self.low <= factor * 10.0**power * (1 + 1e-9) and factor * 10.0**power <= self.high * (1 + 1e-9)
            ]
            if len(found) <= count:
                break
        return found or [self.low, self.high]

    def _raw(self, value: float) -> float:
        return math.log(value) if self.log else value


def around(values: Sequence[float], *, margin: float = 0.08, least: float = 0.02) -> tuple[float, float]:
    """Lowest and highest value with a margin; at least `least` apart. (0, 1) for none."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = max(margin * (high - low), (least - (high - low)) / 2, 0.0)
    return low - pad, high + pad


def spread(places: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places of labels, moved apart until neighbours are `gap` apart, within bounds where there is room; in the given order."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = [places[number] for number in order]
    for _ in range(60):
        for one in range(len(moved) - 1):
            short = gap - (moved[one + 1] - moved[one])
            if short > 1e-6:
                moved[one] -= short / 2
                moved[one + 1] += short / 2
        over, under = (moved[-1] - high, low - moved[0]) if moved else (0.0, 0.0)
        if over > 0:
            moved[-1] = high
        if under > 0:
            moved[0] = low
    found = [0.0] * len(places)
    for place, number in zip(moved, order, strict=True):
        found[number] = place
    return found


def text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    """A text; `kind`: its CSS class."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{place}{named}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, kind: str, colour: str = "") -> str:
    """A straight line; `kind`: its CSS class."""
    stroke = f' stroke="{colour}"' if colour else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{stroke}/>'


def path(points: Sequence[tuple[float, float]], *, kind: str, colour: str = "", trial: str = "", says: str = "") -> str:
    """A line through points; `trial` and `says` as for `mark`."""
    places = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    stroke = f' stroke="{colour}"' if colour else ""
    return f'<path d="M{places}" class="{kind}"{stroke}{_told(trial, says)}/>'


def mark(shape: str, x: float, y: float, *, colour: str, kind: str = "dot", trial: str = "", says: str = "") -> str:
    """A marker.

    Args:
        shape: one of MARKERS; another one is drawn as OTHER_MARKER.
        x, y: its middle.
        colour: fill.
        kind: CSS class.
        trial: id of the trial that it stands for.
        says: what is shown when it is pointed at; lines divided by a newline.
    """
    symbol = list(MARKERS).index(shape if shape in MARKERS else OTHER_MARKER)
    return f'<use href="#k{symbol}" x="{x:.1f}" y="{y:.1f}" class="{kind}" fill="{colour}"{_told(trial, says)}/>'


def error_bar(x: float, low: float, high: float, *, colour: str) -> str:
    """An upright error bar with caps, from `low` to `high` in units of the figure."""
    caps = "".join(line(x - 4, y, x + 4, y, kind="bar", colour=colour) for y in (low, high))
    return line(x, low, x, high, kind="bar", colour=colour) + caps


def figure(body: Sequence[str], *, width: float, height: float, label: str, kind: str = "") -> str:
    """A figure; `label` is its text for people who do not see it."""
    named = f' class="{kind}"' if kind else ""
    least = f";min-width:{min(width, 560):g}px" if kind == "parallel" else ""
    room = "" if width == PANEL_WIDTH else f' style="max-width:{width:g}px{least}"'
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}"{named}{room}>{"".join(body)}</svg>'


def percent_axis(scale: AxisScale, *, left: float, right: float, count: int = 5) -> list[str]:
    """Grid lines and labels of an upright scale of fractions, in percent."""
    found = []
    for value in scale.ticks(count):
        y = scale(value)
        found += [line(left, y, right, y, kind="grid"), text(left - 6, y + 4, f"{100 * value:g}", kind="tick", anchor="end")]
    return found


def symbols() -> str:
    """The markers, once in a page."""
    found = "".join(f'<path id="k{number}" d="{shape}"/>' for number, shape in enumerate(MARKERS.values()))
    return f'<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>{found}</defs></svg>'


def _told(trial: str, says: str) -> str:
    named = f' data-id="{escape(trial)}"' if trial else ""
    return named + (f' data-t="{escape(says)}"' if says else "")
