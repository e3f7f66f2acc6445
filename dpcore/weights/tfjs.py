"""Folds a TensorFlow.js graph model. An operation that the table does not name is refused with its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpcore.errors import BadInput
from dpcore.model.topology import INPUT
from dpcore.weights.folding import AFFINE, FoldedGraph, fold
from dpcore.weights.tfjs_file import GraphModel, attribute
from dpcore.weights.tfjs_graph import GraphReader, TfjsNode, TfjsOperation


def fold_graph(model: GraphModel, outputs: Sequence[str], *, name_of: Callable[[str], str]) -> FoldedGraph:
    """The part of a graph that leads from its picture to `outputs`, folded.

    Args:
        model: as `parse_graph_model` gives it.
        outputs: nodes whose maps are kept.
        name_of: a layer's name for a node's.

    Raises:
        BadInput: a node is missing, or has an operation or a setting that the folded format cannot say.
    """
    reader = GraphReader(model, _OPERATIONS, name_of)
    reader.read(outputs)
    return fold(reader.drafts, [reader.layer_of[output] for output in outputs])


def _placeholder(reader: GraphReader, node: TfjsNode) -> None:
    dimensions = node.get("attr", {}).get("shape", {}).get("shape", {}).get("dim", [])
    sizes = [int(one.get("size", -1)) for one in dimensions]
    if len(sizes) != 4 or sizes[3] != 3 or min(sizes[1:]) < 1:
        raise BadInput(f"node {node['name']}: expected a picture of the shape (1, height, width, 3), given {sizes}")
    reader.layer_of[node["name"]], reader.sizes[node["name"]] = INPUT, (sizes[1], sizes[2])


def _passes(reader: GraphReader, node: TfjsNode) -> None:
    source = reader.inputs(node)[0]
    reader.layer_of[node["name"]], reader.sizes[node["name"]] = reader.layer_of[source], reader.sizes[source]


def _passes_batch_axis(reader: GraphReader, node: TfjsNode) -> None:
    """Takes the batch axis of one picture away or puts it back; the picture stays what it is."""
    inputs = reader.inputs(node)
    if node["op"] == "ExpandDims":
        axes = [int(reader.weights(node, 1))]
    else:
        given = attribute(node, "squeeze_dims" if node["op"] == "Squeeze" else "axis", 0)
        axes = given if isinstance(given, list) else [given]
    if reader.layer_of[inputs[0]] != INPUT or axes != [0] or len(inputs) > 2 or attribute(node, "num", 1) != 1:
        raise BadInput(f"node {node['name']}: {node['op']} is supported on the batch axis of one picture alone, given axis {axes}")
    _passes(reader, node)


def _window_fields(node: TfjsNode, window: Sequence[int]) -> dict[str, Any]:
    """Stride, dilation and padding of a node, refused where the folded format cannot say them."""
    strides, dilations = attribute(node, "strides", [1] * 4), attribute(node, "dilations", [1] * 4)
    padding, layout = attribute(node, "padding", "SAME"), attribute(node, "data_format", "NHWC")
    fields: dict[str, Any] = {"stride": strides[1], "act": None}
    if strides[1] != strides[2] or dilations[1] != dilations[2] or padding not in ("SAME", "VALID") or layout != "NHWC":
        raise BadInput(
            f"node {node['name']}: expected equal strides and dilations in both directions, padding SAME or VALID, and NHWC; "
            f"given strides {strides}, dilations {dilations}, padding {padding}, {layout}"
        )
    if dilations[1] != 1:
        fields["dilation"] = dilations[1]
    if padding == "VALID" and max(window) > 1:
        fields["pads"] = (0, 0, 0, 0)
    return fields


def _convolution(reader: GraphReader, node: TfjsNode) -> None:
    weight = reader.weights(node, 1)
    if "epthwise" in node["op"]:
        height, width, channels, times = weight.shape
        # TensorFlow: output c * times + t reads input c, as a convolution in `channels` groups does.
        values = weight.transpose(2, 3, 0, 1).reshape(channels * times, 1, height, width)
        op, groups = ("dwconv", {}) if times == 1 else ("conv", {"groups": channels})
    else:
        values, op, groups = weight.transpose(3, 2, 0, 1), "conv", {}
    steps = attribute(node, "fused_ops", [])
    fields = {**_window_fields(node, values.shape[2:]), **groups}
    bias = reader.weights(node, 2) if "BiasAdd" in steps else None
    after = [step for step in steps if step != "BiasAdd"]
    if len(after) > 1 or (after and after[0] not in _ACTIVATIONS):
        supported = ", ".join(_ACTIVATIONS)
        raise BadInput(f"node {node['name']}: fused operations {steps} are not supported; supported: BiasAdd, then one of {supported}")
    if after:
        fields |= {"act": _ACTIVATIONS[after[0]]}
        fields |= {"slope": float(attribute(node, "leakyrelu_alpha", 0.2))} if after[0] == "LeakyRelu" else {}
    reader.add(node, op, reader.inputs(node)[:1], weight=np.ascontiguousarray(values), bias=bias, fields=fields)


def _bias(reader: GraphReader, node: TfjsNode) -> None:
    reader.add(node, AFFINE, reader.inputs(node)[:1], shift=reader.weights(node, 1))


def _batch_norm(reader: GraphReader, node: TfjsNode) -> None:
    gain, shift, mean, variance = (np.asarray(reader.weights(node, place), dtype=np.float64) for place in (1, 2, 3, 4))
    scale = gain / np.sqrt(variance + float(attribute(node, "epsilon", 1e-4)))
    reader.add(node, AFFINE, reader.inputs(node)[:1], scale=scale, shift=shift - mean * scale)


def _sum(reader: GraphReader, node: TfjsNode) -> None:
    constants = [reader.constant(node, place) for place in (0, 1)]
    inputs = reader.inputs(node)
    if all(one is None for one in constants):
        if node["op"] == "Sub":
            raise BadInput(f"node {node['name']}: a difference of two maps is not supported")
        reader.add(node, "add", inputs)
    elif constants[1] is not None:
        reader.add(node, AFFINE, inputs[:1], shift=-constants[1] if node["op"] == "Sub" else constants[1])
    else:
        sign = {"scale": np.array(-1.0)} if node["op"] == "Sub" else {}
        reader.add(node, AFFINE, inputs[1:], shift=constants[0], **sign)


def _times(reader: GraphReader, node: TfjsNode) -> None:
    constants = [reader.constant(node, place) for place in (0, 1)]
    inputs = reader.inputs(node)
    is_ratio = node["op"] in ("RealDiv", "Div")
    if all(one is None for one in constants) and not is_ratio:
        reader.add(node, "mul", inputs)
    elif constants[1] is not None:
        reader.add(node, AFFINE, inputs[:1], scale=1.0 / np.asarray(constants[1], dtype=np.float64) if is_ratio else constants[1])
    elif not is_ratio:
        reader.add(node, AFFINE, inputs[1:], scale=constants[0])
    else:
        raise BadInput(f"node {node['name']}: a division by a map is not supported")


def _activation(reader: GraphReader, node: TfjsNode) -> None:
    slope = {"slope": float(attribute(node, "alpha", 0.2))} if node["op"] == "LeakyRelu" else {}
    reader.add(node, "act", reader.inputs(node)[:1], fields={"act": _ACTIVATIONS[node["op"]], **slope})


def _resize(reader: GraphReader, node: TfjsNode) -> None:
    source = reader.inputs(node)[0]
    (height, width), before = (int(side) for side in reader.weights(node, 1)), reader.sizes[source]
    is_half_pixel = bool(attribute(node, "half_pixel_centers", False)) and not attribute(node, "align_corners", False)
    if height % before[0] or width * before[0] != height * before[1] or not is_half_pixel or height <= before[0]:
        raise BadInput(f"node {node['name']}: expected a whole factor and half_pixel_centers, given {before} to {(height, width)}")
    factor = height // before[0]
    if node["op"] == "ResizeNearestNeighbor":
        reader.add(node, "upsample_nearest", [source], fields={"factor": factor})
    elif factor == 2:
        reader.add(node, "upsample2x_bilinear", [source])
    else:
        reader.add(node, "upsample_bilinear", [source], fields={"factor": factor})


def _pool(reader: GraphReader, node: TfjsNode) -> None:
    kernel = tuple(attribute(node, "ksize")[1:3])
    fields = {**_window_fields(node, kernel), "kernel": kernel}
    reader.add(node, "maxpool" if node["op"] == "MaxPool" else "avgpool", reader.inputs(node)[:1], fields=fields)


def _mean(reader: GraphReader, node: TfjsNode) -> None:
    axes = sorted(int(axis) for axis in np.atleast_1d(reader.weights(node, 1)))
    if axes != [1, 2] or not attribute(node, "keep_dims", False):
        raise BadInput(f"node {node['name']}: Mean is supported over height and width with keep_dims alone, given axes {axes}")
    reader.add(node, "global_avgpool", reader.inputs(node)[:1])


def _concat(reader: GraphReader, node: TfjsNode) -> None:
    *inputs, _ = reader.inputs(node)
    if int(reader.weights(node, len(inputs))) not in (3, -1):
        raise BadInput(f"node {node['name']}: ConcatV2 is supported over channels alone")
    reader.add(node, "concat", inputs)


_ACTIVATIONS = {"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}
_OPERATIONS: dict[str, TfjsOperation] = {
    "Placeholder": _placeholder,
    **dict.fromkeys(("Identity", "Cast", "StopGradient"), _passes),
    **dict.fromkeys(("Unpack", "ExpandDims", "Squeeze"), _passes_batch_axis),
    **dict.fromkeys(("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), _convolution),
    "BiasAdd": _bias,
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _batch_norm),
    **dict.fromkeys(("Add", "AddV2", "Sub"), _sum),
    **dict.fromkeys(("Mul", "RealDiv", "Div"), _times),
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _resize),
    **dict.fromkeys(("MaxPool", "AvgPool"), _pool),
    "Mean": _mean,
    "ConcatV2": _concat,
}
