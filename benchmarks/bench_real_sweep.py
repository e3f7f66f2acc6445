"""What a sweep costs beside its trials: real trials on embedded data, two at a time, search, ledger and MLflow included.

    python benchmarks/bench_real_sweep.py [--trials 9] [--steps 60] [--slots 2] [--cache-dir FOLDER] [--out FILE]

`wall_s` runs in the driver, from the first trial's hand-out to the end of the last. `compute_s` is summed over the trials and measured
in the workers: the time in which the trial function itself runs (opening data, steps, evaluation, checkpoints, the model), without the
start of workers and their imports, Ray, the driver, and waiting. `ratio` is wall_s / (compute_s / slots): 1.0 is two slots that are
never idle. `ratio_of_steps` counts as compute the private steps alone. Where the rest went: `until_first_s`, from the first hand-out
until its trial computes; `between_s`, the mean time that a worker waits from one trial to its next; `idle_at_the_end_s`, in which
the last trial runs beside an empty slot. Caches are warm: each public stage, feature file and noise calibration is made before.
Trials are those of the preset `quick`; run it on an otherwise idle machine, with a core for each slot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.randomness import SweepKey
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from dpcore.train.trainer import run_trial
from search_spaces.loader import load_space
from search_spaces.space import SpaceFile
from sweeps.engine import driver
from sweeps.engine.schedule import Schedule
from sweeps.records.references import free_references
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec

COMPUTE_FILE = "compute.json"
SETTINGS = {"references.winner_seeds": "1", "references.disclosure": "false"}


def timed_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """A real trial that leaves beside its result how long it computed."""
    if handout.folder is None:
        raise BadInput("a timed trial leaves its times in a folder: give it one")
    started, compute_s, steps_s, last_step = time.time(), 0.0, 0.0, 0
    reports = run_trial(config, runtime, handout)
    while True:
        began = time.perf_counter()
        report = next(reports)
        if report.done:
            with suppress(StopIteration):
                next(reports)
        compute_s += time.perf_counter() - began
        steps_s += report.metrics.get("time/step_s", 0.0) * (report.step - last_step)
        last_step = report.step
        if report.done:
            span = {"worker": os.getpid(), "started": started, "ended": time.time()}
            write_json(handout.folder / COMPUTE_FILE, {"compute_s": compute_s, "steps_s": steps_s, **span})
            yield report
            return
        yield report


@dataclass
class Watch:
    """When trials were handed out and when they ended."""

    handed: dict[str, float]
    ended: dict[str, float]

    def schedule(self) -> type[Schedule]:
        """The driver's schedule, with this watch beside it."""
        watch = self

        class Watched(Schedule):
            def next(self) -> TrialRecord | None:
                asked, record = time.time(), super().next()
                if record is not None:
                    watch.handed[record.trial_id] = asked
                return record

            def end(self, trial_id: str, *, error: str | None = None) -> TrialRecord:
                watch.ended[trial_id] = time.time()
                return super().end(trial_id, error=error)

        return Watched


def space_of(trials: int, steps: int) -> SpaceFile:
    """The preset with so many trials per ε and so many private steps."""
    settings = {**SETTINGS, "stages.private.steps": str(steps)}
    space = load_space("quick", assignments=[f"{path}={value}" for path, value in settings.items()], trials=trials)
    return space


def warm(spec: SweepSpec) -> None:
    """Makes what trials share, by one step of each kind of trial."""
    draw = {"method": "feature_projected", "split": "blur_3", "clip_norm": 0.3, "subspace.rank": 256, "public_weight": 0.5}
    one_step = {"stages.private.steps": 1, "optimizer.learning_rate": 3e-3}
    hybrid = spec.space.trial_config(spec.space.sweep.epsilons[0], draw, overrides=one_step)
    free = [reference.config.changed(**{"stages.private.steps": 1}) for reference in free_references(spec.space, seed=spec.seed)]
    for config in (*free, hybrid):
        plan = plan_privacy(config, spec.places.cache_dir)
        handout = Handout(places=spec.places, trial_id="warm", key=SweepKey.fresh(), folder=None, plan=plan)
        for _ in run_trial(config, spec.trial_runtime, handout):
            pass
    driver.plan_of(spec)


def measure(spec: SweepSpec) -> dict[str, Any]:
    """Runs the sweep and compares its wall time with its trials' compute."""
    watch = Watch({}, {})
    driver.Schedule = watch.schedule()  # type: ignore[misc]
    results = driver.run_sweep(spec, replace(driver.default_surroundings(), say=lambda line: print(line, flush=True)))
    failed = [record.trial_id for record in results.records if record.state != "done"]
    if failed:
        raise SystemExit(f"trials {failed} did not end well: nothing was measured")
    times = [read_json(spec.checkpoint_dir(record.trial_id) / COMPUTE_FILE) for record in results.records]
    compute_s, steps_s = (sum(one[name] for one in times) for name in ("compute_s", "steps_s"))
    last, before_last = sorted(watch.ended.values(), reverse=True)[:2]
    first, slots = min(watch.handed.values()), spec.max_concurrent or 1
    wall_s = last - first
    return {
        "trials": len(times),
        "slots": slots,
        "cores": len(os.sched_getaffinity(0)),
        "wall_s": round(wall_s, 2),
        "compute_s": round(compute_s, 2),
        "steps_s": round(steps_s, 2),
        "longest_trial_s": round(max(one["compute_s"] for one in times), 2),
        "until_first_s": round(min(one["started"] for one in times) - first, 2),
        "between_s": round(statistics.mean(_between(times)), 3),
        "idle_at_the_end_s": round(last - before_last, 2),
        "ratio": round(wall_s / (compute_s / slots), 3),
        "ratio_of_steps": round(wall_s / (steps_s / slots), 3),
    }


def _between(times: list[dict[str, Any]]) -> Iterator[float]:
    """From the end of each trial to the next one's start in the same worker."""
    ordered = sorted(times, key=lambda one: (one["worker"], one["started"]))
    return (after["started"] - before["ended"] for before, after in pairwise(ordered) if before["worker"] == after["worker"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=9, help="per ε, of which there are two; seven more are references and reruns")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--cache-dir", type=Path, default=None, help="default: a temporary folder, everything made anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real_sweep.json")
    args = parser.parse_args()
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)  # workers find the trial function here
    with tempfile.TemporaryDirectory() as temporary:
        spec = SweepSpec(
            name="bench",
            space=space_of(args.trials, args.steps),
            places=Places(data_dir=Path(temporary), cache_dir=(args.cache_dir or Path(temporary) / "cache").resolve()),
            storage=Path(temporary) / "store",
            max_concurrent=args.slots,
            trial_function="bench_real_sweep:timed_trial",
        )
        warm(spec)
        document = {"steps": args.steps, **measure(spec)}
    print(json.dumps(document, indent=2))
    args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
