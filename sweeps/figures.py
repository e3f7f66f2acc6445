"""PCKh over ε: the picture that a sweep is for, with floor, ceiling and control on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD_STYLE = {
    "dpsgd": ("#4477aa", "o", "DP-SGD"),
    "projected": ("#228833", "s", "projected"),
    "feature": ("#ccbb44", "^", "feature"),
    "feature_projected": ("#aa3377", "D", "feature projected"),
}
"""Colour (Paul Tol's bright scheme, safe for colour-blind readers), marker and name per method."""

FILES = ("pckh_over_epsilon.png", "pckh_over_epsilon.svg")


def draw_comparison(comparisons: Sequence[Comparison], *, title: str, caption: str) -> Figure:
    """The winners with their fresh seeds, each method's best, and the lines that a private method must be seen against.

    Args:
        comparisons: One per ε.
        title: The sweep's name.
        caption: What choosing cost, and whether the data stands in for protected data.
    """
    from matplotlib.figure import Figure

    ordered = sorted(comparisons, key=lambda one: one.epsilon)
    # A Figure of its own, not pyplot: no global state, no display.
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
    axes.set_ylabel("PCKh@0.5 on validation, %")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    figure.supxlabel(caption, fontsize="x-small", x=0.02, ha="left", wrap=True)
    return figure


def _draw_methods(axes: Axes, ordered: Sequence[Comparison]) -> None:
    for method, (colour, marker, label) in METHOD_STYLE.items():
        points = [(one.epsilon, one.by_method[method].pckh_50) for one in ordered if method in one.by_method]
        if points:
            scores = [100 * score for _, score in points if score is not None]
            axes.plot([x for x, _ in points], scores, color=colour, marker=marker, ms=5, lw=1, alpha=0.8, label=f"{label} (best trial)")


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


def save_figures(figure: Figure, folder: Path) -> tuple[Path, ...]:
    """Writes PNG and SVG. Without dates and with fixed ids, so that equal results give equal files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / name for name in FILES)
    with mpl.rc_context({"svg.hashsalt": "dpsweep"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
