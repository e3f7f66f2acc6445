"""What the pieces do, imported when one of them is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.samplers import BaseSampler, RandomSampler
from PIL import Image
from torch import Tensor, nn

from dpcore.config import ModelConfig
from dpcore.data.manifest import DatasetHeader, Manifest, Record
from dpcore.data.shards import write_shards
from dpcore.model.built import BuiltBackbone
from dpcore.model.head import HeadShape
from dpcore.pose.metrics import Scored
from sweeps.pricing.regimes import Basis, Pricing
from sweeps.search.samplers import Request


def signed(public_term: Tensor | None, private_term: Tensor | None) -> Tensor:
    """The signs of what was released."""
    assert public_term is None
    assert private_term is not None
    return torch.sign(private_term)


def build_strides(config: ModelConfig, places: Any, document: Any) -> BuiltBackbone:
    """One convolution of stride 8 behind one learned gain, which draws for itself."""
    return BuiltBackbone(parts={"early": Strides()}, channels=8, stride_px=8)


class Strides(nn.Module):
    """(B,3,H,W) -> (B,8,H/8,W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, stride=8)

    def draw_weights(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.conv.weight, std=0.1, generator=generator)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.conv(images))


class MeanHead(nn.Module):
    """Means over rows and columns, one linear map each: (B,C,h,w) -> (B,K,Wx), (B,K,Wy)."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.to_maps = nn.Conv2d(shape.channels, shape.joints, 1)
        self.to_x = nn.Linear(shape.grid_width, shape.bins_x)
        self.to_y = nn.Linear(shape.grid_height, shape.bins_y)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.to_maps(features)
        return self.to_x(maps.mean(dim=2)), self.to_y(maps.mean(dim=3))


def noted(request: Request) -> BaseSampler:
    """Random draws."""
    return Noted(seed=request.seed)


class Noted(RandomSampler):
    """Optuna's own under another name."""


class Twice(Pricing):
    """Composed, in other words, and under a warning."""

    warning = "priced by a stranger"

    def text(self, basis: Basis) -> str:
        return f"{super().text(basis)}, says a stranger"


def error_px(scored: Scored) -> float:
    """The mean distance of labelled joints from their predictions."""
    distances = np.linalg.norm(scored.predictions - scored.keypoints, axis=-1)
    return float(distances[scored.visible].mean())


def import_list(annotations: Path, images: Path, out: Path, *, box_scale: float, head_px: float, tally: Any, **header: Any) -> Manifest:
    """Whole pictures as crops."""
    rows = json.loads(annotations.read_text())
    return write_shards(out, (_record(images, row, head_px) for row in rows), header=DatasetHeader(origin=annotations.name, **header))


def _record(images: Path, row: dict[str, Any], head_px: float) -> Record:
    name = row["file"]
    return Record(
        image=np.asarray(Image.open(images / name).convert("RGB")),
        keypoints=np.asarray(row["keypoints"], dtype=np.float64),
        visible=np.ones(16, dtype=bool),
        head_size_px=head_px,
        person_id=name,
        image_id=name,
        video_id="",
        source_id=name,
    )
