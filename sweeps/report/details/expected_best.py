"""What a search of equal length is expected to find with each method, so that methods with many trials are not flattered.

The best of 20 trials is above the best of 3 of the same method. So a curve over ε joins the expected best of equally many trials:

    E[best of k] = Σ_i  x_(i) · C(i − 1, k − 1) / C(n, k)        x_(1) ≤ … ≤ x_(n)

the mean over all subsets of size k (Dodge et al. 2019, arXiv:1909.03004, without replacement). Trials of an adaptive search are not
independent, so it describes this search and predicts no other one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def common_size(groups: Mapping[object, Sequence[float]]) -> int:
    """The largest k that every group with a trial can serve; 0 without any."""
    return min((len(scores) for scores in groups.values() if scores), default=0)


def expected_best(scores: Sequence[float], k: int) -> float:
    """The mean of the best of k, over all subsets of k scores.

    Raises:
        ValueError: k is not between 1 and the number of scores.
    """
    if not 1 <= k <= len(scores):
        raise ValueError(f"expected a size from 1 to {len(scores)}, given {k}")
    ways = [math.comb(rank - 1, k - 1) for rank in range(1, len(scores) + 1)]
    total = math.comb(len(scores), k)
    return sum(score * way / total for score, way in zip(sorted(scores), ways, strict=True))
