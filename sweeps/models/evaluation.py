"""Scores a trained model, or only the public stage of a config."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.config.methods import PUBLIC_ONLY
from dpcore.data.catalog import open_dataset
from dpcore.data.shards import ShardSet
from dpcore.errors import BadInput, Refused
from dpcore.model.network import PoseNetwork, codec_of
from dpcore.pose import pckh
from dpcore.pose.pckh import PckhState
from dpcore.train.evaluator import evaluate, predict
from dpcore.train.inputs import InputBuilder, device_of
from dpcore.train.saved import load_model, save_model
from dpcore.train.sources import Inputs
from dpcore.train.stages import public_network
from dpcore.train.trial_data import open_trial_data
from sweeps.models.claims import claim_of_training, save_claim, warning_about
from sweeps.records.export import UNKNOWN, Price

PUBLIC_FIELDS = ("data", "model", "stages", "evaluation", "seed")
"""The parts of a trial that its public stage and the score of it read."""


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """PCKh counts of a model, and the facts that were stored when it was trained; without its claim, what it spent is not known."""

    state: PckhState
    meta: Mapping[str, Any]


def score_model(folder: Path, data: str, places: Places) -> ScoredModel:
    """PCKh of the model in `folder` on the dataset `data`.

    Raises:
        BadInput: there is no model or no dataset, or the crops have another size than the model's input.
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
    return ScoredModel(state=_score(saved.network, saved.config, dataset, places), meta=meta)


def pretrain_public(
    values: Mapping[str, Any], places: Places, *, out: Path | None, price: Price = UNKNOWN
) -> tuple[TrialConfig, PckhState, list[str]]:
    """Trains the public stage that a trial's values describe, or takes it from the cache, and scores it on the validation data.

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
    state = _score(network, config, data.validation, places)
    if out is not None:
        meta = {
            "method": PUBLIC_ONLY,
            "epsilon_spent": 0.0,
            "fingerprint": config.fingerprint(),
            "pckh_50": state.mean(0.5),
            "pckh_10": state.mean(0.1),
        }
        private = data.private
        save_model(out, network, config=config, meta=meta, skeleton=private.skeleton, box_scale=private.manifest.box_scale)
        save_claim(out, claim_of_training(config, None, places=places, secure_rng=False), price)
    return config, state, network.description(config.model.freeze) if network.says else []


def person_counts(folder: Path, dataset: ShardSet, places: Places) -> NDArray[np.int64]:
    """What `dpcore.pose.pckh.person_counts` gives for the model in `folder` on PUBLIC data: (N, 2).

    Raises:
        BadInput: there is no model, or the crops have another size than its input. Corrupt: its weights are not those that were written.
    """
    saved = load_model(folder)
    dataset = dataset.as_skeleton(saved.skeleton)
    tail, (inputs, mirrored) = _tail_and_inputs(saved.network, saved.config, dataset, places)
    predictions = predict(tail, inputs, codec_of(saved.config.model), skeleton=saved.skeleton, mirrored=mirrored).numpy()
    return pckh.person_counts(predictions, dataset.keypoints, dataset.visible, dataset.head_size_px, skeleton=dataset.skeleton)


def _score(network: PoseNetwork, config: TrialConfig, dataset: ShardSet, places: Places) -> PckhState:
    tail, (inputs, mirrored) = _tail_and_inputs(network, config, dataset, places)
    return evaluate(tail, inputs, dataset=dataset, codec=codec_of(config.model), mirrored=mirrored)


def _tail_and_inputs(
    network: PoseNetwork, config: TrialConfig, dataset: ShardSet, places: Places
) -> tuple[nn.Module, tuple[Inputs, Inputs | None]]:
    """What predicts, and what it reads under the flip test of the config."""
    given = (dataset.manifest.height_px, dataset.manifest.width_px)
    wanted = (config.model.input_height_px, config.model.input_width_px)
    if given != wanted:
        raise BadInput(
            f"dataset {dataset.manifest.name} has crops of {given[0]}×{given[1]} px, but the model needs {wanted[0]}×{wanted[1]}"
        )
    split = network.split(config.model.freeze)
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=device_of(RuntimeFlags()))
    return split.tail, builder.scored(dataset, config.evaluation)
