"""Public networks whose BatchNorm is folded away: weights in an npz, topology in a JSON file (docs/folded-format.md).

One executor for any plain convolutional network. MoveNet and EfficientNet-Lite0 are the first; `dpcore.weights` makes such files.
Nothing here unpickles: `numpy.load` is called with `allow_pickle=False`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig, Places, digest_of, parse_config
from dpcore.config.freezing import policy_of
from dpcore.config.networks import HEADS
from dpcore.errors import BadInput, Corrupt
from dpcore.model.built import BuiltBackbone
from dpcore.model.gains import Gained
from dpcore.model.maps.pyramid import Pyramid
from dpcore.model.topology import INPUT, Layer, Topology, read_topology

FOLDED_STRIDE_PX = 8
"""The common grid of all feature maps, unless `model.feature_stride_px` says another. At 192 px it is 24x24: a finer one costs four times
the bytes of every cached feature and, for a SimCC head on LSPET, brings no score."""

HEAD_LAYERS = ("fpn", "heat")
"""How a MoveNet's layers begin that make a pyramid of the trunk's maps, and heat maps of the pyramid."""

ARCHIVE_ENDINGS = ("_fp16.npz", "_fp32.npz")
"""Of the file with the weights, by preference."""


FUNCTION_SUM = "function_sum"
"""Buffer with the digest of what the layers compute and how the picture is scaled, since version 2. Caches are named by the digest of a
network's state. Without it, weights that are imported again with another input scale would get the features of the first."""


class FoldedFeatures(nn.Module):
    """Runs a topology and returns the named maps on one grid, concatenated: (B,3,H,W) in [-1, 1] -> (B,C,H/s,W/s), s = `stride_px`.

    Finer maps are averaged over the grid's cells, coarser ones interpolated. With `packed` each keeps its own grid, and they are packed as
    a `Pyramid`.
    """

    reads_channels_last = True

    def __init__(self, topology: Topology, feature_layers: Sequence[str], *, packed: bool = False) -> None:
        super().__init__()
        self.topology = topology.needed_for(feature_layers)
        self.feature_layers = tuple(feature_layers)
        self.stride_px = FOLDED_STRIDE_PX
        self.convolutions = nn.ModuleDict({_key(layer.name): _convolution(layer) for layer in self.topology.layers if layer.shape})
        self.pyramid = _pyramid_of(self.topology, feature_layers) if packed else None
        if topology.version > 1:
            self.register_buffer(FUNCTION_SUM, _function_sum(self.topology))

    def channels(self) -> dict[str, int]:
        """Channels of each feature layer, in the order of the concatenation."""
        known = self.topology.channels()
        return {name: known[name] for name in self.feature_layers}

    def forward(self, images: Tensor) -> Tensor:
        return self.gathered(self.maps(images), size_px=(images.shape[2], images.shape[3]))

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """The feature layers' maps as the network computes them, each on its own grid."""
        maps = self.run(self.topology.layers, {INPUT: self.scaled(images)})
        return {name: maps[name] for name in self.feature_layers}

    def scaled(self, images: Tensor) -> Tensor:
        """Pixels in [-1, 1] as the network wants them."""
        return _scaled(images, self.topology)

    def run(self, layers: Sequence[Layer], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps of `layers`, in order, beside those that they read."""
        found = dict(maps)
        for layer in layers:
            found[layer.name] = self._run(layer, [found[name] for name in layer.inputs])
        return found

    def gathered(self, maps: Mapping[str, Tensor], *, size_px: tuple[int, int]) -> Tensor:
        """The feature layers' maps, of a picture of that height and width, as one tensor."""
        if self.pyramid is not None:
            return self.pyramid.pack([maps[name] for name in self.feature_layers])
        grid = (size_px[0] // self.stride_px, size_px[1] // self.stride_px)
        return torch.cat([_on_grid(maps[name], grid) for name in self.feature_layers], dim=1)

    def modules_of(self, layers: Sequence[Layer]) -> nn.ModuleDict:
        """The modules of those of `layers` that have weights."""
        return nn.ModuleDict({key: self.convolutions[key] for key in (_key(layer.name) for layer in layers if layer.shape)})

    def key_of(self, layer: str) -> str:
        """The name of a layer's module in `convolutions`."""
        return _key(layer)

    def add_gains(self) -> None:
        """Gives each layer with weights a gain of 1 for each of its channels, beside its bias."""
        for key, module in list(self.convolutions.items()):
            self.convolutions[key] = Gained(module)  # type: ignore[arg-type]

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.shape is None:
            result = _OPERATIONS[layer.op](layer, inputs)
        elif layer.op == "deconv":
            result = _cropped(self.convolutions[_key(layer.name)](inputs[0]), layer)
        else:
            result = self.convolutions[_key(layer.name)](_padded(inputs[0], layer, layer.shape[2:]))
        return _ACTIVATIONS[layer.act](result) if layer.slope is None else functional.leaky_relu(result, layer.slope)


def _pyramid_of(topology: Topology, feature_layers: Sequence[str]) -> Pyramid:
    strides, channels = topology.strides(), topology.channels()
    whole = [int(stride) for name in feature_layers if (stride := strides[name]) is not None and stride.denominator == 1]
    if len(whole) < len(feature_layers):
        raise BadInput(f"model.feature_layers: not every one of {', '.join(feature_layers)} is a map of a whole stride; give others")
    return Pyramid(channels=tuple(channels[name] for name in feature_layers), strides_px=tuple(whole))


def _function_sum(topology: Topology) -> Tensor:
    document = topology.document()
    digest = digest_of({"input_scale": document["input_scale"], "layers": document["layers"]})
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)


def _scaled(images: Tensor, topology: Topology) -> Tensor:
    """Pixels in [-1, 1] as the network wants them."""
    if topology.input_scale is None:
        scale, shift = topology.input_affine()
        return images * scale + shift
    mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device)[:, None, None] for v in _mean_and_std(topology))
    ordered = images if topology.input_scale.order == "RGB" else images.flip(1)
    return ((ordered + 1) * 127.5 - mean) / std


