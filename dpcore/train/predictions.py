"""Keypoints of many people: each view of their crops goes through the network, some rows at a time.

Shapes: N examples, K joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dpcore.config import Places, RuntimeFlags, TrialConfig, digest_of
from dpcore.config.parsing import identity_of
from dpcore.data.folders import cached_folder
from dpcore.data.shards import ShardSet
from dpcore.data.views import META_NAME
from dpcore.devices import pictures_at_once
from dpcore.durable import write_json
from dpcore.inference.reading import PosePoints, PoseReading
from dpcore.model.network import PoseNetwork, weights_digest
from dpcore.train.hearing import tell
from dpcore.train.inputs import InputBuilder, device_of
from dpcore.train.sources import Inputs

PREDICTIONS_VERSION = 2
"""Raised when the same network, people and evaluation would give other keypoints."""
POINTS_FILE = "points.safetensors"

ROWS_AT_ONCE = 256
FUSED_ROWS_AT_ONCE = 32
"""Where maps are fused: 32 people with 16 maps of 128² cells are 32 MiB a view."""
_COLOURS = 3
FUSED_VIEWS_AT_ONCE = 128
"""Of all people together: the maps of all views lie in memory until they are fused. MoveNet's heads say 2 MiB about a view of 320 px."""

HearsProgress = Callable[[int, int], None]
"""Hears how many of how many examples are done."""


def hears_nothing(done: int, count: int) -> None:
    """Tells nobody."""


def predict(tail: nn.Module, views: Sequence[Inputs], reading: PoseReading, *, on_progress: HearsProgress = hears_nothing) -> PosePoints:
    """Keypoints (N, K, 2) px and confidences (N, K) of all inputs, without augmentation.

    Args:
        tail: the network, or what follows its frozen stem.
        views: the inputs of each view of `reading`, in its order (`InputBuilder.scored`).
        reading: what is made of the outputs.
        on_progress: hears how many examples are done.
    """
    count, found = len(views[0]), []
    size = _people_at_once(views, reading)
    for outputs in zip(*(outputs_of(tail, inputs, at_once=size) for inputs in views), strict=True):
        points, confidence = reading.points(outputs)
        found.append((points.cpu(), confidence.cpu()))
        done = min(len(found) * size, count)
        on_progress(done, count)
        tell("scoring, person", done, count)
    return torch.cat([points for points, _ in found]), torch.cat([confidence for _, confidence in found])


def _people_at_once(views: Sequence[Inputs], reading: PoseReading) -> int:
    """All views of one person are read together, and pictures go through a network few at a time."""
    size = ROWS_AT_ONCE if reading.is_direct else max(1, min(FUSED_ROWS_AT_ONCE, FUSED_VIEWS_AT_ONCE // len(views)))
    if len(views[0]) == 0:
        return size
    first = [inputs.take(np.zeros(1, dtype=np.int64), None) for inputs in views]
    return min([size, *(pictures_at_once(one) for one in first if one.dim() == 4 and one.shape[1] == _COLOURS)])


def outputs_of(tail: nn.Module, inputs: Inputs, *, at_once: int = ROWS_AT_ONCE) -> Iterator[Any]:
    """What the head says of all inputs in order, some at a time."""
    tail.eval()
    for start in range(0, len(inputs), at_once):
        with torch.no_grad():
            outputs = tail(inputs.take(np.arange(start, min(start + at_once, len(inputs))), None))
        yield outputs


def cached_predictions(
    network: PoseNetwork,
    dataset: ShardSet,
    reading: PoseReading,
    *,
    config: TrialConfig,
    places: Places,
    on_progress: HearsProgress = hears_nothing,
) -> PosePoints:
    """Keypoints (N, K, 2) px and confidences (N, K) of a dataset's people. Those of fused views are made once per network, people and
    evaluation, and kept.

    Args:
        network: in its final weights.
        dataset: the people, of the model's input size.
        reading: what is made of the outputs.
        config: of the model.
        places: the cache lies below `cache_dir`.
        on_progress: hears how many people are done.
    """
    split = network.split(config.model.freeze)
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=device_of(RuntimeFlags()))

    def predicted() -> PosePoints:
        return predict(split.tail, builder.scored(dataset, reading), reading, on_progress=on_progress)

    if reading.is_direct:
        return predicted()
    document = {
        "version": PREDICTIONS_VERSION,
        "weights": weights_digest(network.state_dict()),
        "model": identity_of(config.model),
        "code": dict(network.code),
        "evaluation": identity_of(config.evaluation),
        "data": dataset.identity,
        "joints": dataset.skeleton.joints,
    }
    target = places.cache_dir / "predictions" / digest_of(document)
    cached_folder(target, lambda folder: _write(folder, predicted(), dataset), private=dataset.manifest.role == "PRIVATE")
    stored = load_file(target / POINTS_FILE)
    return stored["points"], stored["confidence"]


def _write(folder: Path, found: PosePoints, dataset: ShardSet) -> None:
    save_file({"points": found[0].contiguous(), "confidence": found[1].contiguous()}, folder / POINTS_FILE)
    write_json(folder / META_NAME, {"datasets": [dataset.source.identity]})
