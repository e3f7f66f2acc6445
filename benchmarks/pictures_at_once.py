"""How many pictures should go through a frozen network at once: milliseconds a picture on one core, by the number of pictures.

    python benchmarks/pictures_at_once.py --data-dir data [--weights models/movenet_thunder] [--side 256] [--repeats 5]
        [--out benchmarks/results/pictures_at_once.json]

Features of frozen layers, public views and scores of whole networks all take this road. Pictures are random: time does not depend on them.
Sizes are measured in turn, round after round, and the medians are compared. 64 at once is what dpsweep 0.1 did; `dpcore.devices` says
how many it takes now.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dpcore.devices import pictures_at_once
from dpcore.durable import write_json
from dpcore.model.folded import load_folded

LAYERS = {
    "models/efficientnet_lite0_imagenet": ["b4.add", "b10.add", "b15.project"],
    "models/movenet_lightning": ["heat.out"],
    "models/movenet_thunder": ["heat.out"],
}
SIZES = (1, 2, 4, 8, 16, 32, 64)


def milliseconds(network: torch.nn.Module, pictures: torch.Tensor, size: int) -> float:
    """Of one picture, so many at once."""
    start = time.perf_counter()
    with torch.no_grad():
        for some in torch.split(pictures, size):
            network(some)
    return 1000 * (time.perf_counter() - start) / len(pictures)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line a network and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--weights", nargs="*", choices=sorted(LAYERS), default=sorted(LAYERS))
    parser.add_argument("--side", type=int, default=256, help="of a picture, in px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    pictures = torch.rand(max(SIZES), 3, arguments.side, arguments.side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = {}
    for weights in arguments.weights:
        network = load_folded(arguments.data_dir / weights, LAYERS[weights], packed=True).eval()
        milliseconds(network, pictures[:8], 8)
        rounds = [{size: milliseconds(network, pictures, size) for size in SIZES} for _ in range(arguments.repeats)]
        medians = {size: statistics.median(one[size] for one in rounds) for size in SIZES}
        now = pictures_at_once(pictures)
        found[weights] = {
            "side_px": arguments.side,
            "ms_a_picture": {str(size): round(value, 1) for size, value in medians.items()},
            "at_once_now": now,
            "64_at_once_over_now": round(medians[64] / medians[now], 2),
        }
        print(weights, found[weights])
    if arguments.out is not None:
        write_json(arguments.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
