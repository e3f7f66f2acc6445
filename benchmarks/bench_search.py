"""Search quality: best found against a known optimum, ours beside plain random and stock Ray OptunaSearch.

    python benchmarks/bench_search.py [--seeds 20] [--trials 48] [--first-seed 1000] [--out benchmarks/results/search.json]

Every seed is another surface (`sweeps.engine.surfaces.drawn_surface`). A contender has `--trials` trials at each of eight ε; what it has
found after n of them is its best-scored trial so far, and its regret is the optimum less that trial's score without noise, mean
over ε. Further cases have three ε, one, and eight with a surface each, which have nothing to learn from one another.

Ours runs as in a sweep, ε by ε in turn. The stock recipe is `ray.tune.search.optuna.OptunaSearch` with its default sampler, one at
each ε: over a flat space (inactive settings are drawn and ignored) and over a conditional, define-by-run one.

How many trials ours needs to reach what stock has found after N: the smallest n at which its mean regret over seeds is no higher.
Intervals: 95 %, bootstrap over seeds, contenders resampled together.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from simulated_space import EPSILONS, space_of

from dpcore.config import Places, TrialConfig
from sweeps.engine.surfaces import Surface, drawn_surface
from sweeps.records.results import CurvePoint
from sweeps.records.spec import SweepSpec
from sweeps.search.studies import Studies, distribution_of, suggest

AT = (12, 24, 48)
BOOTSTRAPS = 2000
Score = Callable[[TrialConfig], float]


def ours(sampler: str, trials: int, epsilons: tuple[float, ...], seed: int, score: Score) -> Iterator[TrialConfig]:
    """A sweep's own studies, asked and told as the schedule does with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        places = Places(data_dir=Path(folder), cache_dir=Path(folder))
        spec = SweepSpec(name="s", space=space_of(sampler, trials, epsilons), seed=seed, places=places, storage=Path(folder))
        studies = Studies(spec)
        for number in range(trials):
            for epsilon in epsilons:
                record = studies.ask(epsilon, number)
                yield record.config
                studies.tell(record.with_point(CurvePoint(100, {"val/pckh_50": score(record.config)})).ended(seconds=0.0))


def stock(kind: str, trials: int, epsilons: tuple[float, ...], seed: int, score: Score) -> Iterator[TrialConfig]:
    """Ray's OptunaSearch, one per ε."""
    from ray.tune.search.optuna import OptunaSearch

    space = space_of("tpe", trials, epsilons)
    for place, epsilon in enumerate(epsilons):
        flat = {path: distribution_of(parameter) for path, parameter in space.parameters_at(epsilon).items()}

        def conditional(trial: optuna.Trial, epsilon: float = epsilon) -> None:
            draw: dict[str, Any] = {}
            for path, parameter in space.parameters_at(epsilon).items():
                if space.is_active(parameter, draw):
                    draw[path] = suggest(trial, path, parameter)

        searcher = OptunaSearch(flat if kind == "flat" else conditional, metric="score", mode="max", seed=1000 * seed + place)
        for number in range(trials):
            drawn = searcher.suggest(str(number))
            assert isinstance(drawn, dict)
            draw: dict[str, Any] = {}
            for path, parameter in space.parameters_at(epsilon).items():
                if space.is_active(parameter, draw):
                    draw[path] = drawn[path]
            config = space.trial_config(epsilon, draw)
            yield config
            searcher.on_trial_complete(str(number), result={"score": score(config)})


CONTENDERS: dict[str, Callable[[int, tuple[float, ...], int, Score], Iterator[TrialConfig]]] = {
    "ours": lambda *given: ours("tpe", *given),
    "random": lambda *given: ours("random", *given),
    "stock_flat": lambda *given: stock("flat", *given),
    "stock_define_by_run": lambda *given: stock("define_by_run", *given),
}


