"""Examples for training: labels beside inputs, which are images, features of a frozen stem made on the fly, or cached features.

These are the `ExampleSource` and `RecordSource` that the mechanism reads. Shapes: B examples, K joints, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcore.config import AugmentationConfig
from dpcore.data.transforms import GeometryDraw, draw_geometry, to_tensor
from dpcore.errors import BadInput
from dpcore.privacy.per_example import Batch
from dpcore.privacy.randomness import Indices, RandomStream

_STEM_BATCH = 64


class Crops(Protocol):
    """Anything that gives crops by index: a `ShardSet`, or `StoredViews`."""

    def __len__(self) -> int: ...

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, H, W, 3) uint8."""


class Inputs(Protocol):
    """What the trainable tail eats, by index and under a draw of geometry."""

    def __len__(self) -> int: ...

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        """(B, ...) float32."""


@dataclass(frozen=True)
class ImageInputs:
    """Crops through an affine draw and then through the frozen stem; `stem` is None where nothing is frozen."""

    crops: Crops
    stem: nn.Module | None
    device: torch.device

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        images = self.crops.images(indices)
        if draw is not None:
            images = draw.apply_to_images(images)
        tensor = to_tensor(images).to(self.device)
        return tensor if self.stem is None else through_stem(self.stem, tensor)


@dataclass(frozen=True)
class FeatureInputs:
    """Cached features (N, C, h, w) float16 of untransformed crops."""

    features: NDArray[np.float16]
    device: torch.device

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        if draw is not None:
            raise BadInput("cached features know no augmentation: make them from images, or set augmentation to nothing")
        return torch.from_numpy(self.features[indices]).to(self.device, torch.float32)


@dataclass(frozen=True)
class Labels:
    """Keypoints (N, K, 2) px and visibility (N, K) of a dataset of crops of one size."""

    keypoints: NDArray[np.float32]
    visible: NDArray[np.bool_]
    height_px: int
    width_px: int

    def take(self, indices: Indices, draw: GeometryDraw | None) -> tuple[Tensor, Tensor]:
        """Labels of `indices` under their draw."""
        keypoints, visible = self.keypoints[indices], self.visible[indices]
        if draw is not None:
            keypoints, visible = draw.apply_to_keypoints(keypoints, visible, height_px=self.height_px, width_px=self.width_px)
        return torch.from_numpy(keypoints), torch.from_numpy(visible)


@dataclass(frozen=True)
class Examples:
    """An `ExampleSource`: one kind of input with its labels and the law of its augmentation."""

    inputs: Inputs
    labels: Labels
    augmentation: AugmentationConfig
    device: torch.device

    def __len__(self) -> int:
        return len(self.inputs)

    def draw_geometry(self, stream: RandomStream, count: int) -> GeometryDraw | None:
        """The random geometry of `count` examples; None where the augmentation changes nothing."""
        return None if self.augmentation.is_identity else draw_geometry(self.augmentation, count, stream)

    def batch(self, indices: Indices, draw: GeometryDraw | None) -> Batch:
        """The examples at `indices` under their draw."""
        return self._batch_of(self.inputs, indices, draw)

    def _batch_of(self, inputs: Inputs, indices: Indices, draw: GeometryDraw | None) -> Batch:
        keypoints, visible = self.labels.take(indices, draw)
        return Batch(inputs.take(indices, draw), keypoints.to(self.device), visible.to(self.device))


@dataclass(frozen=True)
class Records(Examples):
    """A `RecordSource`: private examples, and where the method has pairs the stored public view of each."""

    views: Inputs | None = None

    def view_batch(self, indices: Indices, draw: GeometryDraw | None) -> Batch:
        """ψ(x) of the same records under the same draw, from the stored bytes alone.

        Raises:
            BadInput: the trial has no split.
        """
        if self.views is None:
            raise BadInput("this trial has no public views: give the config a split")
        return self._batch_of(self.views, indices, draw)


def through_stem(stem: nn.Module, images: Tensor) -> Tensor:
    """`stem` of images (B,3,H,W), without gradients and in batches of one fixed size."""
    with torch.no_grad():
        return torch.cat([stem(chunk) for chunk in torch.split(images, _STEM_BATCH)]) if len(images) else stem(images)
