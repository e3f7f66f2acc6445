"""What a private gradient costs beside a plain one: ratios, measured side by side in one run.

    python benchmarks/bench_private_step.py [--batch 64] [--rounds 9] [--out benchmarks/results/private_step.json]

One round times every contender once, in turn, so that a busy machine slows them all; the figures are medians over rounds.
`plain` is one forward and one backward for the mean gradient. The network is the small one on 64x64 crops of random pixels,
whole (`freeze: none`) and with its last block and head alone on the features below them (`freeze: early`).
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig, Places
from dpcore.model.network import build_network, codec_of
from dpcore.privacy.clipping import clip_rows
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.evaluator import loss_of

CONFIG = ModelConfig()
CLIP_NORM = 1.0


def contenders(tail: nn.Module, batch: Batch) -> dict[str, Callable[[], Tensor]]:
    """The ways to a (clipped) gradient sum (P,) of one batch."""
    loss = loss_of(codec_of(CONFIG))
    unhooked = copy.deepcopy(tail)
    engine = GradientEngine(tail, loss)

    def vmap_rows() -> Tensor:
        parameters = {name: p.detach() for name, p in unhooked.named_parameters()}

        def one(weights: dict[str, Tensor], inputs: Tensor, keypoints: Tensor, visible: Tensor) -> Tensor:
            def module(images: Tensor) -> Tensor:
                return torch.func.functional_call(unhooked, weights, (images,))

            return loss(module, Batch(inputs[None], keypoints[None], visible[None])).sum()  # type: ignore[arg-type]

        with_respect_to_weights = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0, 0))
        rows = with_respect_to_weights(parameters, batch.inputs, batch.keypoints, batch.visible)
        return clip_rows(torch.cat([rows[name].flatten(1) for name in parameters], dim=1), CLIP_NORM).sum().value

    return {
        "plain": lambda: engine.sum_gradient(batch),
        "dpsgd (hooks, ours)": lambda: clip_rows(engine.rows(batch), CLIP_NORM).sum().value,
        "dpsgd (torch.func vmap)": vmap_rows,
        "feature pair (hooks, ours)": lambda: clip_rows(engine.residual_rows(batch, batch, 0.5), CLIP_NORM).sum().value,
    }


def measure(freeze: str, *, batch_size: int, rounds: int) -> dict[str, float]:
    """Median seconds of each contender."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(CONFIG, Places(data_dir=Path(), cache_dir=Path()), generator=generator)
    split = network.split(freeze)  # type: ignore[arg-type]
    images = torch.rand(batch_size, 3, CONFIG.input_height_px, CONFIG.input_width_px, generator=generator) * 2 - 1
    with torch.no_grad():
        inputs = split.stem(images)
    keypoints = torch.rand(batch_size, 16, 2, generator=generator) * 60
    ways = contenders(split.tail, Batch(inputs, keypoints, torch.ones(batch_size, 16, dtype=torch.bool)))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if round_number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_step.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for freeze in ("none", "early"):
        medians = measure(freeze, batch_size=args.batch, rounds=args.rounds)
        results[freeze] = {name: {"median_s": round(s, 4), "ratio_to_plain": round(s / medians["plain"], 2)} for name, s in medians.items()}
        for name, row in results[freeze].items():
            print(f"freeze {freeze:6} {name:28} {row['median_s']:.4f} s  {row['ratio_to_plain']:.2f}x")
    document = {
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": 1,
        "device": "cpu",
        "processor": platform.machine(),
        "torch": version("torch"),
        "opacus": version("opacus"),
        "results": results,
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
