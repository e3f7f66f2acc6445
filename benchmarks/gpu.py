"""What a GPU makes of a private step: everything that cannot be measured on a CPU, in under ten minutes on one GPU.

    python benchmarks/gpu.py [--device cuda] [--quick] [--out benchmarks/results/gpu.json]

- *steps*: a clipped sum beside a plain gradient, in float32 and bf16, on the networks of `step_networks.py`: ratio of seconds, and of peak
  memory.
- *host syncs*: how often one clipped sum makes the host wait for the device, counted by torch's sync debug mode. The numbers that are
  sealed facts of a batch (rows clipped, loss) stay there until a report asks.
- *data*: milliseconds a batch of augmented crops, resident on the device and from the host.
- *noise*: milliseconds for a million normals, from the CPU's Philox with the copy, and from the device's generator.
- *trial*: one small trial, end to end, on synthetic people, with both flags of the device.

`--device cpu --quick` runs the same code on a machine without a GPU, to test it; it writes no result unless `--out` is given.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from step_networks import PROBLEMS, Missing, Problem, small

from dpcore.config import AugmentationConfig, Places, Precision, RuntimeFlags, parse_config
from dpcore.config.trial import TrialConfig
from dpcore.data.synthetic import synth
from dpcore.data.transforms import draw_geometry
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey
from dpcore.train.handout import Handout
from dpcore.train.resident import ResidentCrops
from dpcore.train.sources import ImageInputs
from dpcore.train.trainer import run_trial

RESULT = Path(__file__).parent / "results" / "gpu.json"
CLIP_NORM, PUBLIC_WEIGHT = 1e-2, 0.5
TURNED = AugmentationConfig(flip_prob=0.5, scale_frac=0.25, rotate_deg=30, rotate_prob=0.6)


def main(arguments: list[str]) -> dict[str, Any]:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="one network, one round, few examples")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here: run it on a machine with one, or with --device cpu --quick")
    device, rounds = torch.device(given.device), 1 if given.quick else 15
    began = time.monotonic()
    found = {
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "steps": _steps(device, rounds, quick=given.quick),
        "data": _data(device, rounds, count=8 if given.quick else 10_000),
        "noise": _noise(device, rounds, count=1000 if given.quick else 10**6),
        "trial": _trial(given.device, steps=2 if given.quick else 200, people=12 if given.quick else 2_000),
    }
    found["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(found, indent=1))
    out = given.out or (RESULT if given.device == "cuda" and not given.quick else None)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _steps(device: torch.device, rounds: int, *, quick: bool) -> dict[str, Any]:
    problems = {"small net, last block and head, 4": lambda: small("early", 4)} if quick else PROBLEMS
    found: dict[str, Any] = {}
    for name, make in problems.items():
        try:
            problem = make()
        except Missing as error:
            found[name] = f"left out: {error}"
            continue
        found[name] = {precision: _step(problem, device, precision, rounds) for precision in ("fp32", "bf16")}
    return found


def _step(problem: Problem, device: torch.device, precision: Precision, rounds: int) -> dict[str, float]:
    """Ratios to a plain gradient of the same batch and precision."""
    engine = GradientEngine(copy.deepcopy(problem.tail).to(device), problem.loss, precision=precision)
    batch, views = (_moved(part, device) for part in (problem.batch, problem.views))
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: engine.sum_gradient(batch),
        "dpsgd": lambda: engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM),
        "pair": lambda: engine.clipped_sum(batch, views, PUBLIC_WEIGHT, clip_norm=CLIP_NORM),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(_seconds(way, device))
    peaks = {name: _peak_bytes(way, device) for name, way in ways.items()}
    found: dict[str, float] = {"plain_ms": round(1e3 * statistics.median(seconds["plain"]), 3)}
    for name in ("dpsgd", "pair"):
        found[name] = round(statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)), 3)
        found[f"{name}_host_syncs"] = _host_syncs(ways[name], device)
        if device.type == "cuda":
            found[f"{name}_memory"] = round(peaks[name] / peaks["plain"], 3)
    engine.close()
    return found


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.inputs.to(device), batch.keypoints.to(device), batch.visible.to(device))


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _finished(device)
    began = time.perf_counter()
    work()
    _finished(device)
    return time.perf_counter() - began


def _peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The growth of allocated memory at its peak; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    _finished(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    _finished(device)
    return torch.cuda.max_memory_allocated(device) - before


def _host_syncs(work: Callable[[], object], device: torch.device) -> int:
    """How often the host waits for the device; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


