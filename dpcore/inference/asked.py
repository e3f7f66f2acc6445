"""The backbone `keypoints`: a public pose network that stays as it is, asked for keypoints in several views of a crop.

What a head then reads of a record is 17 fused keypoints and their confidences, 51 numbers. So the features of a whole dataset are a few
megabytes, a private step takes milliseconds, and few weights train, which little noise reaches.

The fused maps of a crop's views are decoded as `evaluation` would decode them; `model.asked` says which views, and whether there is a
second look (`dpcore.inference.second_look`). Legend: B crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig, Places, Precision
from dpcore.config.model import AskedConfig
from dpcore.inference.maps import MapDecoder
from dpcore.inference.movenet import MOVENET_LAYERS, WINDOW_PX, MoveNetReadout
from dpcore.inference.reading import PoseReading
from dpcore.inference.second_look import SecondLook
from dpcore.inference.views import SIZE_STEP_PX, views_of
from dpcore.model.built import BuiltBackbone
from dpcore.model.folded import FoldedFeatures, build_folded
from dpcore.pose.skeleton import COCO_17

KEYPOINT_NUMBERS = 3
"""Of each keypoint: x and y, and a confidence."""
_MAPS_STRIDE_PX = 4
_CROPS_AT_ONCE = 8


class AskedNetwork(nn.Module):
    """Crops (B,3,H,W) in [-1, 1] to (B, 51, 1, 1): x of COCO's 17 joints, then y, then confidences in 0 … 1.

    x and y are distances from the middle of the crop in halves of its longer side. No example changes another's numbers.
    """

    def __init__(self, features: FoldedFeatures, reading: PoseReading, *, second: SecondLook | None, precision: Precision) -> None:
        super().__init__()
        self.features = features
        self.reading = reading
        self.second = second
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # the graph is of any number of crops
            return self._asked(images)
        return torch.cat([self._asked(some) for some in torch.split(images, _CROPS_AT_ONCE)])

    def _asked(self, images: Tensor) -> Tensor:
        looks = list(self.reading.upright([self._outputs(view.of_images(images)) for view in self.reading.views]))
        points, confidence = self.reading.readout.points(self.reading.together(looks))
        if self.second is not None:
            height, width = looks[0][0].shape[2:]
            for _ in range(self.second.config.times):
                looks.extend(self.second.upright(images, points, self._outputs, self.reading, grid=(height, width)))
                points, confidence = self.reading.readout.points(self.reading.together(looks))
        return torch.cat([*_centred(points, images).unbind(-1), confidence], dim=1)[:, :, None, None]

    def _outputs(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            maps: Tensor = self.features(images.contiguous(memory_format=torch.channels_last))
        return maps.float()


def _centred(points: Tensor, images: Tensor) -> Tensor:
    """Keypoints (B, K, 2) px as distances from the middle, in halves of the longer side."""
    height, width = images.shape[2:]
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=points.dtype, device=points.device)
    return (points - middle) / (max(height, width) / 2)


def _reading(config: ModelConfig, asked: AskedConfig) -> PoseReading:
    decoder = MapDecoder(height_px=config.input_height_px, width_px=config.input_width_px, window_px=WINDOW_PX)
    return PoseReading(
        readout=MoveNetReadout.of(decoder, COCO_17),
        views=views_of(asked, grows=True),
        fuse=asked.fuse,
        confidence_power=asked.confidence_power,
        temperature=asked.temperature,
        size_px=(config.input_height_px, config.input_width_px),
    )


def asked_for_training(stem: nn.Module, config: ModelConfig) -> nn.Module:
    """The frozen stem of a network with this backbone, asked in the views of `model.asked_for_training`. It shares the stem's weights."""
    asked = config.asked_for_training
    assert asked is not None  # the caller has looked
    (network,) = [module for module in stem.modules() if isinstance(module, AskedNetwork)]
    return _asking(network.features, config, asked).eval()


def _asking(features: FoldedFeatures, config: ModelConfig, asked: AskedConfig) -> AskedNetwork:
    second = None if asked.second_look is None else SecondLook(config=asked.second_look, flip=asked.flip)
    return AskedNetwork(features, _reading(config, asked), second=second, precision=asked.precision)


def build_asked(config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None) -> BuiltBackbone:
    """The backbone `keypoints` of a model config.

    Raises:
        BadInput, Corrupt: as `build_folded`.
    """
    folded = build_folded(config, places, document)
    features = folded.parts["early"]
    assert isinstance(features, FoldedFeatures)
    features.stride_px = _MAPS_STRIDE_PX
    asked = config.asked or AskedConfig()
    return BuiltBackbone(
        parts={"early": _asking(features, config, asked)},
        channels=KEYPOINT_NUMBERS * COCO_17.count,
        stride_px=SIZE_STEP_PX,
        ready=frozenset({"early"}),
        layers=dict(MOVENET_LAYERS),
        document=folded.document,
    )
