"""The operations of ONNX that a folded network can say. Each function adds drafts for a node, or refuses a setting by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcore.weights.folding import AFFINE, Array
from dpcore.weights.onnx_graph import Map, Node, OnnxOperation, OnnxReader, Pads, attributes


def _window(reader: OnnxReader, node: Node, kernel: Sequence[int], around: Pads = (0, 0, 0, 0)) -> dict[str, Any]:
    """Stride, dilation and pads of a node. `around`: zeros that a node before it has put around the map."""
    given = attributes(node)
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    auto_pad = given.get("auto_pad", "NOTSET")
    if len(kernel) != 2 or len(set(strides)) != 1 or len(set(dilations)) != 1 or given.get("ceil_mode", 0):
        raise reader.refusal(
            node,
            f"expected two dimensions, one stride, one dilation and ceil_mode 0, given a kernel {list(kernel)}, strides {list(strides)}, "
            f"dilations {list(dilations)}, ceil_mode {given.get('ceil_mode', 0)}",
        )
    fields: dict[str, Any] = {"stride": strides[0]}
    if dilations[0] != 1:
        fields["dilation"] = dilations[0]
    if auto_pad == "SAME_UPPER" and not any(around):
        return fields
    if auto_pad not in ("NOTSET", "VALID"):
        raise reader.refusal(node, f"auto_pad {auto_pad} is not supported here")
    pads = given.get("pads", [0] * 4) if auto_pad == "NOTSET" else [0] * 4
    fields["pads"] = tuple(int(own + more) for own, more in zip(pads, around, strict=True))
    return fields


def _convolution(reader: OnnxReader, node: Node) -> None:
    source, weight, bias = reader.map(node, 0, pads=True), _weight(reader, node), reader.constant(node, 2)
    fields = _window(reader, node, weight.shape[2:], source.pads)
    groups = attributes(node).get("group", 1)
    if groups == source.channels == weight.shape[0] and groups > 1:
        reader.add(node, "dwconv", [source], weight=weight, bias=bias, fields=fields)
    else:
        own = {} if groups == 1 else {"groups": groups}
        reader.add(node, "conv", [source], weight=weight, bias=bias, fields={**fields, **own})


def _transposed(reader: OnnxReader, node: Node) -> None:
    source, weight, bias, given = reader.map(node, 0), _weight(reader, node), reader.constant(node, 2), attributes(node)
    if "output_shape" in given or given.get("auto_pad", "NOTSET") != "NOTSET":
        raise reader.refusal(node, "output_shape and auto_pad are not supported; export it with pads")
    fields = _window(reader, node, weight.shape[2:])
    if given.get("group", 1) != 1:
        fields["groups"] = given["group"]
    if any(given.get("output_padding", ())):
        fields["output_pads"] = tuple(given["output_padding"])
    reader.add(node, "deconv", [source], weight=weight, bias=bias, fields=fields)


def _weight(reader: OnnxReader, node: Node) -> Array:
    weight = reader.constant(node, 1)
    if weight is None or weight.ndim != 4:
        raise reader.refusal(node, "its weight must be a constant with four dimensions")
    return weight


def _batch_norm(reader: OnnxReader, node: Node) -> None:
    values = [reader.constant(node, place) for place in (1, 2, 3, 4)]
    given = attributes(node)
    if given.get("training_mode", 0) or any(one is None for one in values):
        raise reader.refusal(node, "training mode is not supported; export the model in evaluation mode")
    gain, shift, mean, variance = (np.asarray(one, dtype=np.float64) for one in values)
    scale = gain / np.sqrt(variance + given.get("epsilon", 1e-5))
    reader.add(node, AFFINE, [reader.map(node, 0)], scale=scale, shift=shift - mean * scale)


def _activation(reader: OnnxReader, node: Node) -> None:
    given, fields = attributes(node), {"act": _ACTIVATIONS[node.op_type]}
    if node.op_type == "LeakyRelu":
        fields["slope"] = float(given.get("alpha", 0.01))
    is_usual = node.op_type != "HardSigmoid" or (abs(given.get("alpha", 0.2) - 1 / 6) < 1e-6 and given.get("beta", 0.5) == 0.5)
    if not is_usual or given.get("approximate", "none") != "none" or (node.op_type == "Swish" and given.get("alpha", 1.0) != 1.0):
        raise reader.refusal(node, f"its settings {given} are not supported")
    reader.add(node, "act", [reader.map(node, 0)], fields=fields)


def _clip(reader: OnnxReader, node: Node) -> None:
    given = attributes(node)
    bounds = [given.get(name, reader.constant(node, place)) for place, name in ((1, "min"), (2, "max"))]
    low, high = (None if one is None else float(np.asarray(one).item()) for one in bounds)
    if low != 0.0 or high not in (None, 6.0):
        raise reader.refusal(node, f"bounds {low} and {high} are not supported; supported: 0 and 6, or 0 alone")
    reader.add(node, "act", [reader.map(node, 0)], fields={"act": "relu" if high is None else "relu6"})


def _per_channel(reader: OnnxReader, node: Node, values: Array, found: Map) -> Array:
    """A constant that is one number, or one for each channel."""
    shape = (1,) * (4 - values.ndim) + values.shape
    if values.ndim > 4 or values.size not in (1, found.channels) or (values.size > 1 and shape != (1, values.size, 1, 1)):
        raise reader.refusal(node, f"a constant of the shape {values.shape} on {found.channels} channels is not supported")
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _arithmetic(reader: OnnxReader, node: Node) -> None:
    """Sums and products of maps, or of a map and a constant."""
    is_sum, is_inverse = node.op_type in ("Add", "Sub"), node.op_type in ("Sub", "Div")
    constants = [reader.constants.get(name) for name in node.input]
    if all(one is None for one in constants):
        if is_inverse:
            raise reader.refusal(node, "differences and ratios of two maps are not supported")
        reader.add(node, "add" if is_sum else "mul", [reader.map(node, 0), reader.map(node, 1)])
        return
    place = 0 if constants[0] is None else 1
    found, other = reader.map(node, place), constants[1 - place]
    assert other is not None
    values = _per_channel(reader, node, other, found)
    if is_sum:
        sign = {"scale": np.array(-1.0)} if node.op_type == "Sub" and place == 1 else {}
        reader.add(node, AFFINE, [found], shift=-values if node.op_type == "Sub" and place == 0 else values, **sign)
    elif node.op_type == "Div" and place == 1:
        raise reader.refusal(node, "a constant over a map is not supported")
    else:
        reader.add(node, AFFINE, [found], scale=1.0 / values if node.op_type == "Div" else values)


def _sum_of_many(reader: OnnxReader, node: Node) -> None:
    maps = [reader.map(node, place) for place in range(len(node.input))]
    if len(maps) == 1:
        reader.passes(node, maps[0])
    else:
        reader.add(node, "add", maps)


def _concat(reader: OnnxReader, node: Node) -> None:
    if attributes(node).get("axis") not in (1, -3):
        raise reader.refusal(node, "it is supported over channels alone")
    reader.add(node, "concat", [reader.map(node, place) for place in range(len(node.input))])


def _pool(reader: OnnxReader, node: Node) -> None:
    given = attributes(node)
    kernel = tuple(given["kernel_shape"])
    fields = {**_window(reader, node, kernel), "kernel": kernel}
    if fields.pop("dilation", 1) != 1:
        raise reader.refusal(node, "dilations of a pool are not supported")
    if given.get("count_include_pad", 0):
        fields["count_pads"] = True
    reader.add(node, "maxpool" if node.op_type == "MaxPool" else "avgpool", [reader.map(node, 0)], fields=fields)


def _global_pool(reader: OnnxReader, node: Node) -> None:
    if node.op_type == "ReduceMean":
        given = attributes(node)
        axes = given.get("axes", reader.constant(node, 1))
        if axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3] or not given.get("keepdims", 1):
            raise reader.refusal(node, "it is supported over height and width with keepdims alone")
    reader.add(node, "global_avgpool", [reader.map(node, 0)])


_EXACT_MODES: Mapping[str, set[tuple[str, str | None]]] = {
    "nearest": {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")},
    "linear": {("half_pixel", None), ("pytorch_half_pixel", None)},
}
"""Resizings that equal an upsampling by a whole factor, (coordinates, rounding)."""


def _resize(reader: OnnxReader, node: Node) -> None:
    found, given = reader.map(node, 0), attributes(node)
    mode = given.get("mode", "nearest")
    is_old = node.op_type == "Upsample"
    coordinates = "asymmetric" if is_old else given.get("coordinate_transformation_mode", "half_pixel")
    rounding = None if mode != "nearest" else "floor" if is_old else given.get("nearest_mode", "round_prefer_floor")
    if (coordinates, rounding) not in _EXACT_MODES.get(mode, set()):
        raise reader.refusal(node, f"mode {mode} with {coordinates} and {rounding or 'no rounding'} is not supported")
    factors = _factors(reader, node, found, is_old=is_old)
    if len(set(factors)) != 1 or factors[0] != int(factors[0]) or factors[0] < 1:
        raise reader.refusal(node, f"factors {factors} are not supported; expected one whole factor for height and width")
    factor = int(factors[0])
    if factor == 1:
        reader.passes(node, found)
    elif mode == "nearest":
        reader.add(node, "upsample_nearest", [found], fields={"factor": factor})
    elif factor == 2:
        reader.add(node, "upsample2x_bilinear", [found])
    else:
        reader.add(node, "upsample_bilinear", [found], fields={"factor": factor})


def _factors(reader: OnnxReader, node: Node, found: Map, *, is_old: bool) -> list[float]:
    scales, sizes = reader.constant(node, 1 if is_old else 2), None if is_old else reader.constant(node, 3)
    if sizes is not None and sizes.size == 4 and sizes[1] == found.channels:
        return [float(after) / before for after, before in zip(sizes[2:], found.size, strict=True)]
    if scales is not None and scales.size == 4 and (scales[:2] == 1).all():
        return [float(one) for one in scales[2:]]
    raise reader.refusal(node, "expected scales or sizes of all four dimensions, which leave batch and channels alone")


def _pad(reader: OnnxReader, node: Node) -> None:
    """Zeros around a map, which the next convolution takes in."""
    found, given = reader.map(node, 0, pads=True), attributes(node)
    pads, value = given.get("pads", reader.constant(node, 1)), given.get("value", reader.constant(node, 2))
    axes = reader.constant(node, 3)
    values = [] if pads is None else [int(one) for one in pads]
    is_plain = given.get("mode", "constant") == "constant" and axes is None and not (value is not None and np.any(value))
    if not is_plain or len(values) != 8 or any(values[place] for place in (0, 1, 4, 5)) or min(values) < 0:
        raise reader.refusal(node, "it is supported with zeros around height and width alone")
    sides = tuple(more + own for more, own in zip((values[2], values[3], values[6], values[7]), found.pads, strict=True))
    reader.passes(node, Map(layer=found.layer, channels=found.channels, size=found.size, pads=(sides[0], sides[1], sides[2], sides[3])))


def _passes(reader: OnnxReader, node: Node) -> None:
    reader.passes(node, reader.map(node, 0, pads=True))


_ACTIVATIONS: Mapping[str, Any] = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Swish": "silu",
    "Tanh": "tanh",
    "Gelu": "gelu",
}
ONNX_OPERATIONS: Mapping[str, OnnxOperation] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "Clip": _clip,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "Sum": _sum_of_many,
    "Concat": _concat,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _global_pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Pad": _pad,
    **dict.fromkeys(("Identity", "Dropout", "Cast"), _passes),
}
