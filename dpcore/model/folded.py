"""Public networks whose BatchNorm is folded away: weights in an npz, topology in a JSON file.

One generic executor for any chain of conv, dwconv, add and upsample2x_bilinear, in the padding of TensorFlow
("SAME"). MoveNet Lightning and EfficientNet-Lite0 are the first two. Nothing here unpickles: `numpy.load` is called
with `allow_pickle=False`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig, Part, Places, parse_config
from dpcore.errors import BadInput, Corrupt
from dpcore.model.built import BuiltBackbone

FOLDED_STRIDE_PX = 8
"""The common grid of all feature maps. At 192 px it is 24x24: a finer one costs four times the bytes of every cached
feature and, on LSPET, no score (measured at stride 8)."""


class Layer(Part):
    """One line of a topology file."""

    name: str
    op: Literal["conv", "dwconv", "add", "upsample2x_bilinear"]
    inputs: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    stride: int = 1
    act: Literal["relu", "relu6"] | None = None


class Topology(Part):
    """A folded network: its layers in order, and the affine map from [-1, 1] inputs to its own input scale."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model: str
    input: str
    layers: tuple[Layer, ...]

    def input_affine(self) -> tuple[float, float]:
        """(scale, shift) such that `scale * t + shift` is this network's input for a pixel `t = x / 127.5 - 1`.

        Raises:
            BadInput: the input line is neither `x/a-b` nor `(x-a)/b`.
        """
        number = r"([0-9]+(?:\.[0-9]+)?)"
        if match := re.search(rf"x/{number}-{number}", self.input):
            divisor, shift = float(match[1]), -float(match[2])
        elif match := re.search(rf"\(x-{number}\)/{number}", self.input):
            divisor, shift = float(match[2]), -float(match[1]) / float(match[2])
        else:
            raise BadInput(f"{self.model}: input scaling {self.input!r} is not understood; expected x/a-b or (x-a)/b")
        return 127.5 / divisor, 127.5 / divisor + shift

    def needed_for(self, feature_layers: Sequence[str]) -> Topology:
        """The topology without the layers that no wanted feature depends on.

        Raises:
            BadInput: a wanted layer does not exist.
        """
        by_name = {layer.name: layer for layer in self.layers}
        unknown = [name for name in feature_layers if name not in by_name]
        if unknown:
            raise BadInput(f"model.feature_layers: {self.model} has no layer {', '.join(unknown)}; it has {', '.join(by_name)}")
        wanted, open_names = set(), list(feature_layers)
        while open_names:
            name = open_names.pop()
            if name in wanted or name == "input":
                continue
            wanted.add(name)
            open_names.extend(by_name[name].inputs)
        return self.model_copy(update={"layers": tuple(layer for layer in self.layers if layer.name in wanted)})


