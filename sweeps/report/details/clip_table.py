"""The table method × ε × clipping norm, of any search: where C is a range, its thirds on the scale of the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpcore.config import METHODS
from search_spaces.space import Choice
from sweeps.report.comparison import score_of

if TYPE_CHECKING:
    from search_spaces.space import SpaceFile
    from sweeps.records.results import SweepResults

CLIP_NORM = "clip_norm"
BINS = 3


@dataclass(frozen=True, kw_only=True)
class ClipCell:
    """The trials of a method at an ε with a C in one bin: the best score as a fraction (None: no trial is done), and how many are done."""

    best: float | None
    trials: int


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One method and one bin of C. `clip_norm` is the bin as text, `cells` has one cell per ε."""

    method: str
    clip_norm: str
    cells: tuple[ClipCell, ...]


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """Rows by method, then by C; one column per ε."""

    epsilons: tuple[float, ...]
    rows: tuple[ClipRow, ...]


def clip_table(results: SweepResults, space: SpaceFile, epsilons: Sequence[float]) -> ClipTable | None:
    """The table of a sweep with private trials; None where none is done."""
    done = [one for one in results.of_role("search") if score_of(one) is not None and one.config.clip_norm is not None]
    if not done:
        return None
    bins = _bins(space, epsilons, [one.config.clip_norm or 0.0 for one in done])
    methods = [name for name in METHODS.names() if any(one.config.method == name for one in done)]
    rows = []
    for method in methods:
        for label, low, high in bins:
            cells = []
            for epsilon in epsilons:
                scores = [
                    score_of(one) or 0.0
                    for one in done
                    if one.config.method == method and one.epsilon == epsilon and low <= (one.config.clip_norm or 0.0) <= high
                ]
                cells.append(ClipCell(best=max(scores, default=None), trials=len(scores)))
            rows.append(ClipRow(method=METHODS.get(method).label or method, clip_norm=label, cells=tuple(cells)))
    return ClipTable(epsilons=tuple(epsilons), rows=tuple(rows))


def _bins(space: SpaceFile, epsilons: Sequence[float], values: Sequence[float]) -> list[tuple[str, float, float]]:
    """(label, lowest, highest) of each bin. The last bin of a range holds its upper end, the others do not."""
    parameters = [one for epsilon in epsilons if (one := space.parameters_at(epsilon).get(CLIP_NORM)) is not None]
    if len(set(values)) == 1 or all(isinstance(one, Choice) for one in parameters):
        return [(f"{value:g}", value, value) for value in sorted(set(values))]
    ranges = [one for one in parameters if not isinstance(one, Choice)]
    low, high = min(min(one.bounds[0] for one in ranges), *values), max(max(one.bounds[1] for one in ranges), *values)
    is_log = all(one.log for one in ranges)
    at = [part / BINS for part in range(BINS + 1)]
    edges = [low * math.exp(share * math.log(high / low)) if is_log else low + share * (high - low) for share in at]
    edges[-1] = high
    return [
        (f"{start:.2g} – {end:.2g}", start, end if end == edges[-1] else math.nextafter(end, low))
        for start, end in itertools.pairwise(edges)
    ]
