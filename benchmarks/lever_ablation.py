"""What each lever of a recipe is worth: one setting changed at a time, the same people, the same seeds, one run.

    python benchmarks/lever_ablation.py benchmarks/results/lspet_keypoints/levers.yaml --data-dir data \\
        [--out benchmarks/results/lspet_keypoints/levers.md] [--storage DIR]

The file names a space without a search (each choice has one value), and levers: a name and the settings that it changes. Space and
each lever are swept by `dpsweep.run`: one trial and `references.winner_seeds` fresh seeds at each ε. A gain is that of its runs over
those of the space, paired over the same validation people, with its standard error over people and seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from kept_sweeps import storage_of, swept

import dpsweep
from sweeps.report.uncertainty import Counts, Gain, counts_of, gain_over, mean_stderr, score


def runs_of(results: dpsweep.Results) -> tuple[dict[float, list[Counts]], Counts | None]:
    """Per ε the people's scores of every private run, and those of the floor."""
    counts = counts_of(results.spec, results.trials)
    private = {
        epsilon: [counts[one.trial_id] for one in results.trials if one.role in ("search", "seed") and one.epsilon == epsilon]
        for epsilon in results.epsilons
    }
    floors = [counts[one.trial_id] for one in results.trials if one.role == "floor" and one.trial_id in counts]
    return private, max(floors, key=score, default=None)


def row(name: str, runs: Sequence[Counts], floor: Counts | None, gain: Gain | None) -> str:
    """One line of the table, in percent."""
    mean = sum(map(score, runs)) / len(runs)
    error = mean_stderr(runs)
    shown = [f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")]
    shown.append("" if floor is None else f"{100 * score(floor):.1f}")
    shown.append("" if gain is None else f"{100 * gain.mean:+.2f} ± {100 * gain.stderr:.2f}")
    return f"| {name} | " + " | ".join(shown) + " |"


def table(document: dict[str, Any], space: Path, places: dict[str, Path | None]) -> str:
    """Runs space and levers, and writes the table."""
    lines: list[str] = []
    base: dict[float, list[Counts]] = {}
    rows: dict[float, list[str]] = {}
    with storage_of(places["storage"]) as storage:
        for name, settings in {"the recipe": {}, **document["levers"]}.items():
            print(f"== {name}", file=sys.stderr)
            label = "".join(letter if letter.isalnum() else "-" for letter in name)
            results = swept(space, name=label, storage=storage, set=settings, data_dir=places["data"], cache_dir=places["cache"])
            runs, floor = runs_of(results)
            base = base or runs
            for epsilon, found in runs.items():
                gain = None if found is base[epsilon] else gain_over(base[epsilon], found)
                rows.setdefault(epsilon, []).append(row(name, found, floor, gain))
    for epsilon, found_rows in rows.items():
        count = len(base[epsilon])
        lines += [f"ε = {epsilon:g}, means of {count} runs each, in percent:", ""]
        lines += ["| | private | its floor | against the recipe |", "|---|---|---|---|", *found_rows, ""]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levers", type=Path, metavar="LEVERS.yaml")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--cache-dir", type=Path, default=None)
    parser.add_argument("--storage", type=Path, default=None, metavar="DIR", help="keeps the sweeps, and goes on with them")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args(argv)
    document = yaml.safe_load(arguments.levers.read_text(encoding="utf-8"))
    space = arguments.levers.parent / document["space"]
    text = table(document, space, {"data": arguments.data_dir, "cache": arguments.cache_dir, "storage": arguments.storage})
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
