"""Graph models of TensorFlow.js: reading, folding, refusing."""

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dpcore.config import parse_config
from dpcore.errors import BadInput, Corrupt
from dpcore.model.folded import features_of
from dpcore.model.topology import PixelScale, Topology
from dpcore.weights.folding import version_of
from dpcore.weights.tfjs import fold_graph
from dpcore.weights.tfjs_file import parse_graph_model

RNG = np.random.default_rng(11)
FILTER = RNG.normal(size=(3, 3, 3, 5)).astype(np.float32)
GAIN, SHIFT, MEAN = (RNG.normal(size=5).astype(np.float32) for _ in range(3))
VARIANCE = RNG.uniform(0.2, 3, size=5).astype(np.float32)
DEPTH = RNG.normal(size=(3, 3, 5, 1)).astype(np.float32)
BIAS = RNG.normal(size=5).astype(np.float32)


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def window(stride: int, padding: str = "SAME") -> dict[str, Any]:
    ones, strides = {"list": {"i": ["1"] * 4}}, {"list": {"i": ["1", str(stride), str(stride), "1"]}}
    return {"strides": strides, "dilations": ones, "padding": text(padding), "data_format": text("NHWC")}


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


PICTURE = {"shape": {"shape": {"dim": [{"size": "1"}, {"size": "8"}, {"size": "12"}, {"size": "3"}]}}}
NODES = [
    node("picture", "Placeholder", **PICTURE),
    node("floats", "Cast", "picture"),
    node("half", "Mul", "floats", "per_pixel"),
    node("centred", "Sub", "half", "one"),
    node("first", "Conv2D", "centred", "filter", **window(2)),
    node("normal", "FusedBatchNormV3", "first", "gain", "shift", "mean", "variance", epsilon={"f": 0.001}),
    node("rectified", "Relu6", "normal"),
    node("depth", "DepthwiseConv2dNative", "rectified", "depth_filter", **window(2)),
    node("biased", "BiasAdd", "depth", "bias"),
    node("larger", "ResizeBilinear", "biased", "size", half_pixel_centers={"b": True}, align_corners={"b": False}),
    node("sum", "AddV2", "larger", "rectified"),
    node("both", "ConcatV2", "sum", "rectified", "axis"),
    node("leaky", "LeakyRelu", "both", alpha={"f": 0.13}),
    node("out", "Identity", "leaky"),
]
CONSTANTS: dict[str, Any] = {
    "per_pixel": np.float32(1 / 127.5),
    "one": np.float32(1),
    "filter": FILTER,
    "gain": GAIN,
    "shift": SHIFT,
    "mean": MEAN,
    "variance": VARIANCE,
    "depth_filter": DEPTH,
    "bias": BIAS,
    "size": np.array([4, 6], dtype=np.int32),
    "axis": np.int32(3),
}


def model_files(nodes: list[dict[str, Any]], constants: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
    arrays = {name: np.asarray(values) for name, values in constants.items()}
    specs = [{"name": name, "shape": list(values.shape), "dtype": str(values.dtype)} for name, values in arrays.items()]
    content = b"".join(values.tobytes() for values in arrays.values())
    document = {
        "modelTopology": {"node": nodes + [node(name, "Const") for name in constants]},
        "weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": specs}],
    }
    return json.dumps(document).encode(), {"a.bin": content[:101], "b.bin": content[101:]}


def folded(nodes: list[dict[str, Any]], *outputs: str) -> Any:
    document, shards = model_files(nodes, CONSTANTS)
    return fold_graph(parse_graph_model(document, shards, where="tiny"), outputs, name_of=lambda name: name)


def expected(picture: Tensor) -> Tensor:
    """The graph above, written out in torch."""
    maps = functional.pad(picture / 127.5 - 1, (0, 1, 0, 1))
    maps = functional.conv2d(maps, torch.from_numpy(FILTER.transpose(3, 2, 0, 1)), stride=2)
    norm = [torch.from_numpy(values) for values in (MEAN, VARIANCE, GAIN, SHIFT)]
    rectified = functional.batch_norm(maps, norm[0], norm[1], norm[2], norm[3], eps=0.001).clamp(0, 6)
    depth = torch.from_numpy(DEPTH.transpose(2, 3, 0, 1).copy())
    maps = functional.conv2d(functional.pad(rectified, (0, 1, 0, 1)), depth, torch.from_numpy(BIAS), stride=2, groups=5)
    larger = functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    return functional.leaky_relu(torch.cat([larger + rectified, rectified], dim=1), 0.13)


