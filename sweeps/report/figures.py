"""Draws the main figure of a sweep, PCKh over ε with floor, ceiling and control, and accuracy over disclosure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import METHODS
from dpcore.privacy.disclosure import CLOSE
from sweeps.report.comparison import Comparison
from sweeps.report.disclosure import DisclosureRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPARISON_STEM = "pckh_over_epsilon"
DISCLOSURE_STEM = "pckh_over_disclosure"


def draw_comparison(comparisons: Sequence[Comparison], *, title: str, caption: str, metric: str = "PCKh@0.5") -> Figure:
    """Draws the winners with their fresh seeds, the best trial of each method, and floor, control and ceiling.

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
    _draw_methods(axes, ordered)
    _draw_references(axes, ordered)
    _draw_winners(axes, ordered)
    epsilons = [one.epsilon for one in ordered]
    if len(epsilons) > 1:
        axes.set_xscale("log")
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes.minorticks_off()
    low, high = epsilons[0], epsilons[-1]
    margin = 1.35 if low == high else (high / low) ** 0.12
    axes.set_xlim(low / margin, high * margin)
    axes.set_xlabel("ε of one trial (target)")
    axes.set_ylabel(f"{metric} on validation, %")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    figure.supxlabel(caption, fontsize="x-small", x=0.02, ha="left", wrap=True)
    return figure


def _draw_methods(axes: Axes, ordered: Sequence[Comparison]) -> None:
    present = {name for one in ordered for name in one.by_method}
    for method in (METHODS.get(name) for name in METHODS.names() if name in present):
        if method.is_private:
            points = [(one.epsilon, one.by_method[method.name].score) for one in ordered if method.name in one.by_method]
            scores = [100 * score for _, score in points if score is not None]
            label = f"{method.label or method.name} (best trial)"
            axes.plot([x for x, _ in points], scores, color=method.colour, marker=method.marker, ms=5, lw=1, alpha=0.8, label=label)


def _draw_references(axes: Axes, ordered: Sequence[Comparison]) -> None:
    ceilings = [one.ceiling for one in ordered if one.ceiling is not None]
    if ceilings:
        axes.axhline(100 * ceilings[0], color="#555555", ls="--", lw=1.2, label="ceiling: no privacy (ε = ∞)")
    styles = (("floor", "#cc3311", "floor: public part alone (free)"), ("control", "#ee7733", "control: private part off (free)"))
    for name, colour, label in styles:
        points = [(one.epsilon, score) for one in ordered if (score := getattr(one, name)) is not None]
        if points and name == "floor" and len({score for _, score in points}) == 1:
            axes.axhline(100 * points[0][1], color=colour, ls="--", lw=1.2, label=label)
        elif points:
            axes.plot(
                [x for x, _ in points], [100 * y for _, y in points], color=colour, marker="_", ms=18, mew=2, ls=":", lw=1, label=label
            )


def _draw_winners(axes: Axes, ordered: Sequence[Comparison]) -> None:
    seeded = [one for one in ordered if one.seed_mean is not None]
    if not seeded:
        return
    means = [100 * (one.seed_mean or 0.0) for one in seeded]
    below = [mean - 100 * min(one.seed_scores) for mean, one in zip(means, seeded, strict=True)]
    above = [100 * max(one.seed_scores) - mean for mean, one in zip(means, seeded, strict=True)]
    axes.errorbar(
        [one.epsilon for one in seeded],
        means,
        yerr=[below, above],
        fmt="*",
        ms=13,
        color="black",
        capsize=5,
        lw=1.5,
        zorder=5,
        label="winner, fresh seeds (mean, lowest to highest)",
    )


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
    styles = [("floor: trained only on the views", "#cc3311", "s", [(x, one.floor) for one, x in placed])]
    colours = ("#66ccee", "#4477aa", "#aa3377", "#228833", "#ccbb44")
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
    axes.axvspan(CLOSE, 1.02, color="#cc3311", alpha=0.08, label="the view nearly shows the image")
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
