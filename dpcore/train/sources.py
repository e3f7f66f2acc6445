"""Examples for training: labels beside inputs, which are images, features of a frozen stem made on the fly, or cached features.

These are the `ExampleSource` and `RecordSource` that the mechanism reads. Shapes: B examples, K joints, H W pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcore.config import AugmentationConfig, SplitConfig
from dpcore.data.splitting import decode_view, encode_view
from dpcore.data.transforms import GeometryDraw, draw_geometry, scaled
from dpcore.data.views import StoredViews
from dpcore.devices import on_device, pictures_at_once
from dpcore.errors import BadInput
from dpcore.inference.views import UPRIGHT, View
from dpcore.pose.skeleton import Skeleton
from dpcore.privacy.per_example import Batch
from dpcore.privacy.randomness import Indices, RandomStream


class CropSource(Protocol):
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
    """CropSource through an affine draw, a view, and then through the frozen stem; `stem` is None where nothing is frozen."""

    crops: CropSource
    stem: nn.Module | None
    device: torch.device
    view: View = UPRIGHT

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        images = self.crops.images(indices)
        if draw is not None:
            images = draw.apply_to_images(images)
        pixels = on_device(torch.from_numpy(np.ascontiguousarray(images)), self.device)  # as bytes: a fourth of what they become
        tensor = self.view.of_images(scaled(pixels, channels_first=self.stem is None))
        return tensor if self.stem is None else through_stem(self.stem, tensor).contiguous()


@dataclass(frozen=True)
class SeenThrough:
    """The public views of crops, made anew from their pixels. What a public view of a PRIVATE record is, the stored bytes say alone; these
    are for scores and predictions."""

    crops: CropSource
    split: SplitConfig

    def __len__(self) -> int:
        return len(self.crops)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, H, W, 3) uint8, as the public side would read them."""
        crops = self.crops.images(indices)
        return decode_view(encode_view(crops, self.split), self.split, size_px=(crops.shape[1], crops.shape[2]))


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
        return on_device(torch.from_numpy(self.features[indices]), self.device).to(torch.float32)


@dataclass(frozen=True)
class SomeInputs:
    """Those of some rows (M,) alone, which are numbered anew."""

    inputs: Inputs
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        return self.inputs.take(self.rows[indices], draw)


@dataclass(frozen=True)
class Labels:
    """Keypoints (N, K, 2) px and visibility (N, K) of a dataset of crops of one size, with the skeleton that names the K joints. `head_px`
    (N,): head sizes, NaN where unknown; None where none is known, as for a teacher's labels."""

    keypoints: NDArray[np.float32]
    visible: NDArray[np.bool_]
    height_px: int
    width_px: int
    skeleton: Skeleton
    head_px: NDArray[np.float32] | None = None

    @cached_property
    def digest(self) -> str:
        """64 hex digits over all labels in order. That of private labels is a membership test: local files only."""
        mark = self.skeleton.mark
        digest = hashlib.sha256(f"{self.keypoints.shape}|{self.height_px}|{self.width_px}{mark and '|' + mark}".encode())
        digest.update(self.keypoints.tobytes())
        digest.update(self.visible.tobytes())
        digest.update(b"" if self.head_px is None else self.head_px.tobytes())
        return digest.hexdigest()

    def take(self, indices: Indices, draw: GeometryDraw | None) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints, visibility and head sizes of `indices` under their draw."""
        keypoints, visible = self.keypoints[indices], self.visible[indices]
        if draw is not None:
            size = {"height_px": self.height_px, "width_px": self.width_px}
            keypoints, visible = draw.apply_to_keypoints(keypoints, visible, skeleton=self.skeleton, **size)
        heads = np.full(len(indices), np.nan, dtype=np.float32) if self.head_px is None else self.head_px[indices]
        if draw is not None:
            heads = (heads * draw.zoom).astype(np.float32)
        return torch.from_numpy(keypoints), torch.from_numpy(visible), torch.from_numpy(heads)


@dataclass(frozen=True)
class LabelledViews:
    """The stored public views of a dataset and the labels that every public place uses: all that the public side of a trial
    holds of the private data.

    Attributes:
        stored: ψ(x), row by row.
        labels: the dataset's own where labels are public, else the teacher's; then no true label is within reach of here.
        teacher: digest of the weights of the public model that made the labels; None where they are the dataset's own.
    """

    stored: StoredViews
    labels: Labels
    teacher: str | None = None


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
        labels = (on_device(label, self.device) for label in self.labels.take(indices, draw))
        return Batch(self.inputs.take(indices, draw), *labels)


@dataclass(frozen=True)
class Records(Examples):
    """A `RecordSource`: private examples, and where the method has pairs the public view of each with the public side's label."""

    views: Examples | None = None

    def view_batch(self, indices: Indices, draw: GeometryDraw | None) -> Batch:
        """ψ(x) of the same records under the same draw, from the stored bytes and the public side's labels alone.

        Raises:
            BadInput: the trial has no split.
        """
        if self.views is None:
            raise BadInput("this trial has no public views: give the config a split")
        return self.views.batch(indices, draw)


def through_stem(stem: nn.Module, images: Tensor) -> Tensor:
    """`stem` of images (B,3,H,W), without gradients and in batches of one fixed size."""
    with torch.no_grad():
        return torch.cat([stem(some) for some in torch.split(images, pictures_at_once(images))]) if len(images) else stem(images)
