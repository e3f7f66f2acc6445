"""Makes a folded network from an ONNX file of a plain convolutional network, and checks it against ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpcore.config import parse_config
from dpcore.errors import BadInput, Corrupt, Refused, Unavailable
from dpcore.model.topology import INPUT, PixelScale, Topology
from dpcore.weights.files import StoredWeights, write_folded
from dpcore.weights.folding import Array, FoldedGraph, FoldedNetwork, fold, stored_as
from dpcore.weights.onnx_graph import OnnxReader
from dpcore.weights.onnx_operations import ONNX_OPERATIONS

FREE_SIZE = (256, 192)
"""Rows and columns of the check's picture where the file leaves them open."""

MOST_OFF_FOLDED, MOST_OFF_STORED = 1e-4, 2e-2
"""What maps may differ by, as a fraction of their largest number: folding alone (float32 sums in another order), and with weights as
stored. Measured on ResNet-18, MobileNetV3, EfficientNet-B0, RegNetY, HRNet-W18 and DenseNet-121 of timm: 2.3e-6 and 2.9e-3."""

INPUT_SCALES: Mapping[str, PixelScale] = {
    "imagenet": PixelScale(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    "unit": PixelScale(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    "symmetric": PixelScale(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "bytes": PixelScale(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
"""How a picture is usually scaled: ImageNet's mean and deviation; 0..1; -1..1; not at all."""


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """What an ONNX file does not say.

    Attributes:
        name: of the files; None takes the file's.
        until: tensors to import up to; empty takes the graph's outputs.
        input_scale: how the network's input is scaled.
        licence: of the weights, kept in the topology.
        dtype: of the tensors on disk.
    """

    name: str | None = None
    until: tuple[str, ...] = ()
    input_scale: PixelScale = INPUT_SCALES["imagenet"]
    licence: str | None = None
    dtype: str = "float16"


@dataclass(frozen=True, kw_only=True)
class OnnxImport:
    """What an import wrote.

    Attributes:
        outputs: the layer of each imported tensor.
        size: rows and columns of the check's picture.
        off_folded, off_stored: largest difference of a map to ONNX Runtime's, as a fraction of the map's largest number.
    """

    stored: StoredWeights
    outputs: Mapping[str, str]
    size: tuple[int, int]
    off_folded: float
    off_stored: float

    def line(self) -> str:
        """For people."""
        return (
            f"checked: {len(self.outputs)} maps of a random picture of {self.size[0]}×{self.size[1]} px differ from ONNX Runtime's by at "
            f"most {self.off_folded:.1e} of their size, with weights as stored by {self.off_stored:.1e}"
        )


def parse_input_scale(text: str, *, bgr: bool = False) -> PixelScale:
    """The scale of that name, or of `R,G,B/R,G,B`: mean and deviation of pixels 0..255.

    Raises:
        BadInput: it is neither.
    """
    order = "BGR" if bgr else "RGB"
    if text in INPUT_SCALES:
        known = INPUT_SCALES[text]
        return known if not bgr else PixelScale(mean=known.mean[::-1], std=known.std[::-1], order="BGR")
    try:
        mean, std = ([float(one) for one in half.split(",")] for half in text.split("/"))
    except ValueError:
        names = ", ".join(INPUT_SCALES)
        raise BadInput(f"input scale {text!r}: expected one of {names}, or six numbers as R,G,B/R,G,B (mean and deviation)") from None
    step = -1 if bgr else 1
    return parse_config(PixelScale, {"mean": mean[::step], "std": std[::step], "order": order}, where="input scale")


def import_onnx(file: Path, out: Path, options: OnnxOptions = OnnxOptions()) -> OnnxImport:
    """Makes `NAME_fp16.npz` and `NAME_layers.json` in the folder `out`.

    *Guarantees*: nothing is written unless every imported map equals ONNX Runtime's on a random picture.

    Raises:
        BadInput: the file is no ONNX model, or holds what the folded format cannot say; the message names the node.
        Refused: the folded network computes something else, or other weights of this name are there.
        Unavailable: onnx or onnxruntime is not installed.
    """
    model, tensor, size = _prepared(file)
    outputs = options.until or tuple(one.name for one in model.graph.output)
    reader = OnnxReader(model, ONNX_OPERATIONS)
    reader.begin(tensor, size)
    reader.read(model.graph.node, outputs)
    layers = [reader.maps[name].layer for name in outputs]
    graph = fold(reader.drafts, layers)
    names = {name: graph.names[layer] for name, layer in zip(outputs, layers, strict=True)}
    if INPUT in names.values():
        raise BadInput(f"{file}: an output is the picture itself; give --until a tensor that a layer computes")
    network = _network(graph, names, file, options)
    given = _random_picture(network.topology, size)
    expected = _onnx_runtime(model, outputs, tensor, _scaled(given, options.input_scale))
    off_folded = _difference(network, stored_as(graph.tensors, "float32"), names, given, expected)
    off_stored = _difference(network, network.tensors, names, given, expected)
    if not (off_folded <= MOST_OFF_FOLDED and off_stored <= MOST_OFF_STORED):  # also refuses nan
        raise Refused(
            f"{file}: the folded network differs from ONNX Runtime by {off_folded:.1e} of a map's size (at most {MOST_OFF_FOLDED}), "
            f"with weights as {options.dtype} by {off_stored:.1e} (at most {MOST_OFF_STORED}); "
            "if only the second is too large, give --dtype float32, else please report the file"
        )
    name = options.name or re.sub(r"[^A-Za-z0-9_-]", "_", file.stem)
    stored = write_folded(network, out, name)
    return OnnxImport(stored=stored, outputs=names, size=size, off_folded=off_folded, off_stored=off_stored)


def _prepared(file: Path) -> tuple[Any, str, tuple[int, int]]:
    """The model with an input of a known size, the input's name, and that size."""
    try:
        import onnx
        import onnxruntime  # noqa: F401  # before the work, not after it
    except ImportError as error:
        raise Unavailable(f"weights import onnx needs {error.name}; install it with `pip install 'dpsweep[onnx]'`") from error
    if not file.is_file():
        raise BadInput(f"{file}: no such file; give the .onnx file of a network")
    try:
        onnx.checker.check_model(str(file))
    except onnx.checker.ValidationError as error:
        raise Corrupt(f"{file} is no valid ONNX model: {str(error).splitlines()[0]}; export it again") from error
    model = onnx.load(file)
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    dims = [one.dim_value for one in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(dims) != 4 or dims[1] not in (0, 3) or dims[0] not in (0, 1):
        raise BadInput(f"{file}: expected one input (1, 3, height, width), given {[(one.name, dims) for one in inputs]}")
    size = (dims[2] or FREE_SIZE[0], dims[3] or FREE_SIZE[1])
    for dim, value in zip(inputs[0].type.tensor_type.shape.dim, (1, 3, *size), strict=True):
        dim.dim_value = value
    return model, inputs[0].name, size


def _network(graph: FoldedGraph, names: Mapping[str, str], file: Path, options: OnnxOptions) -> FoldedNetwork:
    scale = graph.input_scale(options.input_scale)
    document = {
        "version": 2,
        "model": options.name or file.stem,
        "source": f"ONNX file {file.name}",
        "licence": options.licence,
        "input": f"{scale.order} 0..255 -> (x - {list(scale.mean)}) / {list(scale.std)}",
        "input_scale": scale.model_dump(mode="json"),
        "outputs": dict(names),
        "layers": [layer.document() for layer in graph.layers],
    }
    return FoldedNetwork(topology=parse_config(Topology, document), document=document, tensors=stored_as(graph.tensors, options.dtype))


def _random_picture(topology: Topology, size: tuple[int, int]) -> Array:
    """Pixels 0..255, (1, 3, H, W) RGB."""
    return np.random.default_rng(len(topology.layers)).integers(0, 256, (1, 3, *size)).astype(np.float32)


def _scaled(pixels: Array, scale: PixelScale) -> Array:
    ordered = pixels if scale.order == "RGB" else pixels[:, ::-1]
    mean, std = (np.array(values, dtype=np.float32).reshape(3, 1, 1) for values in (scale.mean, scale.std))
    return np.asarray((ordered - mean) / std, dtype=np.float32)


def _onnx_runtime(model: Any, outputs: Sequence[str], tensor: str, given: Array) -> dict[str, Array]:
    """The tensors `outputs` of the original model."""
    import onnxruntime
    from onnx import helper

    whole = type(model)()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(whole.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), {tensor: given}), strict=True))


def _difference(
    network: FoldedNetwork, tensors: Mapping[str, Array], names: Mapping[str, str], pixels: Array, expected: Mapping[str, Array]
) -> float:
    """The largest difference of a map, as a fraction of its largest number; infinite where shapes differ."""
    import torch

    from dpcore.model.folded import features_of

    features = features_of(network.topology, tensors, tuple(dict.fromkeys(names.values())), where=network.topology.model)
    with torch.no_grad():
        maps = features.maps(torch.from_numpy(pixels) / 127.5 - 1)
    worst = 0.0
    for tensor, layer in names.items():
        found = maps[layer].numpy()
        if found.shape != expected[tensor].shape:
            return float("inf")
        size = float(np.abs(expected[tensor]).max()) or 1.0
        worst = max(worst, float(np.abs(found - expected[tensor]).max()) / size)
    return worst
