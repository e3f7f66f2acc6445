"""What choosing among 24 trials costs, and what it finds: composed, halving, private selection, public proxy.

    python benchmarks/bench_choosing.py [--seeds 400] [--trials 24] [--out benchmarks/results/choosing.json]

The price is that of the search for one ε at q .064, 60 steps and δ 1e-5, without reruns and final training.
What it finds is the score of the winner's settings at the full horizon without noise, on simulated surfaces (`sweeps.engine.surfaces`):
the mean over seeds, each another surface. Settings are drawn at random for all contenders, since halving and private selection allow
nothing else. The learning curves are those of `bench_stopping.py`, of both kinds. A proxy has an optimum of its own: its clip norm and
learning rate are best half a decade off the private ones, up or down by chance, and its rank is best an octave off.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench_stopping import interval, score_at
from simulated_space import DOCUMENT

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from dpcore.privacy.accounting import Spending, calibrate
from dpcore.privacy.composition import Selected, SelectionAccountant, price
from dpcore.privacy.ladder import Rung, ladder_spending
from search_spaces.loader import build_space
from search_spaces.space import SelectionLaw, SpaceFile
from sweeps.engine.surfaces import Surface, Valley, drawn_surface
from sweeps.pricing.halving import ladder_of
from sweeps.pricing.selection import draw_count

EPSILONS, DELTA = (0.8, 2.0), 1e-5
SAMPLING_PROB, STEPS = 0.064, 60
FIRST_SEED = 5000
LAWS = {"geometric": 1.0, "logarithmic": 0.0}
BY: tuple[SelectionAccountant, ...] = ("rdp", "profile")


def space_of(trials: int) -> SpaceFile:
    """The simulated space at this horizon."""
    stages = {"private": {"steps": STEPS, "expected_batch_size": 256}}
    sweep = {"epsilons": list(EPSILONS), "delta": DELTA, "trials_per_epsilon": trials, "sampler": "random"}
    document = {**DOCUMENT, "trial": {**DOCUMENT["trial"], "stages": stages}}
    return build_space({"sweep": {**sweep, "stopper": "halving", "accounting": "composed"}, **document}, name="choosing")


def prices(ladder: Sequence[Rung], epsilon: float, trials: int) -> dict[str, float]:
    """ε at δ of choosing, per contender."""
    run = Spending(SAMPLING_PROB, calibrate(SAMPLING_PROB, STEPS, delta=DELTA, epsilon=epsilon), STEPS)
    return {
        "composed": price([(run, trials)], DELTA),
        "halving": price([(ladder_spending(run, ladder), 1)], DELTA),
        **{f"selection by {by}, {law}": price([(Selected(run, trials, shape, by), 1)], DELTA) for law, shape in LAWS.items() for by in BY},
        "public proxy": 0.0,
    }


class Trials:
    """Random trials of one surface at one ε, drawn as they are asked for, with their scores along the way."""

    def __init__(self, space: SpaceFile, epsilon: float, *, seed: int, crossing: bool) -> None:
        self.surface = drawn_surface(seed)
        self._space, self._epsilon, self._crossing = space, epsilon, crossing
        self._draws = random.Random(seed)
        self._configs: list[TrialConfig] = []
        self._luck: list[random.Random] = []

    def __getitem__(self, number: int) -> TrialConfig:
        while len(self._configs) <= number:
            try:
                self._configs.append(self._space.trial_config(self._epsilon, self._space.draw(self._epsilon, self._draws)))
            except BadInput:
                continue
            self._luck.append(random.Random(self._draws.random()))
        return self._configs[number]

    def score(self, number: int, share: float, surface: Surface | None = None) -> float:
        """What the search sees after `share` of the horizon."""
        return score_at(surface or self.surface, self[number], share, crossing=self._crossing, luck=self._luck[number])

    def found(self, number: int) -> float:
        """The true score of a trial's settings."""
        return self.surface.score(self[number])


