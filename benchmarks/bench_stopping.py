"""How many private steps a stopper saves, and what that does to the settings that a search finds.

    python benchmarks/bench_stopping.py [--seeds 16] [--trials 24] [--out benchmarks/results/stopping.json]

The driver's own schedule, studies and stoppers on simulated trials at three ε, at a pretended machine of four workers whose clock is the
number of steps. Every seed is another surface (`sweeps.engine.surfaces.drawn_surface`), the same for every contender. Two kinds of learning
curves: `parallel`, where the order of trials is the same at every step, and `crossing`, where small learning rates start slowly and each
report has noise of its own. What a search found is the score of its winner's settings at the full horizon without noise.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from simulated_space import DOCUMENT

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.privacy.plan import PrivacyPlan
from dpcore.train.reports import Report
from search_spaces.loader import build_space
from search_spaces.space import SpaceFile
from sweeps.engine.schedule import Schedule
from sweeps.engine.surfaces import PUBLIC_ONLY, Surface, drawn_surface
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import best_of
from sweeps.records.spec import SweepSpec
from sweeps.search.terms import terms_of

EPSILONS, WORKERS = (0.4, 0.8, 1.6), 4
HORIZON: int = DOCUMENT["trial"]["stages"]["private"]["steps"]
EVERY = HORIZON // 10
FIRST_SEED = 2000
CONTENDERS: dict[str, dict[str, Any]] = {
    "none": {"stopper": "none"},
    "asha": {"stopper": "asha"},
    "median": {"stopper": "median"},
}


def space_of(contender: str, trials: int) -> SpaceFile:
    """The simulated space with a contender's stopper."""
    sweep = {"epsilons": list(EPSILONS), "delta": 1e-5, "trials_per_epsilon": trials, "accounting": "composed", **CONTENDERS[contender]}
    return build_space({"sweep": sweep, **DOCUMENT}, name="stopping")


def score_at(surface: Surface, config: TrialConfig, share: float, *, crossing: bool, luck: random.Random) -> float:
    """A trial's score after `share` of its horizon. The end of both kinds of curve is the same but for luck."""
    final = surface.score(config)
    start, rate = min(PUBLIC_ONLY - 0.05, final), 4.0
    if crossing:
        decades = math.log10(config.optimizer.learning_rate) - surface.learning_rate.best
        rate *= math.exp(max(-1.5, min(1.5, decades)))
    score = start + (final - start) * (1.0 - math.exp(-rate * share)) / (1.0 - math.exp(-rate))
    return score + surface.noise_stddev * luck.gauss(0.0, 1.0) if crossing else score


def pretended_plan(config: TrialConfig, cache_dir: Path | None) -> PrivacyPlan | None:
    """In place of a calibration, which a search without training has no use for."""
    if not config.spends_privacy:
        return None
    steps, epsilon = config.stages.private.steps, config.epsilon or 0.0
    return PrivacyPlan(
        sampling_prob=config.sampling_prob,
        steps=steps,
        noise_multiplier=1.0,
        delta=config.delta or 0.0,
        epsilon_target=epsilon,
        epsilon_planned=epsilon,
    )


def search(space: SpaceFile, *, seed: int, crossing: bool) -> dict[str, float]:
    """One whole search: private steps taken, the clock at its end, and how far the winners' settings lie below the optimum."""
    surface = drawn_surface(seed)
    with tempfile.TemporaryDirectory() as folder:
        places, runtime = Places(data_dir=Path(folder), cache_dir=Path(folder)), RuntimeFlags(report_every_steps=EVERY)
        spec = SweepSpec(name="s", space=space, seed=seed, runtime=runtime, places=places, storage=Path(folder) / "store")
        spec.sweep_dir.mkdir(parents=True)
        free = Accountant(plan=pretended_plan, compose=lambda charges, delta: 0.0, spent=lambda plan, step, cache_dir: 0.0)
        ledger = Ledger(spec.resolved_ledger_url)
        schedule = Schedule(
            spec, free, Reservations(spec, ledger, free, validation=None, cohort="simulated", key_id="none"), terms=terms_of(spec)
        )
        steps, clock = _run(schedule, surface, seed=seed, crossing=crossing)
        ledger.close()
        winners = [best_of(record for record in schedule.records if record.epsilon == epsilon) for epsilon in EPSILONS]
    below = [surface.best(epsilon) - (surface.score(one.config) if one else 0.0) for epsilon, one in zip(EPSILONS, winners, strict=True)]
    return {"steps": steps, "clock": clock, "regret": statistics.mean(below)}


def _run(schedule: Schedule, surface: Surface, *, seed: int, crossing: bool) -> tuple[int, int]:
    taken, clock = 0, 0
    running: list[tuple[int, str, int, TrialConfig]] = []
    luck: dict[str, random.Random] = {}
    plans: dict[str, PrivacyPlan | None] = {}
    while True:
        while len(running) < WORKERS and (record := schedule.next()) is not None:
            digest = hashlib.sha256(f"{seed}|{record.trial_id}".encode()).digest()
            luck[record.trial_id] = random.Random(int.from_bytes(digest[:8], "big"))
            plans[record.trial_id] = record.reserved
            heapq.heappush(running, (clock + EVERY, record.trial_id, EVERY, record.config))
        if not running:
            return taken, clock
        clock, trial_id, step, config = heapq.heappop(running)
        taken += EVERY
        score = score_at(surface, config, step / HORIZON, crossing=crossing, luck=luck[trial_id])
        held = plans[trial_id]
        spent = None if held is None else held.spent(step, 0.0)
        point = Report(step=step, done=False, metrics={"val/pckh_50": score}, weights_digest="", spent=spent)
        stops = schedule.is_to_stop(trial_id, point)
        schedule.report(trial_id, point)
        if stops or step == HORIZON:
            schedule.end(trial_id)
        else:
            heapq.heappush(running, (clock + EVERY, trial_id, step + EVERY, config))


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half width of its 95 % interval over seeds."""
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(statistics.mean(values), 4), "half_width_95": round(half, 4)}


def measure(seeds: int, trials: int) -> dict[str, dict[str, Any]]:
    """Per kind of curve and stopper: the share of steps and of time that none takes, and PCKh points below the optimum."""
    results: dict[str, dict[str, Any]] = {}
    for crossing in (False, True):
        found = {s: [search(space_of(s, trials), seed=FIRST_SEED + seed, crossing=crossing) for seed in range(seeds)] for s in CONTENDERS}
        rows = {}
        for stopper, runs in found.items():
            pairs = list(zip(runs, found["none"], strict=True))
            rows[stopper] = {
                "steps_share": interval([one["steps"] / full["steps"] for one, full in pairs]),
                "time_share": interval([one["clock"] / full["clock"] for one, full in pairs]),
                "points_below_optimum": interval([100 * one["regret"] for one, _ in pairs]),
                "points_lost": interval([100 * (one["regret"] - full["regret"]) for one, full in pairs]),
            }
        results["crossing" if crossing else "parallel"] = rows
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stopping.json")
    args = parser.parse_args()
    results = measure(args.seeds, args.trials)
    for kind, rows in results.items():
        for stopper, row in rows.items():
            print(
                f"{kind:9} {stopper:7} steps {row['steps_share']['mean']:.2f} time {row['time_share']['mean']:.2f} "
                f"below optimum {row['points_below_optimum']['mean']:.2f} ± {row['points_below_optimum']['half_width_95']:.2f} points"
            )
    document = {"seeds": args.seeds, "trials": args.trials, "horizon_steps": HORIZON, "workers": WORKERS, "results": results}
    args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
