"""How many copies of data, views, features and the public subspace the trials of one node hold in memory.

    python benchmarks/bench_node_sharing.py [--workers 1,2,4] [--cache-dir FOLDER] [--out benchmarks/results/node_sharing.json]

Ray actors run trials of embedded data by the code of a sweep's workers and stop before their last report, all of them alive. The
kernel then says of each mapped file how much is in memory, every page divided by the number of its mappings (PSS in
/proc/PID/smaps). `copies` is that sum over the workers by the sum for one worker alone: 1.0 is one copy for all. (The trials draw
people of their own, so that together they may touch up to 7 % more pages than one.) `own_mib` is what a worker holds alone: Python
and its libraries, weights, working memory, the labels and ids of its datasets (`labels_mib` of it), and with one worker the data too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.privacy.randomness import SweepKey
from search_spaces.loader import load_space
from sweeps.engine.searcher import assignment
from sweeps.engine.trainable import TrialTrainable
from sweeps.ray_runtime.ray_session import connected
from sweeps.records.messages import Answer, Assignment
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.storage.envelope import Envelope

STEPS = 40
"""At 256 of 4,000 people a step, all but 7 % of them have been drawn by then."""
RUNTIME = RuntimeFlags(report_every_steps=STEPS - 1, checkpoint_every_steps=1000)
DRAW = {"method": "feature_projected", "split": "blur_3", "clip_norm": 0.3, "subspace.rank": 256, "public_weight": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "cached features": {},
    "augmented pixels": {"augmentation.flip_prob": 0.5, "model.freeze": "backbone"},
}
SHARED_KINDS = ("datasets", "views", "features", "bases")
MIB = 2**20


def config_of(case: str) -> TrialConfig:
    """A hybrid trial of the preset `quick`, with a short public stage."""
    overrides = {"stages.private.steps": STEPS, "stages.public.steps": 20, "optimizer.learning_rate": 3e-3, **CASES[case]}
    return load_space("quick").trial_config(0.8, DRAW, overrides=overrides)


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]  # all at once, on however few cores
class Worker:
    """A sweep's worker, kept from ending its trial."""

    def run(self, trial: Assignment, key: SweepKey, runtime: dict[str, Any]) -> int:
        """Trains up to the report before the last; gives the process id."""
        self._trial = object.__new__(TrialTrainable)
        envelope = Envelope.fresh()
        self._trial.setup(trial.encode(envelope), key=key, envelope=envelope, runtime=runtime)
        answer = Answer.decode(self._trial.step(), envelope)
        if answer.report is None or answer.done:
            raise RuntimeError(f"the trial did not stop half-way: {answer}")
        return os.getpid()


def mapped_kib(pid: int, root: Path) -> Iterator[tuple[Path, int]]:
    """(file below `root`, KiB of PSS) of each mapping of a process."""
    file = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0]:  # a mapping's first line: addresses, flags, offset, device, inode, path
            file = " ".join(line.split()[5:])
        elif name == "Pss" and file.startswith(f"{root}/"):
            yield Path(file), int(value.split()[0])


def own_kib(pid: int) -> int:
    """KiB of pages that no other process maps."""
    rollup = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if ":" in line[:20])
    return sum(int(rollup[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def measure(case: str, workers: int, places: Places) -> dict[str, Any]:
    """Starts so many workers, lets all of them train, and reads what they map."""
    config = config_of(case)
    with tempfile.TemporaryDirectory() as storage:
        spec = SweepSpec(name="bench", space=load_space("quick"), runtime=RUNTIME, places=places, storage=Path(storage))
        records = [TrialRecord(trial_id=f"t{n}", role="search", number=n, epsilon=0.8, config=config) for n in range(workers)]
        trials = [assignment(spec, record, folder=spec.checkpoint_dir(record.trial_id), validation=None) for record in records]
        actors = [Worker.remote() for _ in trials]
        flags = spec.trial_runtime.model_dump(mode="json")
        key = SweepKey.fresh()
        pids = ray.get([actor.run.remote(trial, key, flags) for actor, trial in zip(actors, trials, strict=True)])
        pss = defaultdict[str, int](int)
        for pid in pids:
            for file, kib in mapped_kib(pid, places.cache_dir):
                pss[file.relative_to(places.cache_dir).parts[0]] += kib * 1024
        own = [own_kib(pid) * 1024 / MIB for pid in pids]
        for actor in actors:
            ray.kill(actor)
    return {
        "workers": workers,
        "pss_mib": {kind: round(pss[kind] / MIB, 1) for kind in SHARED_KINDS if pss[kind]},
        "pss_sum_mib": round(sum(pss.values()) / MIB, 1),
        "own_mib": [round(mib) for mib in own],
    }


def in_copies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The measurements beside those of the first, which is one worker alone."""
    alone = rows[0]["pss_sum_mib"]
    return [row | {"copies": round(row["pss_sum_mib"] / alone, 2)} for row in rows]


def labels_mib(places: Places) -> float:
    """What a worker holds of its three datasets beside their pixels."""
    data = config_of("cached features").data
    datasets = [open_dataset(name, places) for name in (data.private, data.public, data.validation)]
    arrays = [value for dataset in datasets for value in vars(dataset).values() if isinstance(value, np.ndarray)]
    return round(sum(array.nbytes for array in arrays) / MIB, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4], help="the first is 1")
    parser.add_argument("--cache-dir", type=Path, default=None, help="default: a temporary folder, everything made anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "node_sharing.json")
    args = parser.parse_args()
    document: dict[str, Any] = {"steps": STEPS, "draw": DRAW, "cases": {}}
    with tempfile.TemporaryDirectory() as temporary, connected(None):
        places = Places(data_dir=Path(temporary), cache_dir=(args.cache_dir or Path(temporary)).resolve())
        for case in CASES:
            measure(case, 1, places)  # makes the caches, in a process that is gone then
            document["cases"][case] = in_copies([measure(case, workers, places) for workers in args.workers])
            for row in document["cases"][case]:
                print(f"{case:17} {row}", flush=True)
        document["labels_mib"] = labels_mib(places)
    args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