def best_of_all(trials: Trials, count: int, surface: Surface | None = None) -> int:
    """The one with the best score at the horizon."""
    return max(range(count), key=lambda number: trials.score(number, 1.0, surface))


def best_of_ladder(trials: Trials, ladder: Sequence[Rung]) -> int:
    """The one that reaches the top and is the best there."""
    left = list(range(ladder[0].trials))
    for rung in ladder:
        scores = {number: trials.score(number, rung.steps / STEPS) for number in left[: rung.trials]}
        left = sorted(scores, key=lambda number: -scores[number])
    return left[0]


def proxy_of(surface: Surface, seed: int) -> Surface:
    """The same family of people, another domain: the optimum lies elsewhere."""
    luck = random.Random(f"proxy {seed}")

    def moved(valley: Valley, by: float) -> Valley:
        return replace(valley, best=valley.best + luck.choice((-by, by)))

    return replace(
        surface, clip_norm=moved(surface.clip_norm, 0.5), learning_rate=moved(surface.learning_rate, 0.5), rank=moved(surface.rank, 1.0)
    )


def contenders(space: SpaceFile, count: int, seed: int) -> dict[str, Callable[[Trials], int]]:
    """Each way to choose: the number of the trial that it takes."""
    ladder = ladder_of(space, count)
    ways: dict[str, Callable[[Trials], int]] = {
        "composed": lambda trials: best_of_all(trials, count),
        "halving": lambda trials: best_of_ladder(trials, ladder),
        "public proxy": lambda trials: best_of_all(trials, count, proxy_of(trials.surface, seed)),
    }
    for name, shape in LAWS.items():
        drawn = draw_count(SelectionLaw(mean_trials=count, shape=shape), random.Random(f"{name} {seed}").random())
        ways |= {f"selection by {by}, {name}": partial(best_of_all, count=drawn) for by in BY}
    return ways


def measure(space: SpaceFile, seeds: int, count: int) -> dict[str, Any]:
    """Per ε and contender: the price, and the winner's true score in PCKh points, for both kinds of curve."""
    results: dict[str, Any] = {}
    for epsilon in EPSILONS:
        rows: dict[str, Any] = {name: {"price": round(cost, 4)} for name, cost in prices(ladder_of(space, count), epsilon, count).items()}
        for crossing in (False, True):
            found: dict[str, list[float]] = {name: [] for name in rows}
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                for name, choose in contenders(space, count, seed).items():
                    trials = Trials(space, epsilon, seed=seed, crossing=crossing)
                    found[name].append(100 * trials.found(choose(trials)))
            for name, scores in found.items():
                rows[name]["crossing" if crossing else "parallel"] = interval(scores)
        best = statistics.mean(100 * drawn_surface(seed).best(epsilon) for seed in range(FIRST_SEED, FIRST_SEED + seeds))
        results[f"{epsilon:g}"] = {"optimum": round(best, 2), "rows": rows}
    return results


def table(results: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = []
    for epsilon, result in results.items():
        lines += [f"ε = {epsilon}: optimum {result['optimum']:.1f}", "", "| choosing | price ε | expected best, parallel | crossing |"]
        lines.append("|---|---|---|---|")
        for name, row in result["rows"].items():
            both = (f"{row[kind]['mean']:.1f} ± {row[kind]['half_width_95']:.1f}" for kind in ("parallel", "crossing"))
            lines.append(f"| {name} | {row['price']:.2f} | {' | '.join(both)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "choosing.json")
    args = parser.parse_args()
    space = space_of(args.trials)
    results = measure(space, args.seeds, args.trials)
    print(table(results))
    ladder = [[rung.trials, rung.steps] for rung in ladder_of(space, args.trials)]
    document = {
        "seeds": args.seeds,
        "trials": args.trials,
        "ladder": ladder,
        "sampling_prob": SAMPLING_PROB,
        "steps": STEPS,
        "delta": DELTA,
    }
    args.out.write_text(json.dumps({**document, "results": results}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
