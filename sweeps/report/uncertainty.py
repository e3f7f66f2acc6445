"""How sure a score and a gain are: over the people of the validation data and over seeds.

Scores of single people exist only where validation data are PUBLIC: they are computed from the released models, and cost nothing.

| part | estimate |
|---|---|
| people | bootstrap: people are drawn with replacement, the same ones for every model, so that what they have in common cancels |
| seeds | the sample variance of reruns. Few seeds, drawn with replacement, would understate it: three by a third |

The interval is Student's, with the degrees of freedom of Welch and Satterthwaite, so that two or three seeds count for what they are.
Floor and control are trained once; how they vary with their seed is not in it. Where a sweep divides its validation people
(`sweep.validation_search_frac`), all of this is over those that no search saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpcore.config.metrics import METRICS
from dpcore.errors import DpsweepError
from sweeps.records.publication import trial_at_hand
from sweeps.records.results import TrialRecord
from sweeps.records.spec import RUN_TRIAL, SweepSpec

Counts = NDArray[np.int64]
"""(N, 2): of each validation person, how many joints are hits of the sweep's metric and how many count."""

RESAMPLES = 2000
CONFIDENCE = 0.95

_read: dict[tuple[str, str, str], Counts] = {}


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one gains over another on the same people, as a fraction: mean, standard error, and the two ends of the 95 % interval."""

    mean: float
    stderr: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out; else the difference is within noise."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """In percent points."""
        return f"{100 * self.mean:+.1f} ± {100 * self.stderr:.1f} points (95 %: {100 * self.low:+.1f} to {100 * self.high:+.1f})"


def counts_of(spec: SweepSpec, records: Sequence[TrialRecord]) -> dict[str, Counts]:
    """The people's scores under the saved model of each trial that has one: of all people, or of those that no search saw. Empty where
    validation data are not PUBLIC, and where the sweep's metric is no mean over people (OKS-AP): then scores have no interval.

    A model that is gone or damaged is left out: a report is made without its errors.
    """
    metric = METRICS.find(spec.metric)
    if spec.trial_function != RUN_TRIAL or not records or metric is None or metric.people is None:
        return {}
    from dpcore.data.catalog import open_dataset
    from dpcore.data.validation_parts import rows_of
    from sweeps.models.evaluation import person_counts

    found: dict[str, Counts] = {}
    try:
        dataset = open_dataset(records[0].config.data.validation, spec.places)
    except DpsweepError:
        return {}
    if dataset.manifest.role != "PUBLIC":
        return {}
    people = spec.space.sweep.verdict_people
    rows = slice(None) if people is None else rows_of(dataset, people)
    for record in records:
        key = (str(spec.sweep_dir), record.trial_id, record.curve[-1].weights_digest if record.curve else "")
        try:
            if key not in _read:
                _read[key] = person_counts(trial_at_hand(spec, record.trial_id), dataset, spec.places, metric=spec.metric)
        except DpsweepError:
            continue
        found[record.trial_id] = _read[key][rows]
    return found


def score_stderr(counts: Counts) -> float:
    """The standard error of one model's score over people."""
    return float(_resampled([counts]).std(ddof=1))


def gain_over(bar: Counts | Sequence[Counts], seeds: Sequence[Counts]) -> Gain | None:
    """What reruns gain over one run, or over the reruns of something else. None with fewer than two reruns on a side that has several.

    Args:
        bar: (N, 2) of a run that is held against them, such as floor or control; or of each rerun of another method.
        seeds: (N, 2) each, of the same people in the same order.
    """
    bars = [bar] if isinstance(bar, np.ndarray) else list(bar)
    if len(seeds) < 2 or (not isinstance(bar, np.ndarray) and len(bars) < 2):
        return None
    from scipy import stats

    sides = ([score(one) for one in bars], [score(one) for one in seeds])
    mean = float(np.mean(sides[1]) - np.mean(sides[0]))
    resampled = _resampled([*bars, *seeds])
    people = float((resampled[:, len(bars) :].mean(axis=1) - resampled[:, : len(bars)].mean(axis=1)).var(ddof=1))
    reruns = [(float(np.var(side, ddof=1)) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    variance = people + sum(part for part, _ in reruns)
    if variance == 0:
        return Gain(mean=mean, stderr=0.0, low=mean, high=mean)
    freedom = variance**2 / (sum(part**2 / count for part, count in reruns) + people**2 / max(1, len(bars[0]) - 1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Gain(mean=mean, stderr=math.sqrt(variance), low=mean - half, high=mean + half)


def mean_stderr(seeds: Sequence[Counts]) -> float | None:
    """The standard error of the mean score of reruns, over people and seeds. None with fewer than two."""
    if len(seeds) < 2:
        return None
    people = float(_resampled(seeds).mean(axis=1).var(ddof=1))
    return math.sqrt(people + float(np.var([score(one) for one in seeds], ddof=1)) / len(seeds))


def score(counts: Counts) -> float:
    """The score of a model over people, as a fraction."""
    hits, counted = counts.sum(axis=0)
    return float(hits) / max(1, int(counted))


def _resampled(models: Sequence[Counts]) -> NDArray[np.float64]:
    """(RESAMPLES, M) scores of M models on people drawn with replacement, the same people for all; equal in every process."""
    people = len(models[0])
    generator = np.random.default_rng(people)
    drawn = generator.multinomial(people, np.full(people, 1.0 / people), size=RESAMPLES)
    hits, counted = (drawn @ np.stack([one[:, part] for one in models], axis=1) for part in (0, 1))
    return np.asarray(hits / np.maximum(counted, 1), dtype=np.float64)
