"""Whether a sweep keeps the slots of a pretend cluster busy: Ray nodes of one slot each, trials of ten seconds of sleep.

    python benchmarks/bench_cluster.py [--nodes 32] [--waves 12] [--data-dir data] [--out ...]

Every node is a raylet of its own with one CPU and one worker process (about 170 MB and 60 MB); the sweep is the real one:
searcher, ledger with real accounting, MLflow into SQLite. A trial keeps its slot from the first moment of its sleep to its last.
`occupancy` is the share of all slots' time that trials slept, from the moment when every slot had begun its first
trial until the last trial was begun; `whole` is from the first beginning to the last end, the filling and the tail
included, which get smaller with more waves.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench_driver import sweep_spec
from simulated_space import EPSILONS

from sweeps.engine.simulation import REPORTS_FILE, SLEEP_S
from sweeps.ray_runtime.ray_auth import MODE, guard_own_ray

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec

Span = tuple[float, float]


@contextmanager
def pretend_cluster(nodes: int) -> Iterator[str]:
    """The address of `nodes` Ray nodes with one CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    from sweeps.ray_runtime.ray_session import OBJECT_STORE_BYTES, QUIET

    os.environ.update(QUIET)
    settings = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(wait=False, **settings)
        cluster.wait_for_nodes(timeout=300)
        yield cluster.address
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def slept(spec: SweepSpec) -> list[Span]:
    """When each trial slept, by the times of its files: its folder is made before, its last report is written after."""
    folders = (spec.sweep_dir / "checkpoints").iterdir()
    ends = [(folder / REPORTS_FILE).stat().st_mtime for folder in folders]
    return [(end - SLEEP_S, end) for end in sorted(ends)]


def occupancy(spans: Sequence[Span], *, slots: int, window: Span) -> float:
    """The share of `slots` that spans fill within a window."""
    begin, end = window
    return sum(max(0.0, min(until, end) - max(since, begin)) for since, until in spans) / (slots * (end - begin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--waves", type=int, default=12, help="trials per slot")
    parser.add_argument("--data-dir", type=lambda path: Path(path).absolute(), default=Path("data").absolute())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cluster.json")
    args = parser.parse_args()
    guard_own_ray()
    os.environ[MODE] = "token"  # before Ray's import: it reads both once, and a Cluster's nodes do not ask by default
    from sweeps.engine.driver import run_sweep
    from sweeps.engine.preflight import default_surroundings, plan_of

    trials = args.nodes * args.waves // len(EPSILONS) * len(EPSILONS)
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as folder:
        spec = sweep_spec(trials, Path(folder), args.data_dir)
        spec = spec.model_copy(update={"trial_function": "sweeps.engine.simulation:sleeping_trial", "max_concurrent": None})
        around = replace(default_surroundings(spec.places.cache_dir), say=lambda _: None)
        plan_of(spec, around)
        with pretend_cluster(args.nodes) as address:
            began = time.monotonic()
            run_sweep(spec.model_copy(update={"address": address}), around)
            seconds = time.monotonic() - began
        spans = slept(spec)
    first, last = sorted(since for since, _ in spans)[args.nodes - 1], max(since for since, _ in spans)
    document = {
        "nodes": args.nodes,
        "trials": len(spans),
        "trial_s": SLEEP_S,
        "ray": version("ray"),
        "cpus": os.cpu_count(),
        "seconds": round(seconds, 1),
        "occupancy": round(occupancy(spans, slots=args.nodes, window=(first, last)), 4),
        "whole": round(occupancy(spans, slots=args.nodes, window=(spans[0][0], spans[-1][1])), 4),
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
