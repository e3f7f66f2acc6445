"""The public stages of a trial. Each depends only on its start, settings and data, and is computed once and shared.

A stage's key holds the digest of its starting weights, the content of what it reads, and every setting that changes its result. So
trials share a stage exactly if it gives them the same weights. The sweep computes the public stage once, and the public-view stage once
per split.

No stage gets the private dataset. Stages see only its views and the labels of the public side (`LabelledViews`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from dpcore.config import Places, PublicStage, PublicViewStage, RuntimeFlags, TrialConfig, digest_of
from dpcore.config.freezing import FreezeRule
from dpcore.config.losses import SIMCC
from dpcore.config.parsing import identity_of
from dpcore.data.catalog import HELD_OUT_FRAC
from dpcore.data.folders import cached_folder
from dpcore.data.pose_pool import read_pool
from dpcore.data.shards import ShardSet
from dpcore.durable import write_json
from dpcore.errors import BadInput
from dpcore.model.freezing import PRIOR
from dpcore.model.maps.prior import PositionPrior
from dpcore.model.network import PoseNetwork, build_network, load_weights, weights_digest
from dpcore.privacy.randomness import Indices, PublicStreams
from dpcore.train.evaluator import training_loss
from dpcore.train.inputs import InputBuilder, device_of
from dpcore.train.optimizer import start_scales
from dpcore.train.public_training import FitOutcome, PublicFit, train_steps, train_to_best, train_to_convergence
from dpcore.train.rounding import rounding_of
from dpcore.train.sources import CropSource, Examples, LabelledViews
from dpcore.train.whitened import whiten

STAGES_VERSION = 3
"""3: gradients of two halves of a batch, added up."""
WEIGHTS_FILE = "model.safetensors"
_HELD_BY_THE_START = {"freeze", "weights", "weights_left_out", "head_start"}
"""Fields of the model that do not affect a stage's result beyond the digest of its starting weights."""


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """What one stage trains, on which examples. `is_awaited`: every other trial of a sweep waits for it."""

    name: str
    freeze: str | FreezeRule
    settings: PublicStage | PublicViewStage
    examples: Callable[[InputBuilder], Examples]
    is_awaited: bool = False


def started_network(
    config: TrialConfig, *, public: ShardSet, views: LabelledViews | None, places: Places, runtime: RuntimeFlags
) -> PoseNetwork:
    """The network at the start of the private steps: public weights, public stage, and public-view stage where asked.

    Args:
        config: the trial.
        public: the PUBLIC dataset, with the skeleton of the private one.
        views: all that a stage may see of the private dataset; None where the config has no split.
        places, runtime: where stages are cached, and how they are computed.

    Raises:
        BadInput: a setting does not fit the network or the data.
    """
    network = public_network(config, public, places=places, runtime=runtime)
    return network if config.start == "public" else _after_view_stage(network, config, views, places=places, runtime=runtime)


