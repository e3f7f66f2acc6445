"""Draws the main figure of a sweep, PCKh over ε with floor, ceiling and control, and accuracy over disclosure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config import METHODS
from dpcore.privacy.disclosure import CLOSE
from sweeps.report.comparison import DOTS_DIFFER, Comparison
from sweeps.report.disclosure import DisclosureRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPARISON_STEM = "pckh_over_epsilon"
DISCLOSURE_STEM = "pckh_over_disclosure"


def draw_comparison(comparisons: Sequence[Comparison], *, title: str, caption: str, metric: str = "PCKh@0.5") -> Figure:
    """Draws every trial as a dot, the best one of each method with its error bar, the winners' fresh seeds, and floor, control, ceiling.

    Nothing joins the best trials of a method over ε: they are the best of unequally many.

    Args:
        comparisons: One per ε.
        title: The sweep's name.
        caption: What choosing cost, and whether the data is a stand-in for protected data.
    """
    from matplotlib.figure import Figure

    ordered = sorted(comparisons, key=lambda one: one.epsilon)
    # A Figure object instead of pyplot: no global state, no display.
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    _draw_references(axes, ordered)
    _draw_methods(axes, ordered)
    _draw_winners(axes, ordered)
    axes.set_xticks(range(len(ordered)), [f"{one.epsilon:g}" for one in ordered])
    axes.set_xlim(-0.6, len(ordered) - 0.4)
    axes.set_xlabel("ε of one trial (target)")
    axes.set_ylabel(f"{metric} on validation, %")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    if any(one.dots_differ for one in ordered):
        caption = f"{DOTS_DIFFER}. {caption}"
    figure.supxlabel(caption, fontsize="x-small", x=0.02, ha="left", wrap=True)
    return figure


def _draw_methods(axes: Axes, ordered: Sequence[Comparison]) -> None:
    present = {record.config.method for one in ordered for record in one.searched}
    methods = [method for method in (METHODS.get(name) for name in METHODS.names() if name in present) if method.is_private]
    for number, method in enumerate(methods):
        shift = 0.0 if len(methods) == 1 else 0.56 * (number / (len(methods) - 1) - 0.5)
        style: dict[str, Any] = {"color": method.colour, "marker": method.marker, "ls": ""}
        own = [
            (place, [found.dot(one) for one in found.searched if one.config.method == method.name]) for place, found in enumerate(ordered)
        ]
        points = [(place + shift, 100 * score) for place, scores in own for score in scores if score is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], ms=4, alpha=0.45, mew=0, **style)
        best = [(place + shift, found, one) for place, one in enumerate(ordered) if (found := one.method_score(method.name)) is not None]
        axes.errorbar(
            [x for x, _, _ in best],
            [100 * score for _, score, _ in best],
            yerr=[100 * one.method_errors.get(method.name, 0.0) for _, _, one in best],
            ms=6,
            mec="black",
            mew=0.8,
            capsize=2,
            lw=1,
            label=f"{method.label or method.name} (best trial outlined)",
            **style,
        )


def _draw_references(axes: Axes, ordered: Sequence[Comparison]) -> None:
    styles = (
        ("ceiling", "#6e7781", (0, (8, 2, 2, 2)), "ceiling: no privacy (ε = ∞)"),
        ("floor", "#d55e00", "--", "floor: public part alone (free)"),
        ("control", "#56b4e9", ":", "control: private part off (free)"),
    )
    for name, colour, dash, label in styles:
        points = [(place, score) for place, one in enumerate(ordered) if (score := getattr(one, name)) is not None]
        for number, (place, score) in enumerate(points):
            shown = label if number == 0 else None
            axes.plot([place - 0.5, place + 0.5], [100 * score, 100 * score], color=colour, ls=dash, lw=1.4, label=shown)


def _draw_winners(axes: Axes, ordered: Sequence[Comparison]) -> None:
    seeded = [(place, one) for place, one in enumerate(ordered) if one.seed_mean is not None]
    if not seeded:
        return
    known = all("seeds" in one.errors for _, one in seeded)
    bars = [_seed_bar(one, known=known) for _, one in seeded]
    axes.errorbar(
        [place + 0.4 for place, _ in seeded],
        [100 * (one.seed_mean or 0.0) for _, one in seeded],
        yerr=[[100 * low for low, _ in bars], [100 * high for _, high in bars]],
        fmt="*",
        ms=12,
        color="black",
        capsize=4,
        lw=1.5,
        zorder=5,
        label=f"winner, fresh seeds (mean, {'one standard error' if known else 'lowest to highest'})",
    )


def _seed_bar(one: Comparison, *, known: bool) -> tuple[float, float]:
    """How far the bar of the fresh seeds reaches below and above their mean."""
    mean = one.seed_mean or 0.0
    if known:
        return one.errors["seeds"], one.errors["seeds"]
    return mean - min(one.seed_scores), max(one.seed_scores) - mean


def draw_disclosure(
    rows: Sequence[DisclosureRow], bars: Mapping[str, float | None], *, title: str, caption: str, metric: str = "PCKh@0.5"
) -> Figure:
    """Draws accuracy over disclosure, with one column of points per split: is the accuracy worth what the views show?

    Args:
        rows: One per split.
        bars: Scores that need no view, by name. Each is a horizontal line.
        title: The sweep's name.
        caption: How disclosure was measured.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    placed = [(one, value) for one in rows if (value := one.disclosure.disclosure) is not None]
    epsilons = sorted({epsilon for one, _ in placed for epsilon in one.by_epsilon})
    styles = [("floor: trained only on the views", "#d55e00", "s", [(x, one.floor) for one, x in placed])]
    colours = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
    for number, epsilon in enumerate(epsilons):
        label = f"best trial that reads the views, ε = {epsilon:g}"
        styles.append((label, colours[number % len(colours)], "^", [(x, one.by_epsilon[epsilon]) for one, x in placed]))
    for label, colour, marker, points in styles:
        known = [(x, 100 * y) for x, y in points if y is not None]
        if known:
            axes.plot([x for x, _ in known], [y for _, y in known], color=colour, marker=marker, ms=6, ls="", label=label, zorder=3)
    for name, score in bars.items():
        if score is not None:
            axes.axhline(100 * score, color="#555555", ls="--", lw=1, label=f"{name}: {100 * score:.1f}")
    for one, x in placed:
        axes.annotate(one.name, (x, 0.01), xycoords=("data", "axes fraction"), rotation=90, fontsize="x-small", ha="right", va="bottom")
        axes.axvline(x, color="#dddddd", lw=1, zorder=1)
    axes.axvspan(CLOSE, 1.02, color="#d55e00", alpha=0.08, label="the view nearly shows the image")
    axes.set_xlim(-0.03, 1.02)
    axes.set_xlabel("split/disclosure: share of the pose that a public model reads off the best reconstruction")
    axes.set_ylabel(f"{metric} on validation, %")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="x-small")
    figure.supxlabel(caption, fontsize="x-small", x=0.02, ha="left", wrap=True)
    return figure


def save_figures(figure: Figure, folder: Path, *, stem: str = COMPARISON_STEM) -> tuple[Path, ...]:
    """Writes PNG and SVG without dates and with fixed ids, so that equal results give equal files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{stem}.{ending}" for ending in ("png", "svg"))
    with mpl.rc_context({"svg.hashsalt": "dpsweep"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