def regrets(contender: str, trials: int, seed: int, surfaces: dict[float, Surface]) -> np.ndarray:
    """Regret after 1 … `trials` trials at each ε, mean over ε; shape (trials,)."""
    luck = random.Random(f"{seed} {contender}")
    found: dict[float, list[tuple[float, float]]] = {epsilon: [] for epsilon in surfaces}

    def score(config: TrialConfig) -> float:
        epsilon = config.epsilon or 0.0
        true = surfaces[epsilon].score(config)
        noisy = true + luck.gauss(0.0, surfaces[epsilon].noise_stddev)
        found[epsilon].append((noisy, true))
        return noisy

    for _ in CONTENDERS[contender](trials, tuple(surfaces), seed, score):
        pass
    curves = []
    for epsilon, scores in found.items():
        best = [max(scores[: n + 1])[1] for n in range(trials)]
        curves.append(surfaces[epsilon].best(epsilon) - np.asarray(best))
    return np.mean(curves, axis=0)


def trials_to_reach(regret: np.ndarray, target: float) -> int:
    """The smallest number of trials with a mean regret of at most `target`; one more than there are where none has."""
    reached = np.flatnonzero(regret <= target)
    return int(reached[0]) + 1 if reached.size else len(regret) + 1


def compare(curves: dict[str, np.ndarray], other: str, at: int, generator: np.random.Generator) -> dict[str, Any]:
    """Trials of ours per trial of another contender, for what that has found after `at`."""
    ours_curves, other_curves = curves["ours"], curves[other]

    def ratio(rows: np.ndarray) -> float:
        return trials_to_reach(ours_curves[rows].mean(axis=0), float(other_curves[rows, at - 1].mean())) / at

    seeds = len(ours_curves)
    drawn = [ratio(generator.integers(0, seeds, seeds)) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"ratio": round(ratio(np.arange(seeds)), 3), "interval": [round(low, 3), round(high, 3)]}


def summary(curves: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    """The mean regret over trials, with its interval at the numbers that are compared."""
    means = [curves[generator.integers(0, len(curves), len(curves))].mean(axis=0) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    marks = {str(n): [round(float(low[n - 1]), 5), round(float(high[n - 1]), 5)] for n in AT if n <= curves.shape[1]}
    return {"regret": [round(float(one), 5) for one in curves.mean(axis=0)], "interval": marks}


def surfaces_of(seed: int, epsilons: tuple[float, ...], *, related: bool) -> dict[float, Surface]:
    """One surface over all ε, or one for each."""
    return {epsilon: drawn_surface(seed if related else 1000 * seed + place) for place, epsilon in enumerate(epsilons)}


def measure(*, seeds: range, trials: int, epsilons: tuple[float, ...], related: bool) -> dict[str, Any]:
    """All contenders on the same surfaces."""
    curves: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name in CONTENDERS:
        began = time.process_time()
        curves[name] = np.asarray([regrets(name, trials, seed, surfaces_of(seed, epsilons, related=related)) for seed in seeds])
        seconds[name] = time.process_time() - began
        print(f"  {name}: regret {', '.join(f'{curves[name][:, n - 1].mean():.4f} at {n}' for n in AT if n <= trials)}", flush=True)
    generator = np.random.default_rng(0)
    runs = len(seeds) * trials * len(epsilons)
    return {
        "contenders": {name: summary(one, generator) for name, one in curves.items()},
        "trials_of_ours_per_trial": {
            name: {str(at): compare(curves, name, at, generator) for at in AT if at <= trials} for name in curves if name != "ours"
        },
        "cpu_ms_per_trial": {name: round(1000 * one / runs, 1) for name, one in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search.json")
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    document: dict[str, Any] = {"seeds": [seeds[0], seeds[-1]], "epsilons": EPSILONS}
    half = args.trials // 2
    cases: dict[str, dict[str, Any]] = {
        "eight": {"epsilons": EPSILONS, "trials": args.trials, "related": True},
        "three": {"epsilons": (0.2, 0.8, 8.0), "trials": half, "related": True},
        "one": {"epsilons": (0.8,), "trials": half, "related": True},
        "eight_unrelated": {"epsilons": EPSILONS, "trials": half, "related": False},
    }
    for case, given in cases.items():
        print(case, flush=True)
        document[case] = measure(seeds=seeds, **given)
        print(json.dumps(document[case]["trials_of_ours_per_trial"]), flush=True)
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
