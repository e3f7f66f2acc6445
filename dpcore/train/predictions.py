"""Keypoints of many people: each view of their crops goes through the network, some rows at a time.

Shapes: N examples, K joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dpcore.inference.reading import PosePoints, PoseReading
from dpcore.train.sources import Inputs

ROWS_AT_ONCE = 256
FUSED_ROWS_AT_ONCE = 32
"""Where maps are fused: 32 people with 16 maps of 128² cells are 32 MiB a view."""

HearsProgress = Callable[[int, int], None]
"""Hears how many of how many examples are done."""


def _silent(done: int, count: int) -> None:
    """Tells nobody."""


def predict(tail: nn.Module, views: Sequence[Inputs], reading: PoseReading, *, on_progress: HearsProgress = _silent) -> PosePoints:
    """Keypoints (N, K, 2) px and confidences (N, K) of all inputs, without augmentation.

    Args:
        tail: the network, or what follows its frozen stem.
        views: the inputs of each view of `reading`, in its order (`InputBuilder.scored`).
        reading: what is made of the outputs.
        on_progress: hears how many examples are done.
    """
    count, found = len(views[0]), []
    size = ROWS_AT_ONCE if reading.is_direct else FUSED_ROWS_AT_ONCE
    for outputs in zip(*(outputs_of(tail, inputs, at_once=size) for inputs in views), strict=True):
        points, confidence = reading.points(outputs)
        found.append((points.cpu(), confidence.cpu()))
        on_progress(min(len(found) * size, count), count)
    return torch.cat([points for points, _ in found]), torch.cat([confidence for _, confidence in found])


def outputs_of(tail: nn.Module, inputs: Inputs, *, at_once: int = ROWS_AT_ONCE) -> Iterator[Any]:
    """What the head says of all inputs in order, some at a time."""
    tail.eval()
    for start in range(0, len(inputs), at_once):
        with torch.no_grad():
            outputs = tail(inputs.take(np.arange(start, min(start + at_once, len(inputs))), None))
        yield outputs
