"""What a trial costs beside its training: the driver alone, with no-op trials, against the stock recipe of Ray Tune.

    python benchmarks/bench_driver.py [--trials 1000] [--stock-trials 40] [--rounds 3] [--long 10000] [--out ...]

Contenders, each in a process of its own, in turn, round by round:

* `dpsweep`: a sweep of simulated trials over 8 ε through the real driver: TPE, an Optuna study per ε, the ledger with real
  accounting, MLflow into SQLite, results as Parquet.
* `stock`: a function trainable, Ray's OptunaSearch and its MLflowLoggerCallback, which is what a tutorial shows.
* `ray`: Ray Tune alone with a reused class actor and random search: what is left when everything else is taken away.

`per_trial_s` is the wall time of the whole run over its trials, starts of Ray and MLflow and the final price included;
`marginal_s` counts from the first end of a trial to the last one. `kb_per_trial` is the slope of the driver's resident
memory over its trials. `--long` runs once, after the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulated_space import EPSILONS, space_of

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec

SLOTS = 2


class Course:
    """When the trials of a run ended, and how much memory the process had then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._ends: list[float] = []
        self._kb: list[int] = []

    def ended(self) -> None:
        """Another trial has ended."""
        self._ends.append(time.monotonic())
        self._kb.append(resident_kb())
        if len(self._ends) % 1000 == 0:
            per_trial = (self._ends[-1] - self._ends[0]) / len(self._ends)
            print(f"{len(self._ends)} trials: {per_trial:.3f} s each, {self._kb[-1] // 1024} MiB", file=sys.stderr, flush=True)

    def figures(self) -> dict[str, float]:
        """Of the run, which is over now."""
        trials = len(self._ends)
        late = range(trials // 5, trials)  # the first ones load libraries
        return {
            "trials": trials,
            "per_trial_s": (time.monotonic() - self.began) / trials,
            "marginal_s": (self._ends[-1] - self._ends[0]) / (trials - 1),
            "cpu_s": time.process_time() / trials,
            "kb_per_trial": statistics.linear_regression(late, [self._kb[n] for n in late]).slope,
            "resident_mb": self._kb[-1] / 1024,
        }


def resident_kb() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def run_dpsweep(trials: int, folder: Path, data_dir: Path) -> dict[str, float]:
    """A whole sweep. Calibrations, seconds per ε once on a machine, are made before the clock starts."""
    from sweeps.engine.driver import run_sweep
    from sweeps.engine.preflight import default_surroundings, plan_of

    spec = sweep_spec(trials, folder, data_dir)
    around = replace(default_surroundings(spec.places.cache_dir), say=lambda _: None)
    plan_of(spec, around)
    course = Course()
    run_sweep(spec, replace(around, say=lambda line: course.ended() if line.startswith("[") else None))
    return course.figures()


def sweep_spec(trials: int, folder: Path, data_dir: Path) -> SweepSpec:
    """`trials` simulated trials over EPSILONS."""
    from dpcore.config import Places, RuntimeFlags
    from sweeps.records.spec import SweepSpec

    return SweepSpec(
        name="bench",
        space=space_of("tpe", trials // len(EPSILONS), EPSILONS),
        places=Places(data_dir=data_dir, cache_dir=data_dir / "cache"),
        storage=folder,
        trial_function="sweeps.engine.simulation:run_trial",
        runtime=RuntimeFlags(report_every_steps=100),
        max_concurrent=SLOTS,
    )


def run_stock(trials: int, folder: Path, data_dir: Path) -> dict[str, float]:
    """What a tutorial of Ray Tune, Optuna and MLflow shows."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    course = start_ray()
    search = ConcurrencyLimiter(OptunaSearch(metric="score", mode="max"), max_concurrent=SLOTS)
    tracker = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="stock")
    tune.Tuner(
        tune.with_resources(no_op_function, {"cpu": 1}),
        param_space={"clip_norm": tune.loguniform(1e-3, 10.0), "learning_rate": tune.loguniform(1e-4, 1.0)},
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, metric="score", mode="max"),
        run_config=tune.RunConfig(storage_path=str(folder), name="stock", callbacks=[tracker, counting(course)], verbose=0),
    ).fit()
    return course.figures()


def run_ray(trials: int, folder: Path, data_dir: Path) -> dict[str, float]:
    """Ray Tune with nothing around it."""
    from ray import tune

    class NoOp(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._config = config

        def step(self) -> dict[str, Any]:
            return {"score": self._config["clip_norm"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._config = new_config
            return True

    course = start_ray()
    tune.run(
        NoOp,
        config={"clip_norm": tune.loguniform(1e-3, 10.0), "learning_rate": tune.loguniform(1e-4, 1.0)},
        num_samples=trials,
        storage_path=str(folder),
        name="ray",
        reuse_actors=True,
        resources_per_trial={"cpu": 1},
        callbacks=[counting(course)],
        verbose=0,
    )
    return course.figures()


def start_ray() -> Course:
    """A Ray of our own, quiet, as dpsweep starts it; the clock runs from before it."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"})
    course = Course()
    import ray

    from sweeps.ray_runtime.ray_session import OBJECT_STORE_BYTES

    ray.init(
        address="local", num_cpus=SLOTS, log_to_driver=False, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES
    )  # fmt: skip
    return course


def counting(course: Course) -> Any:
    """A Tune callback that notes each end."""
    from ray.tune import Callback

    class Counting(Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            course.ended()

    return Counting()


def no_op_function(config: dict[str, float]) -> None:
    """A trial that reports once."""
    from ray import tune

    tune.report({"score": config["clip_norm"]})


CONTENDERS = {"dpsweep": run_dpsweep, "stock": run_stock, "ray": run_ray}


def in_its_own_process(name: str, trials: int, data_dir: Path) -> dict[str, float]:
    """The figures of one contender."""
    with tempfile.TemporaryDirectory(prefix="bench-driver-") as folder:
        command = [sys.executable, __file__, "--contender", name, "--trials", str(trials), "--folder", folder, "--data-dir", str(data_dir)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:8} {trials:6} trials: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
    return figures


def median_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure over the rounds."""
    return {name: round(statistics.median(one[name] for one in rounds), 4) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--stock-trials", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=10000, help="trials of the long run; 0 for none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "driver.json")
    parser.add_argument(
        "--data-dir", type=lambda path: Path(path).absolute(), default=Path("data").absolute(), help="for embedded data and calibrations"
    )
    parser.add_argument("--contender", choices=sorted(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(CONTENDERS[args.contender](args.trials, args.folder, args.data_dir)))
        return
    trials = {"dpsweep": args.trials, "stock": args.stock_trials, "ray": min(args.trials, 400)}
    rounds = [{name: in_its_own_process(name, trials[name], args.data_dir) for name in CONTENDERS} for _ in range(args.rounds)]
    medians = {name: median_of([one[name] for one in rounds]) for name in CONTENDERS}
    document = {
        "slots": SLOTS,
        "cpus": os.cpu_count(),
        "epsilons": len(EPSILONS),
        "rounds": args.rounds,
        "versions": {name: version(name) for name in ("ray", "optuna", "mlflow")},
        "medians": medians,
        "stock_over_dpsweep": round(medians["stock"]["per_trial_s"] / medians["dpsweep"]["per_trial_s"], 1),
        "long": in_its_own_process("dpsweep", args.long, args.data_dir) if args.long else None,
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n")
    print(f"stock / dpsweep, wall time per trial: {document['stock_over_dpsweep']}")


if __name__ == "__main__":
    main()