def public_network(config: TrialConfig, public: ShardSet, *, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    """The network after `stages.public`. It has seen only PUBLIC data, and predicts the joints of their skeleton."""
    settings, network = config.stages.public, _initial(config, public, places, runtime)
    if not _trains(config):
        return network
    stage = _Stage(
        name="public",
        freeze=settings.freeze,
        settings=settings,
        examples=lambda builder: builder.examples(public, settings.augmentation),
        is_awaited=True,
    )

    def train() -> FitOutcome:
        return _trained(_fit(network, stage, config, places=places, runtime=runtime), settings, public)

    return _cached(network, train, _public_key(config, network, public, runtime), places=places, private=False)


def has_public_network(config: TrialConfig, public: ShardSet, *, places: Places, runtime: RuntimeFlags) -> bool:
    """Whether `public_network` has nothing to train: there is no such stage, or the cache has it."""
    if not _trains(config):
        return True
    return _folder_of(_public_key(config, _initial(config, public, places, runtime), public, runtime), places).exists()


def _trains(config: TrialConfig) -> bool:
    return config.stages.public.steps > 0 and not config.model.starts_at_random


def _initial(config: TrialConfig, public: ShardSet, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    generator = PublicStreams(config.seed).torch_generator("initialisation")
    network = build_network(config.model, places, generator=generator, skeleton=public.skeleton)
    if config.model.input_whitening == "public":
        whiten(network, public, places=places, runtime=runtime)
    if config.model.position_prior != "none":
        set_prior(network, config.model.position_prior, public, places)
    return network


def set_prior(network: PoseNetwork, source: str, public: ShardSet, places: Places) -> None:
    """Sets where joints are before anything is seen: by the labels of `public`, or by a pool of public poses.

    Raises:
        BadInput: the file is no pool of these joints.
    """
    if source == "public":
        size = np.array([public.manifest.width_px, public.manifest.height_px])
        positions, visible = (public.keypoints.astype(np.float64) + 0.5) / size, public.visible
    else:
        positions, visible = read_pool(places.data_dir / source, public.skeleton)
    prior = network.parts[PRIOR]
    assert isinstance(prior, PositionPrior)
    prior.fit(positions, visible)


def _public_key(config: TrialConfig, network: PoseNetwork, public: ShardSet, runtime: RuntimeFlags) -> str:
    inputs = {"stage": "public", "settings": identity_of(config.stages.public), "data": public.identity}
    return _key(config, network, inputs, runtime)


def _folder_of(key: str, places: Places) -> Path:
    return places.cache_dir / "stages" / key


def teacher_network(config: TrialConfig, views: LabelledViews, *, public: ShardSet, places: Places, runtime: RuntimeFlags) -> PoseNetwork:
    """The teacher: the public network, trained further on views of PUBLIC data, because it will read views.

    Args:
        config: the trial.
        views: the views of `public` under the trial's split, with that dataset's own labels.
        public: the PUBLIC dataset.
        places, runtime: where stages are cached, and how they are computed.

    Raises:
        BadInput: a setting does not fit the network or the data.
    """
    settings = config.teacher
    network = public_network(config, public, places=places, runtime=runtime)
    stage = _Stage(
        name="teacher",
        freeze=settings.freeze,
        settings=settings,
        examples=lambda builder: builder.view_examples(views, settings.augmentation),
    )
    taught = {name: value for name, value in identity_of(settings).items() if name != "min_confidence"}
    inputs = {"stage": "teacher", "settings": taught, **_contents(views)}

    def train() -> FitOutcome:
        return _trained(_fit(network, stage, config, places=places, runtime=runtime), settings, views.stored)

    return _cached(network, train, _key(config, network, inputs, runtime), places=places, private=False)


def _trained(fit: PublicFit, settings: PublicStage, crops: CropSource) -> FitOutcome:
    """A stage on PUBLIC data, to its last step or until its best one on a held-out tenth of `crops`."""
    if settings.until is None:
        return train_steps(fit, settings.steps)
    return train_to_best(fit, settings.steps, held_out=held_out_tenth(crops))


def _after_view_stage(
    network: PoseNetwork, config: TrialConfig, views: LabelledViews | None, *, places: Places, runtime: RuntimeFlags
) -> PoseNetwork:
    """`network` after `stages.public_view`: trained only on the stored public views, with the model's own freezing."""
    settings = config.stages.public_view
    if settings is None or views is None:
        raise BadInput("start public_view needs stages.public_view and a split")
    stage = _Stage(
        name="public_view",
        freeze=config.model.freeze,
        settings=settings,
        examples=lambda builder: builder.view_examples(views, config.augmentation),
    )
    augmentation = config.augmentation.model_copy(update={"multiplicity": 1})  # of private steps
    documents = {"view": identity_of(settings), "augmentation": identity_of(augmentation)}
    inputs = {"stage": "public_view", "settings": documents, "freeze": identity_of(config.model)["freeze"], **_contents(views)}

    def train() -> FitOutcome:
        fit = _fit(network, stage, config, places=places, runtime=runtime)
        if settings.steps is not None:
            return train_steps(fit, settings.steps)
        return train_to_convergence(fit, held_out=held_out_tenth(views.stored), max_steps=settings.max_steps)

    return _cached(network, train, _key(config, network, inputs, runtime), places=places, private=True)


def _contents(views: LabelledViews) -> dict[str, str]:
    """The part of a stage's key that describes the views it read."""
    return {"data": views.stored.digest, "labels": views.labels.digest}


def _fit(network: PoseNetwork, stage: _Stage, config: TrialConfig, *, places: Places, runtime: RuntimeFlags) -> PublicFit:
    split = network.split(stage.freeze)
    device, resident = device_of(runtime), runtime.data_on_device
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=device, resident=resident)
    return PublicFit(
        tail=split.tail,
        examples=stage.examples(builder),
        loss=training_loss(config, network.skeleton),
        streams=PublicStreams(config.seed),
        name=stage.name,
        batch_size=stage.settings.batch_size,
        learning_rate=stage.settings.learning_rate,
        scales=start_scales(stage.settings.scale, split.tail),
        is_awaited=stage.is_awaited and not split.code,  # what somebody else wrote may draw at random, or not bear two threads
    )


def held_out_tenth(crops: CropSource) -> Indices:
    """The tenth (rounded up) of `crops` with the smallest sha256 of their bytes, ascending.

    The choice depends only on the bytes of the crops, not on their order. For public views it is a function of ψ(x). The hash of the
    private crop would not be.
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
        "model": {name: value for name, value in identity_of(config.model).items() if name not in _HELD_BY_THE_START},
        **({"code": dict(network.code)} if network.code else {}),
        "seed": config.seed,
        **loss_document(config),
        "rounding": rounding_of(runtime),
        **inputs,
    }
    return digest_of(document)


def loss_document(config: TrialConfig) -> dict[str, Any]:
    """What of a key depends on the loss: nothing for the one that every config of an earlier version has."""
    return {} if config.loss == SIMCC else {"loss": config.loss, "pck_mass": config.pck_mass.model_dump(mode="json")}


def _cached(network: PoseNetwork, train: Callable[[], FitOutcome], key: str, *, places: Places, private: bool) -> PoseNetwork:
    """`network` with the weights of the stage `key`, which `train` computes in place where the cache has none."""
    target = _folder_of(key, places)
    cached_folder(target, lambda folder: _train_into(folder, network, train), private=private)
    load_weights(network, load_file(target / WEIGHTS_FILE), where=str(target))
    return network


def _train_into(folder: Path, network: PoseNetwork, train: Callable[[], FitOutcome]) -> None:
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
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS_FILE)
    write_json(folder / "meta.json", meta)
