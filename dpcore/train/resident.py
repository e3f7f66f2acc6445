"""Inputs that lie whole on the device: crops as bytes, or cached features as float16. `RuntimeFlags.data_on_device`.

A step then moves only indices and maps to the device, not pixels. Crops are augmented there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.data.transforms import GeometryDraw, scaled
from dpcore.devices import on_device
from dpcore.errors import BadInput, Unavailable
from dpcore.privacy.randomness import Indices
from dpcore.train.sources import CropSource, FeatureInputs, through_stem

LARGEST_SHARE = 0.5
"""Of the device's free memory: the rest is for the steps themselves."""
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ResidentCrops:
    """Crops (N, H, W, 3) uint8 on the device, through the draw's geometry and the frozen stem (None: nothing is frozen)."""

    crops: Tensor
    stem: nn.Module | None

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        """(B, ...) float32."""
        images = self.crops.index_select(0, _on(self.crops.device, indices))
        if draw is not None:
            images = draw.apply_on_device(images)
        tensor = scaled(images, channels_first=self.stem is None)
        return tensor if self.stem is None else through_stem(self.stem, tensor).contiguous()


@dataclass(frozen=True)
class ResidentFeatures:
    """Cached features (N, C, h, w) float16 of untransformed crops, on the device."""

    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: Indices, draw: GeometryDraw | None) -> Tensor:
        """(B, ...) float32."""
        if draw is not None:
            raise BadInput("cached features know no augmentation: make them from images, or set augmentation to nothing")
        return self.features.index_select(0, _on(self.features.device, indices)).to(torch.float32)


def resident_crops(crops: CropSource, stem: nn.Module | None, device: torch.device) -> ResidentCrops:
    """All crops, copied to `device`.

    Raises:
        Unavailable: they take more than half of its free memory. BadInput: there is no crop.
    """
    if not len(crops):
        raise BadInput("there is no crop to hold on the device: the dataset is empty")
    first = crops.images(np.zeros(1, dtype=np.int64))
    require_room(len(crops) * first.nbytes, device)
    held = torch.empty(len(crops), *first.shape[1:], dtype=torch.uint8, device=device)
    for start in range(0, len(crops), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(crops)))
        held[start : start + len(rows)] = torch.from_numpy(np.ascontiguousarray(crops.images(rows)))
    return ResidentCrops(held, stem)


def resident_features(inputs: FeatureInputs) -> ResidentFeatures:
    """All features, copied to their device.

    Raises:
        Unavailable: they take more than half of its free memory.
    """
    require_room(inputs.features.nbytes, inputs.device)
    held = torch.empty(inputs.features.shape, dtype=torch.float16, device=inputs.device)
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        rows = np.array(inputs.features[start : start + _ROWS_AT_ONCE])
        held[start : start + len(rows)] = torch.from_numpy(rows)
    return ResidentFeatures(held)


def require_room(wanted_bytes: int, device: torch.device) -> None:
    """Refuses data that would leave too little memory for the steps.

    Raises:
        Unavailable: says how much is wanted and how much is free.
    """
    free = free_bytes(device)
    if wanted_bytes > LARGEST_SHARE * free:
        raise Unavailable(
            f"runtime.data_on_device: {wanted_bytes / 1e9:.2f} GB of examples need at most half of the device's {free / 1e9:.2f} GB of free"
            " memory; leave data_on_device out, or run fewer trials on the device"
        )


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA device."""
    return torch.cuda.mem_get_info(device)[0]


def _on(device: torch.device, indices: Indices) -> Tensor:
    return on_device(torch.from_numpy(indices), device)
