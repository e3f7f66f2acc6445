"""How sure a score and a gain are: over the people of the validation data and over seeds.

Scores of single people exist only where validation data are PUBLIC: they are computed from the released models, and cost nothing.

| part | estimate |
|---|---|
| people | bootstrap: people are drawn with replacement, the same ones for every model, so that what they have in common cancels |
| seeds | the sample variance of the winner's reruns. Few seeds, drawn with replacement, would understate it: three by a third |

The interval is Student's, with the degrees of freedom of Welch and Satterthwaite, so that two or three seeds count for what they are.
Floor and control are trained once; how they vary with their seed is not in it.
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
    """What the winner gains over the bar, as a fraction: mean, standard error, and the two ends of the 95 % interval."""

    mean: float
    stderr: float
    low: float
    high: float


def counts_of(spec: SweepSpec, records: Sequence[TrialRecord]) -> dict[str, Counts]:
    """The people's scores under the saved model of each trial that has one; empty where validation data are not PUBLIC, and where the
    sweep's metric is no mean over people (OKS-AP): then scores have no interval.

    A model that is gone or damaged is left out: a report is made without its errors.
    """
    metric = METRICS.find(spec.metric)
    if spec.trial_function != RUN_TRIAL or not records or metric is None or metric.people is None:
        return {}
    from dpcore.data.catalog import open_dataset
    from sweeps.models.evaluation import person_counts

    found: dict[str, Counts] = {}
    try:
        dataset = open_dataset(records[0].config.data.validation, spec.places)
    except DpsweepError:
        return {}
    if dataset.manifest.role != "PUBLIC":
        return {}
    for record in records:
        key = (str(spec.sweep_dir), record.trial_id, record.curve[-1].weights_digest if record.curve else "")
        try:
            if key not in _read:
                _read[key] = person_counts(trial_at_hand(spec, record.trial_id), dataset, spec.places, metric=spec.metric)
        except DpsweepError:
            continue
        found[record.trial_id] = _read[key]
    return found


def score_stderr(counts: Counts) -> float:
    """The standard error of one model's score over people."""
    return float(_resampled([counts]).std(ddof=1))


def gain_over(bar: Counts, seeds: Sequence[Counts]) -> Gain | None:
    """What reruns of the winner gain over one run that is held against them. None with fewer than two reruns.

    Args:
        bar: (N, 2) of floor or control.
        seeds: (N, 2) each, of the same people in the same order.
    """
    if len(seeds) < 2:
        return None
    from scipy import stats

    scores = [_score(one) for one in seeds]
    mean = float(np.mean(scores)) - _score(bar)
    resampled = _resampled([bar, *seeds])
    people = float((resampled[:, 1:].mean(axis=1) - resampled[:, 0]).var(ddof=1))
    reruns = float(np.var(scores, ddof=1)) / len(seeds)
    variance = people + reruns
    if variance == 0:
        return Gain(mean=mean, stderr=0.0, low=mean, high=mean)
    freedom = variance**2 / (reruns**2 / (len(seeds) - 1) + people**2 / max(1, len(bar) - 1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Gain(mean=mean, stderr=math.sqrt(variance), low=mean - half, high=mean + half)


def mean_stderr(seeds: Sequence[Counts]) -> float | None:
    """The standard error of the mean score of reruns, over people and seeds. None with fewer than two."""
    if len(seeds) < 2:
        return None
    people = float(_resampled(seeds).mean(axis=1).var(ddof=1))
    return math.sqrt(people + float(np.var([_score(one) for one in seeds], ddof=1)) / len(seeds))


def _score(counts: Counts) -> float:
    hits, counted = counts.sum(axis=0)
    return float(hits) / max(1, int(counted))


def _resampled(models: Sequence[Counts]) -> NDArray[np.float64]:
    """(RESAMPLES, M) scores of M models on people drawn with replacement, the same people for all; equal in every process."""
    people = len(models[0])
    generator = np.random.default_rng(people)
    drawn = generator.multinomial(people, np.full(people, 1.0 / people), size=RESAMPLES)
    hits, counted = (drawn @ np.stack([one[:, part] for one in models], axis=1) for part in (0, 1))
    return np.asarray(hits / np.maximum(counted, 1), dtype=np.float64)