def test_a_folded_graph_computes_what_the_graph_says() -> None:
    graph = folded(NODES, "out")
    assert [(layer.name, layer.op, layer.act) for layer in graph.layers] == [
        ("first", "conv", "relu6"),
        ("depth", "dwconv", None),
        ("larger", "upsample2x_bilinear", None),
        ("sum", "add", None),
        ("both", "concat", "leaky_relu"),
    ]
    assert (graph.names["leaky"], version_of(graph.layers)) == ("both", 2)
    assert (graph.scale, graph.shift) == (pytest.approx(1 / 127.5), pytest.approx(-1))
    scale = graph.input_scale(PixelScale(mean=(0, 0, 0), std=(1, 1, 1))).model_dump()
    document = {"version": 2, "model": "tiny", "input": "", "input_scale": scale, "layers": [layer.document() for layer in graph.layers]}
    features = features_of(parse_config(Topology, document), graph.tensors, ["both"], where="tiny")
    picture = torch.from_numpy(np.random.default_rng(3).uniform(0, 255, (2, 3, 8, 12))).float()
    torch.testing.assert_close(features.maps(picture / 127.5 - 1)["both"], expected(picture), rtol=1e-5, atol=1e-5)


def test_a_map_that_two_nodes_read_is_not_folded_away() -> None:
    """The first convolution's own map is an output, so BatchNorm stands alone as a convolution of one cell."""
    graph = folded(NODES, "out", "first")
    assert [(layer.name, layer.op, layer.act) for layer in graph.layers][:2] == [("first", "conv", None), ("normal", "dwconv", "relu6")]
    assert np.array_equal(graph.tensors["first.weight"], FILTER.transpose(3, 2, 0, 1))


def test_nodes_may_stand_in_any_order() -> None:
    assert folded(NODES[::-1], "out").layers == folded(NODES, "out").layers


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (node("normal", "Softplus", "first"), "node normal: operation Softplus is not supported"),
        (node("first", "Conv2D", "centred", "filter", **{**window(2), "data_format": text("NCHW")}), "NCHW"),
        (node("first", "Conv2D", "centred", "floats", **window(2)), "input 1 of Conv2D must be a constant"),
        (node("larger", "ResizeBilinear", "biased", "size", align_corners={"b": True}), "half_pixel_centers"),
        (node("sum", "Sub", "larger", "rectified"), "difference of two maps"),
        (node("sum", "AddV2", "larger", "nowhere"), "no node nowhere"),
        (node("rectified", "ExpandDims", "normal", "axis"), "batch axis"),
        (node("picture", "Placeholder"), "expected a picture"),
        (node("first", "_FusedConv2D", "centred", "filter", "bias", **window(2), fused_ops={"list": {"s": [text("Gelu")["s"]]}}), "Gelu"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_node(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        folded([changed if one["name"] == changed["name"] else one for one in NODES], "out")


def test_a_circle_is_refused() -> None:
    changed = node("centred", "AddV2", "half", "sum")
    with pytest.raises(Corrupt, match="its own result"):
        folded([changed if one["name"] == "centred" else one for one in NODES], "out")


def test_damaged_files_are_refused() -> None:
    document, shards = model_files(NODES, CONSTANTS)
    with pytest.raises(Corrupt, match="the weights end at byte"):
        parse_graph_model(document, {**shards, "b.bin": shards["b.bin"][:-1]}, where="tiny")
    with pytest.raises(Corrupt, match="the manifest says"):
        parse_graph_model(document, {**shards, "b.bin": shards["b.bin"] + b"0"}, where="tiny")
    with pytest.raises(Corrupt, match="is not JSON"):
        parse_graph_model(document[:-1], shards, where="tiny")
    with pytest.raises(BadInput, match=r"b\.bin are not there"):
        parse_graph_model(document, {"a.bin": shards["a.bin"]}, where="tiny")
    with pytest.raises(BadInput, match="expected a tfjs graph model"):
        parse_graph_model(b'{"modelTopology": {"model_config": {}}}', shards, where="tiny")
    with pytest.raises(Corrupt, match="expected a plain file name"):
        parse_graph_model(document.replace(b'"a.bin"', b'"../a.bin"'), shards, where="tiny")


def test_quantised_weights_are_scaled_back() -> None:
    specs = [
        {"name": "bytes", "shape": [3], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.25, "min": -1.5}},
        {"name": "halves", "shape": [], "dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}},
    ]
    document = {"modelTopology": {"node": []}, "weightsManifest": [{"paths": ["a.bin"], "weights": specs}]}
    content = np.array([0, 2, 255], dtype=np.uint8).tobytes() + np.float16(0.37).tobytes()
    constants = parse_graph_model(json.dumps(document).encode(), {"a.bin": content}, where="tiny").constants
    assert constants["bytes"].tolist() == [-1.5, -1.0, 62.25]
    assert constants["halves"] == np.float16(0.37)
