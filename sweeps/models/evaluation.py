"""Scores a trained model, or only the public stage of a config."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.config.methods import PUBLIC_ONLY
from dpcore.config.metrics import PCKH_50
from dpcore.data.catalog import open_dataset
from dpcore.data.shards import ShardSet
from dpcore.errors import BadInput, Refused
from dpcore.inference.reading import PoseReading
from dpcore.inference.upright import UprightDetector
from dpcore.pose.metrics import METRICS, Scored, counts_of_people, score_of, why_not
from dpcore.train.evaluator import scored_of
from dpcore.train.predictions import HearsProgress, cached_predictions, hears_nothing
from dpcore.train.saved import SavedModel, load_model, save_model
from dpcore.train.stages import public_network
from dpcore.train.trial_data import open_trial_data
from dpcore.train.upright import as_read
from sweeps.models.claims import claim_of_training, save_claim, warning_about
from sweeps.records.export import UNKNOWN, Price

PUBLIC_FIELDS = ("data", "model", "stages", "evaluation", "seed")
"""The parts of a trial that its public stage and the score of it read."""


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model with its scores on PUBLIC data.

    Attributes:
        scores: every metric that the data give, by name, as a fraction.
        metric: the one that was asked for, else that of its training.
        people: how many people it is counted over.
        stderr: the standard error of `metric` over people; None where it is no mean over people.
        meta: what was stored when it was trained; without its claim, what it spent is not known.
    """

    scores: Mapping[str, float]
    metric: str
    people: int
    stderr: float | None
    meta: Mapping[str, Any]


def score_model(
    folder: Path, data: str, places: Places, *, metric: str | None = None, on_progress: HearsProgress = hears_nothing
) -> ScoredModel:
    """The scores of the model in `folder` on the dataset `data`.

    Args:
        folder: of a model or of the trial around it.
        data: a dataset's name; its people are read with the model's joints.
        places: datasets and caches.
        metric: None: the one that the model's sweep maximised.
        on_progress: hears how many people are done.

    Raises:
        BadInput: there is no model or no dataset, the crops have another size than the model's input, or the data do not give `metric`.
        Refused: the dataset is protected. A score on it would be a release that no ledger holds.
        Corrupt: the weights or the shards differ from those that were written.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder of a finished trial or of its model")
    warning = warning_about(folder)
    if warning is not None:
        print(f"dpsweep: {warning}", file=sys.stderr)
    saved = load_model(folder)
    dataset = open_dataset(data, places)
    if dataset.manifest.protected:
        raise Refused(f"{data} is protected: a score on it would be a release that no ledger holds; evaluate on PUBLIC data")
    dataset = dataset.as_skeleton(saved.skeleton)
    meta = saved.meta if warning is None else {**saved.meta, "epsilon_spent": None}
    asked = METRICS.get(metric or str(meta.get("metric") or PCKH_50))
    scored = _scored(saved, dataset, places, on_progress=on_progress)
    reason = why_not(asked, scored.truth)
    if reason is not None:
        raise BadInput(f"{data} gives no {asked.name}: {reason}")
    counts = counts_of_people(asked, scored)
    return ScoredModel(
        scores=_scores(scored),
        metric=asked.name,
        people=len(dataset) if counts is None else int((counts[:, 1] > 0).sum()),
        stderr=None if counts is None else stderr_over_people(counts),
        meta=meta,
    )


def pretrain_public(
    values: Mapping[str, Any], places: Places, *, out: Path | None, price: Price = UNKNOWN
) -> tuple[TrialConfig, Mapping[str, float], list[str]]:
    """Trains the public stage that a trial's values describe, or takes it from the cache, and scores it on the validation data: every
    metric that they give.

    Args:
        values: The nested values of a TrialConfig. Values that the public stage does not read are ignored.
        places: Folders of datasets and caches. The stage is cached for later trials.
        out: Folder for the public model with its claim; None keeps it only in the cache.
        price: What choosing the values cost.

    Returns:
        The config, the score, and lines on a network from elsewhere.
    """
    kept = {field: values[field] for field in PUBLIC_FIELDS if field in values}
    config = parse_config(TrialConfig, {**kept, "method": PUBLIC_ONLY, "start": "public"})
    data = open_trial_data(config, places, RuntimeFlags())
    network = public_network(config, data.public, places=places, runtime=RuntimeFlags())
    reading = PoseReading.of(config.model, config.evaluation, data.private.skeleton)
    scores = _scores(scored_of(cached_predictions(network, data.validation, reading, config=config, places=places), data.validation))
    if out is not None:
        meta = {
            "method": PUBLIC_ONLY,
            "epsilon_spent": 0.0,
            "fingerprint": config.fingerprint(),
            "pckh_50": scores.get("pckh_50"),
            "pckh_10": scores.get("pckh_10"),
        }
        private = data.private
        save_model(
            out,
            network,
            config=config,
            meta=meta,
            skeleton=private.skeleton,
            box_scale=private.manifest.box_scale,
            detector=UprightDetector.of(config.data, places),
        )
        save_claim(out, claim_of_training(config, None, places=places, runtime=RuntimeFlags()), price)
    return config, scores, network.description(config.model.freeze) if network.says else []


def person_counts(folder: Path, dataset: ShardSet, places: Places, *, metric: str = PCKH_50) -> NDArray[np.int64]:
    """Hits and countable joints of each person of PUBLIC data under the model in `folder`, as a metric counts them: (N, 2).

    Raises:
        BadInput: there is no model, the crops have another size than its input, or the metric is no mean over people.
        Corrupt: its weights are not those that were written.
    """
    saved = load_model(folder)
    counts = counts_of_people(METRICS.get(metric), _scored(saved, dataset.as_skeleton(saved.skeleton), places))
    if counts is None:
        raise BadInput(f"metric {metric} is no mean over people")
    return counts


def stderr_over_people(counts: NDArray[np.int64]) -> float:
    """The standard error of Σ hits / Σ countable joints over people, by linearisation; 0 for one person.

    The bootstrap of the report tends to it. On 500 people the two differ by less than 5 %.
    """
    hits, counted = counts.astype(np.float64).T
    people, total = len(counts), counted.sum()
    if people < 2 or total == 0:
        return 0.0
    residuals = hits - hits.sum() / total * counted
    return float(np.sqrt(people / (people - 1) * (residuals**2).sum()) / total)


def _scored(saved: SavedModel, dataset: ShardSet, places: Places, *, on_progress: HearsProgress = hears_nothing) -> Scored:
    model = saved.config.model
    dataset = as_read(dataset, saved.config, places, saved.detector)
    given, wanted = (dataset.manifest.height_px, dataset.manifest.width_px), (model.input_height_px, model.input_width_px)
    if given != wanted:
        raise BadInput(
            f"dataset {dataset.manifest.name} has crops of {given[0]}×{given[1]} px, but the model needs {wanted[0]}×{wanted[1]}"
        )
    reading = PoseReading.of(model, saved.config.evaluation, saved.skeleton)
    found = cached_predictions(saved.network, dataset, reading, config=saved.config, places=places, on_progress=on_progress)
    return scored_of(found, dataset)


def _scores(scored: Scored) -> dict[str, float]:
    """Every metric that the people give."""
    given = [one for one in map(METRICS.get, METRICS.names()) if why_not(one, scored.truth) is None]
    return {one.name: score_of(one, scored) for one in given}
