"""Which way up a person is: a PUBLIC network looks at a square crop and says by how many quarters it must be turned.

| rule | a crop is turned so that |
|---|---|
| confidence | the network is surest: the mean over joints of its confidence is highest, of four quarter turns |
| axis | the line from the middle of the hips to the middle of the shoulders, as read on the crop itself, points up |

Public networks are trained on people who stand. Half of LSPET's torsos are not upright: there the right quarter is worth several points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dpcore.config import DataConfig, ModelConfig, Places, digest_of
from dpcore.inference.movenet import MOVENET_LAYERS, MoveNetReadout, movenet_readout
from dpcore.model.built import build_backbone
from dpcore.model.network import PoseNetwork, assemble_network, build_network, load_weights, weights_digest
from dpcore.pose.skeleton import COCO_17

INPUT_PX = 192
"""Side of what the detector reads, a multiple of its largest stride. A quarter turn needs no more."""
UPRIGHT_VERSION = 1
"""Raised when the same weights and crops would give other turns."""
QUARTERS = (0, 1, 2, 3)
_AT_ONCE = 8


def detector_model(weights: str) -> ModelConfig:
    """The config of a detector: MoveNet as it is."""
    return ModelConfig(
        backbone="folded",
        weights=weights,
        feature_layers=tuple(MOVENET_LAYERS),
        feature_stride_px=4,
        head="movenet",
        freeze="backbone",
        input_height_px=INPUT_PX,
        input_width_px=INPUT_PX,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class UprightDetector:
    """A public network and the rule by which it turns crops.

    *Guarantees*: the turn of a crop is a function of that crop's pixels alone.

    Attributes:
        network: MoveNet, with COCO's joints.
        weights: its name. rule: see the module.
    """

    network: PoseNetwork
    weights: str
    rule: str

    @classmethod
    def of(cls, data: DataConfig, places: Places) -> UprightDetector | None:
        """The detector that a config names; None where crops stay as they are.

        Raises:
            BadInput: the weights are missing, or are no MoveNet's.
        """
        if data.canonical_rotation is None:
            return None
        generator = torch.Generator().manual_seed(0)  # every weight comes from the file
        network = build_network(detector_model(data.canonical_rotation), places, generator=generator, skeleton=COCO_17)
        return cls(network=network.eval(), weights=data.canonical_rotation, rule=data.rotation_rule)

    @classmethod
    def stored(cls, data: DataConfig, topology: Mapping[str, Any], state: Mapping[str, Tensor], *, where: str) -> UprightDetector:
        """The detector of a saved model, whose weights lie with the model's.

        Raises:
            Corrupt: they are not the detector's.
        """
        assert data.canonical_rotation is not None  # the caller has looked
        model = detector_model(data.canonical_rotation)
        network = assemble_network(model, build_backbone(model, None, topology), skeleton=COCO_17)
        load_weights(network, dict(state), where=where)
        return cls(network=network.eval(), weights=data.canonical_rotation, rule=data.rotation_rule)

    @property
    def name(self) -> str:
        """For keys: equal exactly for detectors that turn alike."""
        return digest_of(
            {"version": UPRIGHT_VERSION, "weights": weights_digest(self.network.state_dict()), "rule": self.rule, "px": INPUT_PX}
        )

    def turns(self, images: NDArray[np.uint8]) -> NDArray[np.int8]:
        """(B,) 0 … 3: by how many quarters each square crop (B, H, H, 3) is to be turned counterclockwise. A tie goes to the first."""
        found = [self._turns(images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int8)

    def _turns(self, images: NDArray[np.uint8]) -> NDArray[np.int8]:
        readout = movenet_readout(detector_model(self.weights), COCO_17)
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1.0)
        if tensor.shape[2] != INPUT_PX:
            tensor = functional.interpolate(tensor, size=(INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False, antialias=True)
        with torch.no_grad():
            chosen = self._surest(tensor, readout) if self.rule == "confidence" else self._up(tensor, readout)
        return chosen.to(torch.int8).numpy()

    def _surest(self, tensor: Tensor, readout: MoveNetReadout) -> Tensor:
        seen = [readout.maps(self.network(torch.rot90(tensor, quarters, dims=(2, 3)))).confidence.mean(dim=1) for quarters in QUARTERS]
        return torch.stack(seen).argmax(dim=0)

    def _up(self, tensor: Tensor, readout: MoveNetReadout) -> Tensor:
        points = readout.points_of(self.network(tensor), None)[0]
        place = COCO_17.index
        shoulders, hips = ((points[:, place[f"l_{part}"]] + points[:, place[f"r_{part}"]]) / 2 for part in ("shoulder", "hip"))
        x, y = (shoulders - hips).unbind(-1)
        # clockwise from up, y down: a torso that points right is turned counterclockwise by one quarter
        return torch.round(torch.atan2(x, -y) / (torch.pi / 2)).to(torch.int64) % 4