class FoldedFeatures(nn.Module):
    """Runs a topology and returns the named maps on one grid, concatenated: (B,3,H,W) in [-1, 1] -> (B,C,H/8,W/8).

    Finer maps are averaged over the grid's cells, coarser ones interpolated.
    """

    def __init__(self, topology: Topology, feature_layers: Sequence[str]) -> None:
        super().__init__()
        self.topology = topology.needed_for(feature_layers)
        self.feature_layers = tuple(feature_layers)
        self.scale, self.shift = topology.input_affine()
        self.convolutions = nn.ModuleDict({_key(layer.name): _convolution(layer) for layer in self.topology.layers if layer.shape})

    def channels(self) -> dict[str, int]:
        """Channels of each feature layer, in the order of the concatenation."""
        known = {"input": 3}
        for layer in self.topology.layers:
            known[layer.name] = layer.shape[0] if layer.shape else known[layer.inputs[0]]
        return {name: known[name] for name in self.feature_layers}

    def forward(self, images: Tensor) -> Tensor:
        maps = {"input": images * self.scale + self.shift}
        for layer in self.topology.layers:
            maps[layer.name] = self._run(layer, [maps[name] for name in layer.inputs])
        grid = (images.shape[2] // FOLDED_STRIDE_PX, images.shape[3] // FOLDED_STRIDE_PX)
        return torch.cat([_on_grid(maps[name], grid) for name in self.feature_layers], dim=1)

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.op == "add":
            result = inputs[0] + inputs[1]
        elif layer.op == "upsample2x_bilinear":
            result = functional.interpolate(inputs[0], scale_factor=2.0, mode="bilinear", align_corners=False)
        else:
            kernel = layer.shape[-1] if layer.shape else 1
            result = self.convolutions[_key(layer.name)](_pad_same(inputs[0], kernel, layer.stride))
        return _ACTIVATIONS[layer.act](result)


def _unchanged(maps: Tensor) -> Tensor:
    return maps


_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {None: _unchanged, "relu": functional.relu, "relu6": functional.relu6}


def _key(name: str) -> str:
    return name.replace(".", "_")


def _convolution(layer: Layer) -> nn.Conv2d:
    shape = layer.shape or ()
    if len(shape) != 4 or shape[2] != shape[3]:
        raise BadInput(f"layer {layer.name}: expected the shape (out, in, k, k) of a square kernel, given {shape}")
    outputs, inputs_per_group, kernel, _ = shape
    groups = outputs if layer.op == "dwconv" else 1
    return nn.Conv2d(inputs_per_group * groups, outputs, kernel, stride=layer.stride, groups=groups)


def _pad_same(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around `maps` as TensorFlow's SAME has them: the odd one right and below."""
    pads = []
    for size in (maps.shape[3], maps.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(maps, pads) if any(pads) else maps


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    if maps.shape[2] >= grid[0]:
        return functional.adaptive_avg_pool2d(maps, grid)
    return functional.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


def read_topology(weights: Path) -> Topology:
    """The topology beside `<weights>_fp16.npz`: `<weights>_layers.json`, or the same without the stem's last word
    (`efficientnet_lite0_imagenet` has `efficientnet_lite0_layers.json`).

    Raises:
        BadInput: there is no such file. Corrupt: it is not a topology.
    """
    shorter = weights.name.rsplit("_", 1)[0]
    candidates = [weights.with_name(f"{stem}_layers.json") for stem in dict.fromkeys((weights.name, shorter))]
    for path in candidates:
        if path.is_file():
            try:
                document: Any = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise Corrupt(f"{path} is not JSON: {error}; fetch the network again") from error
            return parse_config(Topology, document, where=path.name)
    raise BadInput(f"model.weights: no topology found; expected {' or '.join(map(str, candidates))}")


def load_folded(weights: Path, feature_layers: Sequence[str]) -> FoldedFeatures:
    """A folded network from `<weights>_fp16.npz` and its topology, in float32.

    Raises:
        BadInput: a file or a layer is missing. Corrupt: a tensor is missing or has another shape.
    """
    topology = read_topology(weights)
    archive_path = weights.with_name(f"{weights.name}_fp16.npz")
    if not archive_path.is_file():
        raise BadInput(f"model.weights: {archive_path} is not there; give folder/stem below the data directory, without _fp16.npz")
    features = FoldedFeatures(topology, feature_layers)
    with np.load(archive_path, allow_pickle=False) as archive:
        features.load_state_dict(_state_of(features.topology, archive, archive_path))
    return features


def build_folded(config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None) -> BuiltBackbone:
    """The folded backbone of a model config: from its files, or from the topology that a saved model holds.

    Raises:
        BadInput: a file or a layer is missing. Corrupt: a tensor is missing or has another shape.
    """
    if document is not None:
        features = FoldedFeatures(parse_config(Topology, document, where="topology"), config.feature_layers)
    elif config.weights is None or places is None:
        raise BadInput("model.backbone folded needs model.weights and the data directory")
    else:
        features = load_folded(places.data_dir / config.weights, config.feature_layers)
    layers = features.channels()
    return BuiltBackbone(
        parts={"early": features},
        channels=sum(layers.values()),
        stride_px=FOLDED_STRIDE_PX,
        ready=frozenset({"early"}),
        layers=layers,
        document=features.topology.model_dump(mode="json"),
    )


def _state_of(topology: Topology, archive: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of the convolutions; a layer whose bias the archive leaves out has bias 0."""
    state = {}
    for layer in topology.layers:
        if layer.shape is None:
            continue
        for kind, shape in (("weight", layer.shape), ("bias", layer.shape[:1])):
            name = f"{layer.name}.{kind}"
            if name not in archive and kind == "weight":
                raise Corrupt(f"{path}: tensor {name} is missing; fetch the network again")
            values = np.asarray(archive[name] if name in archive else np.zeros(shape), dtype=np.float32)
            if values.shape != tuple(shape):
                raise Corrupt(f"{path}: tensor {name} has shape {values.shape}, the topology says {tuple(shape)}")
            state[f"convolutions.{_key(layer.name)}.{kind}"] = torch.from_numpy(values)
    return state
