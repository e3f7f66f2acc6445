"""Where the hybrid wins: every method in every cell of a grid of ε, trained parameters, public view and start, at equal settings.

    python benchmarks/phase_diagram.py benchmarks/results/phase_diagram/from_floor.yaml [MORE.yaml ...] [--seeds 3]
        [--out benchmarks/results/phase_diagram] [--storage DIR]

Each space is a grid over method, split and `model.freeze` at several ε, and is swept once per seed: initialisation and public stages are
the same in all sweeps, and only the noise and the drawn people differ. A cell holds the methods that have the same freezing, split and ε;
a method without views stands in the cells of all splits where its space gives it none. Gains are paired over the same validation people,
with their standard error over people and seeds. The control is feature DP without its private part (`private_weight: 0`): what views alone
give. The hybrid wins a cell where it lies above DP-SGD, projected DP-SGD, feature DP, control and floor by two of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kept_sweeps import storage_of, swept

import dpsweep
from dpcore.durable import write_json
from sweeps.report.uncertainty import Counts, Gain, counts_of, gain_over, mean_stderr, score

METHODS = ("dpsgd", "projected", "feature", "feature_projected")
HYBRID, CONTROL, FLOOR = "feature_projected", "control", "floor"
CLEAR = 2.0
"""Standard errors that make a gain a win."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Where a cell stands in the diagram."""

    space: str
    freeze: str
    split: str
    epsilon: float


@dataclass
class Cell:
    """The people's scores of each method's runs, and those of the floor."""

    runs: dict[str, list[Counts]] = field(default_factory=dict)
    floor: Counts | None = None

    def gain(self, other: str) -> Gain | None:
        """What the hybrid gains over another method, or over the floor."""
        if other == FLOOR:
            return None if self.floor is None else gain_over(self.floor, self.runs[HYBRID])
        return gain_over(self.runs[other], self.runs[HYBRID])

    def hybrid_wins(self) -> bool:
        """Whether the hybrid lies above each of its parts, above control and above floor by two standard errors."""
        gains = [self.gain(other) for other in (*(one for one in METHODS if one != HYBRID), CONTROL, FLOOR)]
        return all(gain is not None and gain.mean > CLEAR * gain.stderr for gain in gains)


def add(cells: dict[Place, Cell], results: dpsweep.Results, space: str) -> None:
    """Puts the runs of one sweep into their cells."""
    counts = counts_of(results.spec, results.trials)
    splits = sorted(results.spec.space.splits)
    for one in results.trials:
        if one.trial_id not in counts:
            raise SystemExit(f"{one.trial_id} of {results.name} has no score: {one.state} {one.error or ''}")
        freeze = str(one.config.model.freeze)
        own = [one.config.split.name] if one.config.split is not None else splits
        for split in own:
            for epsilon in results.epsilons if one.role == FLOOR else [float(one.epsilon or 0.0)]:
                cell = cells.setdefault(Place(space=space, freeze=freeze, split=split, epsilon=epsilon), Cell())
                if one.role == "search":
                    method = CONTROL if one.config.private_weight == 0 else one.config.method
                    cell.runs.setdefault(method, []).append(counts[one.trial_id])
                elif one.role == FLOOR and (cell.floor is None or score(counts[one.trial_id]) > score(cell.floor)):
                    cell.floor = counts[one.trial_id]


def table(cells: Mapping[Place, Cell]) -> str:
    """A row per cell, in percent."""
    head = ("start", "trained", "view", "ε", FLOOR, CONTROL, *METHODS, "hybrid − projected", "hybrid − best other", "hybrid wins")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for place in sorted(cells):
        cell = cells[place]
        if not cell.runs:
            continue
        best = max((method for method in METHODS if method != HYBRID), key=lambda method: mean(cell.runs[method]))
        shown = [place.space, place.freeze, place.split, f"{place.epsilon:g}"]
        shown.append("" if cell.floor is None else f"{100 * score(cell.floor):.1f}")
        shown += [scored(cell.runs[method]) for method in (CONTROL, *METHODS)]
        shown += [said(cell.gain("projected")), f"{said(cell.gain(best))} ({best})", "yes" if cell.hybrid_wins() else "no"]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def scored(runs: Sequence[Counts]) -> str:
    """The mean score of several runs, in percent, with its standard error where there is more than one."""
    error = mean_stderr(runs)
    return f"{100 * mean(runs):.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def said(gain: Gain | None) -> str:
    """A gain in points, with its standard error."""
    return "" if gain is None else f"{100 * gain.mean:+.2f} ± {100 * gain.stderr:.2f}"


def mean(runs: Sequence[Counts]) -> float:
    """The mean score of several runs."""
    return sum(map(score, runs)) / len(runs)


def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps the spaces, prints the table, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", type=Path, nargs="+", metavar="SPACE.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--cache-dir", type=Path, default=None)
    parser.add_argument("--storage", type=Path, default=None, metavar="DIR", help="keeps the sweeps, and goes on with them")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR")
    arguments = parser.parse_args(argv)
    cells: dict[Place, Cell] = {}
    text = ""
    with storage_of(arguments.storage) as storage:
        for seed in range(arguments.seeds):
            for space in arguments.spaces:
                print(f"== {space.stem}, seed {seed + 1}", file=sys.stderr)
                name = f"{space.stem}-{seed}"
                results = swept(space, name=name, storage=storage, data_dir=arguments.data_dir, cache_dir=arguments.cache_dir)
                add(cells, results, space.stem)
                text = table(cells)
                if arguments.out is not None:
                    (arguments.out / "table.md").write_text(text, encoding="utf-8")
                    write_json(arguments.out / "cells.json", documents(cells))
    print(text)
    return 0


def documents(cells: Mapping[Place, Cell]) -> list[dict[str, object]]:
    """The cells as JSON."""
    return [document(place, cells[place]) for place in sorted(cells) if cells[place].runs]


def document(place: Place, cell: Cell) -> dict[str, object]:
    """A cell as JSON: scores of every run, as fractions."""
    runs = {method: [round(score(one), 5) for one in cell.runs[method]] for method in (CONTROL, *METHODS)}
    return {**vars(place), "floor": None if cell.floor is None else round(score(cell.floor), 5), "runs": runs, "wins": cell.hybrid_wins()}


if __name__ == "__main__":
    sys.exit(main())