def _mean_and_std(topology: Topology) -> tuple[tuple[float, ...], tuple[float, ...]]:
    assert topology.input_scale is not None  # of version 2
    return topology.input_scale.mean, topology.input_scale.std


def _unchanged(maps: Tensor) -> Tensor:
    return maps


_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: _unchanged,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_swish": functional.hardswish,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
}


def _sum(_: Layer, inputs: list[Tensor]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = result + other
    return result


def _product(_: Layer, inputs: list[Tensor]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = result * other
    return result


def _max_pool(layer: Layer, inputs: list[Tensor]) -> Tensor:
    kernel = layer.kernel or (1, 1)
    return functional.max_pool2d(_padded(inputs[0], layer, kernel, value=-torch.inf), kernel, stride=layer.stride)


def _average_pool(layer: Layer, inputs: list[Tensor]) -> Tensor:
    """The mean over the window, of the cells inside the map alone unless `count_pads`."""
    kernel = layer.kernel or (1, 1)
    result = functional.avg_pool2d(_padded(inputs[0], layer, kernel), kernel, stride=layer.stride)
    if layer.count_pads:
        return result
    inside = _padded(torch.ones_like(inputs[0][:1, :1]), layer, kernel)
    return result / functional.avg_pool2d(inside, kernel, stride=layer.stride)


def _upsample(mode: str) -> Callable[[Layer, list[Tensor]], Tensor]:
    def upsample(layer: Layer, inputs: list[Tensor]) -> Tensor:
        align = None if mode == "nearest" else False
        return functional.interpolate(inputs[0], scale_factor=float(layer.factor or 2), mode=mode, align_corners=align)

    return upsample


_OPERATIONS: dict[str, Callable[[Layer, list[Tensor]], Tensor]] = {
    "add": _sum,
    "mul": _product,
    "concat": lambda _, inputs: torch.cat(inputs, dim=1),
    "maxpool": _max_pool,
    "avgpool": _average_pool,
    "global_avgpool": lambda _, inputs: inputs[0].mean(dim=(2, 3), keepdim=True),
    "upsample2x_bilinear": _upsample("bilinear"),
    "upsample_bilinear": _upsample("bilinear"),
    "upsample_nearest": _upsample("nearest"),
    "act": lambda _, inputs: inputs[0],
}


def _key(name: str) -> str:
    """A name for a module: no dot, and none that a ModuleDict uses itself."""
    key = name.replace(".", "_")
    return f"{key}_" if hasattr(nn.ModuleDict, key) or key == "training" else key


def _convolution(layer: Layer) -> nn.Module:
    first, second, height, width = layer.shape or ()
    if layer.op == "deconv":
        return nn.ConvTranspose2d(
            first,
            second * layer.groups,
            (height, width),
            stride=layer.stride,
            groups=layer.groups,
            dilation=layer.dilation,
            output_padding=layer.output_pads or 0,
        )
    groups = first if layer.op == "dwconv" else layer.groups
    return nn.Conv2d(second * groups, first, (height, width), stride=layer.stride, groups=groups, dilation=layer.dilation)


def _padded(maps: Tensor, layer: Layer, kernel: Sequence[int], *, value: float = 0.0) -> Tensor:
    """`value` around `maps`: as `pads` say, else as TensorFlow's SAME does: the odd one right and below."""
    if layer.pads is not None:
        top, left, bottom, right = layer.pads
        pads = [left, right, top, bottom]
    else:
        pads = []
        for size, cells in ((maps.shape[3], kernel[1]), (maps.shape[2], kernel[0])):
            reach = (cells - 1) * layer.dilation + 1
            total = max((-(-size // layer.stride) - 1) * layer.stride + reach - size, 0)
            pads += [total // 2, total - total // 2]
    return functional.pad(maps, pads, value=value) if any(pads) else maps


def _cropped(maps: Tensor, layer: Layer) -> Tensor:
    top, left, bottom, right = layer.pads or (0, 0, 0, 0)
    return maps[:, :, top : maps.shape[2] - bottom, left : maps.shape[3] - right]


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    if maps.shape[2] >= grid[0]:
        return functional.adaptive_avg_pool2d(maps, grid)
    return functional.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


def load_folded(weights: Path, feature_layers: Sequence[str], *, packed: bool = False) -> FoldedFeatures:
    """A folded network from `<weights>_fp16.npz` or `<weights>_fp32.npz` and its topology, in float32.

    Raises:
        BadInput: a file or a layer is missing. Corrupt: a tensor is missing or has another shape.
    """
    topology = read_topology(weights)
    path = archive_path(weights)
    return features_of(topology, read_tensors(path), feature_layers, where=str(path), packed=packed)


def archive_path(weights: Path) -> Path:
    """The file with the weights of `weights`, which has no ending.

    Raises:
        BadInput: there is none.
    """
    found = [path for path in (weights.with_name(weights.name + ending) for ending in ARCHIVE_ENDINGS) if path.is_file()]
    if not found:
        first = weights.with_name(weights.name + ARCHIVE_ENDINGS[0])
        raise BadInput(f"model.weights: {first} is not there; give folder/stem below the data directory, without _fp16.npz")
    return found[0]


def read_tensors(archive: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive.

    Raises:
        Corrupt: it is no whole npz of plain arrays.
    """
    try:
        with archive.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise Corrupt(f"{archive} is damaged: {error}; make or fetch it again") from error


def features_of(
    topology: Topology, tensors: Mapping[str, Any], feature_layers: Sequence[str], *, where: str, packed: bool = False
) -> FoldedFeatures:
    """A folded network from its tensors `NAME.weight` and `NAME.bias`.

    Raises:
        BadInput: a layer is missing. Corrupt: a tensor is missing or has another shape.
    """
    features = FoldedFeatures(topology, feature_layers, packed=packed)
    own = {name: values for name, values in features.state_dict().items() if name == FUNCTION_SUM}
    features.load_state_dict({**own, **_state_of(features.topology, tensors, where)})
    return features


def build_folded(config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None) -> BuiltBackbone:
    """The folded backbone of a model config: from its files, or from the topology that a saved model holds.

    Raises:
        BadInput: a file or a layer is missing. Corrupt: a tensor is missing or has another shape.
    """
    packed = HEADS.get(config.head).reads_pyramid
    if document is not None:
        features = FoldedFeatures(parse_config(Topology, document, where="topology"), config.feature_layers, packed=packed)
    elif config.weights is None or places is None:
        raise BadInput("model.backbone folded needs model.weights and the data directory")
    else:
        features = load_folded(places.data_dir / config.weights, config.feature_layers, packed=packed)
    if {"gain", "norm"}.intersection(policy_of(config.freeze).kinds):
        features.add_gains()
    layers, pyramid, features.stride_px = features.channels(), features.pyramid, config.feature_stride_px
    return BuiltBackbone(
        parts={"early": features},
        channels=sum(layers.values()) if pyramid is None else pyramid.packed_channels,
        stride_px=features.stride_px if pyramid is None else pyramid.coarsest_px,
        pyramid=pyramid,
        head_layers=_layers_of_the_head(features) if packed and config.head_start == "heatmap" else frozenset(),
        ready=frozenset({"early"}),
        layers=layers,
        document=features.topology.document(),
    )


def _layers_of_the_head(features: FoldedFeatures) -> frozenset[str]:
    """The parameters of a MoveNet between the laterals and its heat maps: they train with the head that mixes these."""
    keys = tuple(f"early.convolutions.{part}" for part in HEAD_LAYERS)
    return frozenset(name for name, _ in features.named_parameters("early") if name.startswith(keys))


def _state_of(topology: Topology, archive: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of the convolutions; a layer whose bias the archive leaves out has bias 0."""
    state, channels = {}, topology.channels()
    for layer in topology.layers:
        if layer.shape is None:
            continue
        for kind, shape in (("weight", layer.shape), ("bias", (channels[layer.name],))):
            name = f"{layer.name}.{kind}"
            if name not in archive and kind == "weight":
                raise Corrupt(f"{where}: tensor {name} is missing; fetch the network again")
            values = np.asarray(archive[name] if name in archive else np.zeros(shape), dtype=np.float32)
            if values.shape != tuple(shape):
                raise Corrupt(f"{where}: tensor {name} has shape {values.shape}, the topology says {tuple(shape)}")
            state[f"convolutions.{_key(layer.name)}.{kind}"] = torch.from_numpy(values)
    return state