class _Crops:
    """Random crops of 192 px."""

    def __init__(self, count: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 192, 192, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self.pixels[indices]


def _data(device: torch.device, rounds: int, *, count: int) -> dict[str, float]:
    crops = _Crops(count)
    resident = ResidentCrops(torch.from_numpy(crops.pixels).to(device), None)
    rows = np.random.default_rng(1).permutation(count)[:64]
    draw = draw_geometry(TURNED, len(rows), PublicStreams(0).stream("augmentation"))
    found = {"batch": float(len(rows)), "examples_mb": crops.pixels.nbytes / 1e6}
    for name, inputs in {"resident": resident, "host": ImageInputs(crops, None, device)}.items():
        inputs.take(rows, draw)
        times = [_seconds(lambda inputs=inputs: inputs.take(rows, draw), device) for _ in range(rounds)]  # type: ignore[misc]
        found[f"{name}_ms"] = round(1e3 * statistics.median(times), 3)
    return found


def _noise(device: torch.device, rounds: int, *, count: int) -> dict[str, float]:
    streams = PrivateStreams(key=SweepKey(bytes(32)), trial_id="bench", noise_device=None if device.type == "cpu" else device.type)
    ways: dict[str, Callable[[], object]] = {
        "host_ms": lambda: torch.as_tensor(streams.stream("noise", 0).normal(count), device=device),
        "device_ms": lambda: streams.noise(0).normal(count),
    }
    for way in ways.values():
        way()
    return {name: round(1e3 * statistics.median(_seconds(way, device) for _ in range(rounds)), 3) for name, way in ways.items()}


def _trial(device: str, *, steps: int, people: int) -> dict[str, float]:
    """Seconds of a dpsgd trial of the small net on synthetic people, from its start to its score."""
    with tempfile.TemporaryDirectory(prefix="dpsweep-") as folder:
        places = Places(data_dir=Path(folder) / "data", cache_dir=Path(folder) / "cache")
        synth(places.data_dir / "private", "private", count=people, seed=0, role="PRIVATE")
        for seed, name in enumerate(("public", "validation")):
            synth(places.data_dir / name, "public", count=people, seed=seed, role="PUBLIC")
        config = parse_config(TrialConfig, _trial_config(steps, people))
        flags = {"device": device, "data_on_device": device == "cuda", "noise_on_device": device == "cuda"}
        runtime = parse_config(RuntimeFlags, {**flags, "report_every_steps": steps, "physical_batch_size": 64})
        plan = plan_privacy(config, places.cache_dir)
        began = time.monotonic()
        handout = Handout(places=places, trial_id="bench", key=SweepKey(bytes(32)), folder=None, plan=plan)
        reports = list(run_trial(config, runtime, handout))
        seconds = time.monotonic() - began
        return {"steps": reports[-1].step, "seconds": round(seconds, 2), "steps_per_s": round(steps / seconds, 2)}


def _trial_config(steps: int, people: int) -> dict[str, Any]:
    return {
        "method": "dpsgd",
        "data": {"private": "private", "public": "public", "validation": "validation", "nominal_examples": people},
        "model": {"freeze": "early"},
        "stages": {"public": {"steps": 2, "batch_size": 8}, "private": {"steps": steps, "expected_batch_size": 4}},
        "augmentation": TURNED.model_dump(),
        "epsilon": 1.0,
        "delta": 1e-3,
        "clip_norm": 0.5,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
