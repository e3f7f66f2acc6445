"""How finely privacy losses are taken, and between which noise multipliers a calibration searches. Light: no accountant.

| ε of a composition | interval of the grid |
|---|---|
| up to 10 | 1e-4 |
| above | at most 4e-5 ε, and ever finer until a third of it gains less than 0.5 % |

ε on any grid is an upper bound (`dpcore.privacy.losses`): a coarse one costs privacy on paper, never in fact. One run by itself is always
priced at 1e-4, and so is what is calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SEARCH_INTERVAL = 1e-3
FINAL_INTERVAL = 1e-4
"""Discretisation of the privacy loss. The coarse one is off by 6 % at ε .2 and 2,610 steps: it only starts the search."""

EPSILON_OF_FINAL = 10.0
INTERVAL_PER_EPSILON = 4e-5
INTERVALS = (1e-1, 3.16e-2, 1e-2, 3.16e-3, 1e-3, 3.16e-4, FINAL_INTERVAL)
GAIN = 5e-3
"""Relative: a grid that gained less over one three times coarser is fine enough. The error falls with the square of the interval, so a
tenth of that is left."""

RULE = "1e-4 to epsilon 10, 4e-5 epsilon above"
"""Part of what a remembered composition depends on."""

NOISE_TOLERANCE = 1e-5
"""Relative; the calibrated noise multiplier is at most this much larger than the smallest one that keeps the target."""

LARGEST_EPSILON = 200.0
SMALLEST_NOISE, LARGEST_NOISE = 0.05, 1e6


def on_fitting_grid(epsilon_on: Callable[[float], float], *, spread: float = math.inf) -> float:
    """ε on the first grid, from coarse to fine, that the table above calls fine enough.

    Args:
        epsilon_on: gives an upper bound of ε on the grid of an interval.
        spread: of the losses of one step. A grid ten times as coarse would not tell them apart, and many steps would fill it for nothing.
    """
    before = math.inf
    for interval in (one for one in INTERVALS if one <= max(10.0 * spread, FINAL_INTERVAL)):
        epsilon = epsilon_on(interval)
        settled = before - epsilon <= GAIN * epsilon
        if epsilon > EPSILON_OF_FINAL and interval <= INTERVAL_PER_EPSILON * epsilon and settled:
            break
        before = epsilon
    return epsilon
