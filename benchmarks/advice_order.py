"""Holds the order that `dpsweep advise` predicts for LSPET against the committed sweep.

    dpsweep data import hrnet --annotations lspet/val.json --images lspet/images --out data/lspet/val --role PUBLIC --zero-based
    dpsweep data import coco --annotations coco/person_keypoints.json --images coco/images --out data/coco_mini/train --role PUBLIC \\
        --skeleton mpii_16
    python benchmarks/advice_order.py --data-dir data [--on coco_mini/train] [--out benchmarks/results/advice.json]

Cells are methods × ε. Spearman's rank correlation of what a method is predicted to keep with its best and its median score among the
searched trials. Eight cells of two to five trials each: 0.74 is significant at 5 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
from scipy.stats import spearmanr

import dpsweep
from dpcore.durable import write_json

TRIALS = Path(__file__).parent / "results" / "lspet" / "trials.parquet"
SETTINGS = ["sweep.delta=1e-4"]
"""As the sweep was run."""


def scores() -> dict[tuple[float, str], list[float]]:
    """The searched trials' PCKh@0.5 by ε and method."""
    found: dict[tuple[float, str], list[float]] = {}
    for row in pq.read_table(TRIALS).to_pylist():
        if row["role"] == "search" and row["pckh_50"] is not None:
            found.setdefault((row["epsilon"], row["method"]), []).append(row["pckh_50"])
    return found


def main(arguments: Sequence[str]) -> None:
    """Predicts, compares, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--on", default=None)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args(arguments)
    advice = dpsweep.advise("lspet", on=args.on, data_dir=args.data_dir, set=SETTINGS)
    (scene,) = advice.found.scenes
    kept = {(one.epsilon, one.method): one.kept for one in scene.methods}
    outcomes = scores()
    cells = sorted(kept.keys() & outcomes.keys())
    document: dict[str, Any] = {
        "stand_in": advice.found.stand_in,
        "spearman_best": round(float(spearmanr([kept[c] for c in cells], [max(outcomes[c]) for c in cells]).statistic), 3),
        "spearman_median": round(float(spearmanr([kept[c] for c in cells], [median(outcomes[c]) for c in cells]).statistic), 3),
        "cells": [
            {
                "epsilon": epsilon,
                "method": method,
                "kept": round(kept[epsilon, method], 3),
                "best": round(max(outcomes[epsilon, method]), 4),
                "median": round(median(outcomes[epsilon, method]), 4),
                "trials": len(outcomes[epsilon, method]),
            }
            for epsilon, method in cells
        ],
    }
    print(advice)
    print()
    for cell in document["cells"]:
        print("  ".join(f"{name} {value}" for name, value in cell.items()))
    print(f"rank correlation with the best scores {document['spearman_best']}, with the median ones {document['spearman_median']}")
    if args.out is not None:
        write_json(args.out, document)


if __name__ == "__main__":
    main(sys.argv[1:])
