"""The smallest noise that keeps a budget: few evaluations on a coarse grid of losses, one to three on the fine grid that decides.

| stage | evaluations | gives |
|---|---|---|
| closed form | none | a start: Poisson-subsampled Gaussians as one Gaussian (Bu et al. 2020, arXiv:1911.11607) |
| PLD at `SEARCH_INTERVAL` | about four | the noise on the coarse grid, and how fast ε falls there |
| PLD at `FINAL_INTERVAL` | one where ε is large, two or three where the coarse grid is off | the noise |

log ε is close to a line in log noise, so secants meet the target after a few steps. Only the last stage decides. The noise that is
returned has been evaluated on the fine grid, and keeps the target there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy.optimize import brentq
from scipy.special import log_ndtr

from dpcore.errors import BadInput
from dpcore.privacy.grid import FINAL_INTERVAL, LARGEST_NOISE, NOISE_TOLERANCE, SEARCH_INTERVAL, SMALLEST_NOISE
from dpcore.privacy.losses import epsilon_at_interval
from dpcore.privacy.plan import Spending

_COARSE_TOLERANCE = 1e-4
_GUESSED_SLOPE = -1.3
"""Of log ε over log noise, before two points are known: -1 where noise is large, -2 and steeper where it is small."""
_LONGEST_STEP = math.log(2.0)
_NEAR = 0.05
"""Relative. So close to the smallest admitted noise a search below it ends."""


def search_noise(loudest: Spending, *, delta: float, epsilon: float) -> float:
    """The smallest noise that keeps `epsilon` at `delta`, in place of that of `loudest`, to `NOISE_TOLERANCE` on the private side.

    Raises:
        BadInput: no noise keeps it, or hardly any noise would do.
    """
    reachable = epsilon_at_interval(loudest, delta, FINAL_INTERVAL)
    if reachable > epsilon:
        raise BadInput(
            f"epsilon {epsilon:g} is out of reach at delta {delta:g} over {loudest.steps} steps: the largest noise multiplier,"
            f" {LARGEST_NOISE:g}, gives {reachable:.2g}; raise epsilon or delta, or take fewer steps"
        )

    def excess_on(interval: float) -> Callable[[float], float]:
        def excess(log_noise: float) -> float:
            spent = epsilon_at_interval(replace(loudest, noise_multiplier=math.exp(log_noise)), delta, interval)
            return math.log(spent / epsilon) if spent > 0.0 else -math.inf

        return excess

    where = _Found(passing=math.inf, root=_closed_form(loudest, delta=delta, epsilon=epsilon), slope=_GUESSED_SLOPE)
    if excess_on(SEARCH_INTERVAL)(math.log(LARGEST_NOISE)) <= 0.0:
        where = _search(excess_on(SEARCH_INTERVAL), where, tolerance=_COARSE_TOLERANCE)
    return math.exp(_search(excess_on(FINAL_INTERVAL), where, tolerance=NOISE_TOLERANCE).passing)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a stage found, in logs of noise: the smallest point that was seen to pass, and the root by the last secant. `slope` says
    how log ε falls there."""

    passing: float
    root: float
    slope: float


def _search(excess: Callable[[float], float], start: _Found, *, tolerance: float) -> _Found:
    """A point with an excess of at most 0, within `tolerance` of the root of the decreasing `excess`.

    `excess` is the log of ε over its target. It is not above 0 at LARGEST_NOISE. Each step is a secant's, aimed a quarter of the final
    tolerance to the private side. It is a bisection where the secant leaves the bracket, or where ε is 0 or infinite. The slope bounds
    how far a point is from the root. Where it can't, the bracket does.
    """
    failing, passing, slope = -math.inf, math.inf, start.slope
    point, before = start.root + NOISE_TOLERANCE / 4, (math.nan, math.nan)
    while True:
        value = excess(point)
        rise = (value - before[1]) / (point - before[0])  # NaN until two points are known, or where one is infinite
        if math.isfinite(rise) and rise < 0.0:
            slope = rise
        failing, passing = (failing, min(passing, point)) if value <= 0.0 else (max(failing, point), passing)
        root = point - value / slope if math.isfinite(value) else point
        is_near = value <= 0.0 and -value <= tolerance / 2 * -slope
        if is_near or passing - failing <= tolerance:
            return _Found(passing=passing, root=root, slope=slope)
        before = point, value
        point = _next_point(point - value / slope + NOISE_TOLERANCE / 4, failing=failing, passing=passing)


def _next_point(wanted: float, *, failing: float, passing: float) -> float:
    """Where to look next: at `wanted`, if it lies in the bracket and no longer step away than a factor of 2.

    Raises:
        BadInput: all noise down to the smallest admitted one passes.
    """
    if math.isfinite(failing) and math.isfinite(passing):
        return wanted if failing < wanted < passing else (failing + passing) / 2
    if math.isfinite(failing):
        return min(max(wanted, math.nextafter(failing, math.inf)), failing + _LONGEST_STEP, math.log(LARGEST_NOISE))
    lowest = math.log(SMALLEST_NOISE)
    if passing - lowest < _NEAR:
        raise BadInput(f"a noise multiplier below {SMALLEST_NOISE} would do for this epsilon: lower epsilon or take method nonprivate")
    return max(min(wanted, math.nextafter(passing, -math.inf)), passing - _LONGEST_STEP, (passing + lowest) / 2)


def _closed_form(loudest: Spending, *, delta: float, epsilon: float) -> float:
    """The log of about the right noise, within a fifth where steps are many and q is small; inside the admitted range. No bound."""
    mean = brentq(lambda one: _gaussian_delta(one, epsilon) - delta, 1e-12, 1e6, xtol=1e-9, rtol=1e-6)
    if loudest.relation == "replace":
        mean /= 2.0  # a replaced unit moves the sum about twice as far
    noise = math.log1p((mean / loudest.sampling_prob) ** 2 / loudest.steps) ** -0.5
    return math.log(min(max(noise, 2.0 * SMALLEST_NOISE), LARGEST_NOISE))


def _gaussian_delta(mean: float, epsilon: float) -> float:
    """δ at `epsilon` of a Gaussian of unit deviation that is moved by `mean` (Balle and Wang 2018, Theorem 8)."""
    upper, lower = log_ndtr(mean / 2 - epsilon / mean), log_ndtr(-mean / 2 - epsilon / mean)
    return float(math.exp(upper) - math.exp(min(epsilon + lower, 0.0)))
