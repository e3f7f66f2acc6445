"""Score surfaces of simulated trials: closed forms with a known optimum. One is fixed, and others are drawn from a family.

Their shape follows what was observed in private training. A small budget needs small clip norms, small steps and few dimensions. Methods
differ in their best score. Neighbouring ε have similar optima. The scores say nothing about pose estimation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpcore.config import METHODS as METHOD_TABLE
from dpcore.config import TrialConfig

METHODS = tuple(name for name in METHOD_TABLE.own if METHOD_TABLE.get(name).is_private)
REACH, HUNGER = 0.6, 0.04
"""Values for a method that a surface does not define."""
FULL_RANK = 4096
PUBLIC_ONLY, NONPRIVATE = 0.55, 0.75
WORST = 0.02


@dataclass(frozen=True, kw_only=True)
class Valley:
    """The best value of one setting, and how fast the score falls away from it.

    Attributes:
        best: the best value at ε = 1, in the setting's scale (decades, octaves, or plain).
        per_decade: how far the best value moves per decade of ε.
        width: the distance from the best value at which the penalty is 1.
    """

    best: float
    per_decade: float = 0.0
    width: float

    def distance(self, value: float, epsilon: float, *, shift: float = 0.0) -> float:
        """From the best value, in widths."""
        return (value - self.best - shift - self.per_decade * math.log10(epsilon)) / self.width


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Scores over clip norm and learning rate (log10), rank (log2) and public weight, per method and ε.

    Attributes:
        reach: per method, its score at the optimum from ε = 10 on.
        hunger: per method, its loss per decade of ε below 10.
        shift: per method, by how many decades its best clip norm and learning rate differ.
        correlation: of clip norm and learning rate. If it is not 0, one cannot be found without the other.
        depth: the cost of a penalty of 1, for small penalties. Scores fall by four times that at most.
        noise_stddev: noise of a score, as between fresh seeds of one config.
    """

    clip_norm: Valley = Valley(best=-1.5, per_decade=0.5, width=1.0)
    learning_rate: Valley = Valley(best=-2.0, per_decade=0.4, width=0.8)
    rank: Valley = Valley(best=7.0, per_decade=1.5, width=3.0)
    public_weight: Valley = Valley(best=0.7, width=0.6)
    reach: Mapping[str, float] = field(
        default_factory=lambda: {"dpsgd": 0.62, "projected": 0.61, "feature": 0.63, "feature_projected": 0.64}
    )
    hunger: Mapping[str, float] = field(
        default_factory=lambda: {"dpsgd": 0.05, "projected": 0.03, "feature": 0.04, "feature_projected": 0.025}
    )
    shift: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict.fromkeys(METHODS, (0.0, 0.0)))
    correlation: float = 0.0
    depth: float = 0.12
    noise_stddev: float = 0.004

    def best(self, epsilon: float, methods: tuple[str, ...] = METHODS) -> float:
        """The best score at `epsilon` among private `methods`, without noise. No search can reach more."""
        return max(self._reachable(method, epsilon) for method in methods)

    def score(self, config: TrialConfig) -> float:
        """The score in [0, 1] at the full horizon without noise: the method's best score minus a smooth penalty."""
        if config.traits.is_unbounded:
            return NONPRIVATE
        if not config.adds_noise or config.epsilon is None or config.clip_norm is None:
            return PUBLIC_ONLY
        epsilon, (clip_shift, rate_shift) = config.epsilon, self.shift.get(config.method, (0.0, 0.0))
        clip = self.clip_norm.distance(math.log10(config.clip_norm), epsilon, shift=clip_shift)
        rate = self.learning_rate.distance(math.log10(config.optimizer.learning_rate), epsilon, shift=rate_shift)
        penalty = (clip**2 - 2 * self.correlation * clip * rate + rate**2) / (1 - self.correlation**2)
        if config.traits.projects:
            rank = config.subspace.rank if isinstance(config.subspace.rank, int) else FULL_RANK
            penalty += self.rank.distance(math.log2(rank), epsilon) ** 2
        if config.traits.uses_views:
            penalty += self.public_weight.distance(config.public_weight or 0.0, epsilon) ** 2
        return max(WORST, self._reachable(config.method, epsilon) - self.depth * penalty / (1.0 + 0.25 * penalty))

    def _reachable(self, method: str, epsilon: float) -> float:
        return self.reach.get(method, REACH) - self.hunger.get(method, HUNGER) * max(0.0, 1.0 - math.log10(epsilon))


def drawn_surface(seed: int) -> Surface:
    """Draws a surface of the family: optimum, its path over ε, widths, tilt, methods, depth and noise.

    For ε in [0.2, 16] the optimum lies in clip_norm [1e-3, 10], learning_rate [1e-4, 1], rank [4, 256] and public_weight [0, 1].
    """
    uniform = random.Random(seed).uniform
    return Surface(
        clip_norm=Valley(best=uniform(-2.0, -0.5), per_decade=uniform(0.0, 0.8), width=uniform(0.6, 1.4)),
        learning_rate=Valley(best=uniform(-2.6, -1.4), per_decade=uniform(0.0, 0.6), width=uniform(0.4, 1.0)),
        rank=Valley(best=uniform(3.5, 6.5), per_decade=uniform(0.0, 1.0), width=uniform(1.5, 3.5)),
        public_weight=Valley(best=uniform(0.25, 0.75), per_decade=uniform(-0.1, 0.1), width=uniform(0.4, 0.8)),
        reach={method: uniform(0.59, 0.65) for method in METHODS},
        hunger={method: uniform(0.02, 0.06) for method in METHODS},
        shift={method: (uniform(-0.3, 0.3), uniform(-0.3, 0.3)) for method in METHODS},
        correlation=uniform(-0.6, 0.6),
        depth=uniform(0.08, 0.2),
        noise_stddev=uniform(0.002, 0.008),
    )
