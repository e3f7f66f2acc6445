"""What N buys: the noise of a step beside the gradient, for the people that a space has and for more or fewer of them.

At the same q, steps, ε and δ the noise multiplier σ does not depend on N, while the mean over B = qN people divides σC by N. So N
images four times over have a quarter of the noise. The anchor was measured on LSPET.

| | |
|---|---|
| noise | σ / B: standard deviation per parameter and step, as a share of the clipping norm C |
| anchor | LSPET, ε 0.8, B 512, σ 2.10, a head of 8,300 parameters: DP-SGD lost 0.85 points of PCKh to it |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LSPET_NOISE = 2.10 / 512
"""σ / B of LSPET at ε 0.8, 60 steps, where the noise cost 0.85 points of PCKh@0.5."""
TOO_NOISY = 4.0
"""So many times that noise is said to be too much: at four times, ε 0.2 there, about 2 points were lost."""
FACTORS = (0.25, 1.0, 4.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class NoiseAt:
    """The noise at one ε: σ, and σ / B for each N of `Worth.sizes`."""

    epsilon: float
    noise_multiplier: float
    noise: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What N buys under a plan.

    Attributes:
        nominal: N of the space. sizes: N that are compared, the space's among them. batches: the expected batch of each.
        sampling_prob: q, the same for all.
        rows: per ε the noise.
    """

    nominal: int
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    sampling_prob: float
    rows: tuple[NoiseAt, ...]

    def needed(self, row: NoiseAt) -> int:
        """The N at which the noise of an ε is that of the anchor, to two digits."""
        exact = row.noise_multiplier / (self.sampling_prob * LSPET_NOISE)
        digits = max(0, len(str(int(exact))) - 2)
        unit = int(10**digits)
        return max(1, round(exact / unit)) * unit

    @property
    def too_few(self) -> tuple[NoiseAt, ...]:
        """The ε at which N is too small by the anchor."""
        here = self.sizes.index(self.nominal)
        return tuple(row for row in self.rows if row.noise[here] > TOO_NOISY * LSPET_NOISE)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "rows": [{**asdict(row), "needed": self.needed(row)} for row in self.rows]}


def worth_of(nominal: int, sampling_prob: float, noise_multipliers: Sequence[tuple[float, float]]) -> Worth:
    """The noise for N and for more or fewer people, at the same q.

    Args:
        nominal: N.
        sampling_prob: q.
        noise_multipliers: per ε its σ.
    """
    sizes = tuple(dict.fromkeys(max(1, round(nominal * factor)) for factor in FACTORS))
    rows = tuple(
        NoiseAt(epsilon=epsilon, noise_multiplier=sigma, noise=tuple(sigma / (sampling_prob * size) for size in sizes))
        for epsilon, sigma in noise_multipliers
    )
    batches = tuple(max(1, round(sampling_prob * size)) for size in sizes)
    return Worth(nominal=nominal, sizes=sizes, batches=batches, sampling_prob=sampling_prob, rows=rows)
