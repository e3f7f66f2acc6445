"""The public stages of a trial: pure functions of their start, settings and data, computed once and shared.

A stage's key holds the digest of the weights it starts from, the content of what it reads and every setting that
moves its result. So trials share a stage exactly when it would give them the same weights, and the sweep pays for the
public stage once and for the public-view stage once per split.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dpcore.config import Places, RuntimeFlags, TrialConfig, digest_of
from dpcore.data.folders import locked, new_folder
from dpcore.errors import BadInput
from dpcore.model.network import PoseNetwork, build_network, codec_of, load_weights, weights_digest
from dpcore.privacy.randomness import Indices, PublicStreams
from dpcore.train.durable import write_json
from dpcore.train.inputs import InputBuilder, device_of
from dpcore.train.public_training import FitOutcome, PublicFit, train_steps, train_to_convergence
from dpcore.train.sources import Crops
from dpcore.train.trial_data import TrialData

STAGES_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
HELD_OUT_FRAC = 0.1
_HELD_BY_THE_START = {"freeze", "weights", "head_start"}
"""Fields of the model that say nothing of a stage's result beyond the digest of the weights it starts from."""


def started_network(config: TrialConfig, data: TrialData, *, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    """The network at the start of the private steps: public weights, public stage, and public-view stage where asked.

    Raises:
        BadInput: a setting does not fit the network or the data.
    """
    network = public_network(config, data, places=places, runtime=runtime)
    return network if config.start == "public" else _after_view_stage(network, config, data, places=places, runtime=runtime)


def public_network(config: TrialConfig, data: TrialData, *, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    """The network after `stages.public`; it has seen PUBLIC data alone."""
    stage = config.stages.public
    network = build_network(config.model, places, generator=PublicStreams(config.seed).torch_generator("initialisation"))
    if stage.steps == 0:
        return network
    inputs = {"stage": "public", "settings": stage.model_dump(mode="json"), "data": data.public.identity}

    def train() -> FitOutcome:
        device = device_of(runtime)
        split = network.split(stage.freeze)
        builder = InputBuilder.for_split(split, model=config.model, places=places, device=device)
        fit = PublicFit(
            tail=split.tail,
            examples=builder.examples(data.public, stage.augmentation),
            codec=codec_of(config.model),
            streams=PublicStreams(config.seed),
            name="public",
            batch_size=stage.batch_size,
            learning_rate=stage.learning_rate,
        )
        return train_steps(fit, stage.steps)

    return _cached(network, train, _key(config, network, inputs, runtime), places=places, private=False)


def _after_view_stage(network: PoseNetwork, config: TrialConfig, data: TrialData, *, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    """`network` after `stages.public_view`: trained on the stored public views alone, under the model's own freezing."""
    stage, views = config.stages.public_view, data.views
    if stage is None or views is None:
        raise BadInput("start public_view needs stages.public_view and a split")
    settings = {"view": stage.model_dump(mode="json"), "augmentation": config.augmentation.model_dump(mode="json")}
    inputs = {"stage": "public_view", "settings": settings, "freeze": config.model.freeze, "data": views.digest}

    def train() -> FitOutcome:
        device = device_of(runtime)
        split = network.split(config.model.freeze)
        builder = InputBuilder.for_split(split, model=config.model, places=places, device=device)
        fit = PublicFit(
            tail=split.tail,
            examples=builder.view_examples(data.private, views, config.augmentation),
            codec=codec_of(config.model),
            streams=PublicStreams(config.seed),
            name="public_view",
            batch_size=stage.batch_size,
            learning_rate=stage.learning_rate,
        )
        if stage.steps is not None:
            return train_steps(fit, stage.steps)
        return train_to_convergence(fit, held_out=held_out_tenth(views), max_steps=stage.max_steps)

    return _cached(network, train, _key(config, network, inputs, runtime), places=places, private=True)


def held_out_tenth(crops: Crops) -> Indices:
    """The tenth (rounded up) of `crops` with the smallest sha256 of their bytes, ascending.

    Chosen by what the crops are, not by where they stand, and from their own bytes alone: for public views this is a
    function of ψ(x), where the hash of the private crop would not be.
    """
    hashes = []
    for start in range(0, len(crops), 256):
        rows = np.arange(start, min(start + 256, len(crops)))
        hashes += [hashlib.sha256(image.tobytes()).digest() for image in crops.images(rows)]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return np.sort(np.array(order[: math.ceil(HELD_OUT_FRAC * len(order))], dtype=np.int64))


def _key(config: TrialConfig, network: PoseNetwork, inputs: dict[str, Any], runtime: RuntimeFlags) -> str:
    document = {
        "version": STAGES_VERSION,
        "start": weights_digest(network.state_dict()),
        "model": config.model.model_dump(mode="json", exclude=_HELD_BY_THE_START),
        "seed": config.seed,
        "rounding": {"threads": runtime.threads, "device": runtime.device, "torch": torch.__version__},
        **inputs,
    }
    return digest_of(document)


def _cached(network: PoseNetwork, train: Callable[[], FitOutcome], key: str, *, places: Places, private: bool) -> PoseNetwork:
    """`network` with the weights of the stage `key`, which `train` computes in place where the cache has none."""
    target = places.cache_dir / "stages" / key
    if not target.is_dir():
        with locked(target):
            if not target.is_dir():
                _train_into(target, network, train, private=private)
    load_weights(network, load_file(target / WEIGHTS_FILE), where=str(target))
    return network


def _train_into(target: Path, network: PoseNetwork, train: Callable[[], FitOutcome], *, private: bool) -> None:
    began = time.monotonic()
    outcome = train()
    network.to("cpu")
    meta = {
        "steps": outcome.steps,
        "holdout_loss": outcome.holdout_loss,
        "converged": outcome.converged,
        "seconds": round(time.monotonic() - began, 3),
        "weights_digest": weights_digest(network.state_dict()),
    }
    with new_folder(target, private=private) as folder:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS_FILE)
        write_json(folder / "meta.json", meta)
