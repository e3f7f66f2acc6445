"""A validation score on private people, released with noise.

One release is the mean over units of a score in [0, 1], under Gaussian noise: a unit added or removed moves the sum by at
most 1, and so does one that is replaced. The divisor is a public nominal number of units, so the realised one stays inside.
All releases of a sweep are full-batch Gaussians (q = 1) that compose; the noise is calibrated for their planned number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dpcore.config import Part
from dpcore.errors import BadInput

if TYPE_CHECKING:
    from dpcore.privacy.randomness import RandomStream


class ScoreRelease(Part):
    """How a score leaves: the noise's standard deviation over the sensitivity 1 of the sum, and the divisor."""

    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    nominal_units: int = Field(ge=1)

    @property
    def noise_stddev(self) -> float:
        """Of the released score, as a fraction."""
        return self.noise_multiplier / self.nominal_units

    def noised(self, scores: NDArray[np.float64], stream: RandomStream) -> float:
        """The mean of unit scores (U,) under noise from a secret stream of this release alone. May lie outside [0, 1].

        Raises:
            BadInput: a score outside [0, 1]: one unit could move the sum by more than the noise is made for.
        """
        if scores.ndim != 1 or not ((scores >= 0) & (scores <= 1)).all():
            raise BadInput("a released score is a mean of unit scores (U,) in [0, 1]")
        return (float(scores.sum()) + self.noise_multiplier * float(stream.normal(1)[0])) / self.nominal_units


def calibrate_release(releases: int, *, epsilon: float, delta: float, nominal_units: int, cache_dir: Path | None = None) -> ScoreRelease:
    """The least noise with which `releases` scores together stay within `epsilon` at `delta`.

    24 releases at ε = .8 and δ = 1e-5 need a standard deviation of 4.5 PCKh points on 500 people and of .8 on 2,958.
    """
    from dpcore.privacy.accounting import calibrate  # dp-accounting takes a second to import, and workers need none of it

    noise = calibrate(1.0, releases, delta=delta, epsilon=epsilon, cache_dir=cache_dir)
    return ScoreRelease(noise_multiplier=noise, nominal_units=nominal_units)
