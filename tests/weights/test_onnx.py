"""ONNX files of plain convolutional networks: folded, checked against ONNX Runtime, refused by node."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from weights.onnx_models import node, save_model

from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.model.folded import read_tensors
from dpcore.weights import onnx_import
from dpcore.weights.onnx_import import INPUT_SCALES, OnnxOptions, import_onnx
from sweeps.cli import main

RNG = np.random.default_rng(23)


def random(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


CONSTANTS = {
    "stem.weight": random(6, 3, 3, 3) / 5,
    "gain": random(6),
    "shift": random(6),
    "mean": random(6),
    "variance": RNG.uniform(0.3, 2, 6).astype(np.float32),
    "deep.weight": random(6, 1, 3, 5) / 4,
    "deep.bias": random(6),
    "grouped.weight": random(8, 3, 3, 3) / 5,
    "squeeze.weight": random(2, 8, 1, 1) / 3,
    "excite.weight": random(8, 2, 1, 1),
    "larger.weight": random(8, 3, 4, 4) / 5,
    "larger.bias": random(6),
    "factor": np.array([0.5], dtype=np.float32),
    "each": random(6, 1, 1),
    "zero": np.float32(0),
    "six": np.float32(6),
    "scales": np.array([1, 1, 2, 2], dtype=np.float32),
    "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    "one_more": np.array([1, 8, 8, 12]),
}
NODES = [
    node("Conv", "picture stem.weight", "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
    node("BatchNormalization", "stem gain shift mean variance", "normal", epsilon=1e-3),
    node("Clip", "normal zero six", "rectified"),
    node("Pad", "rectified pads", "padded"),
    node("Conv", "padded deep.weight deep.bias", "deep", group=6, dilations=[1, 1], pads=[0, 1, 1, 0]),
    node("LeakyRelu", "deep", "leaky", alpha=0.2),
    node("Sigmoid", "leaky", "gate"),
    node("Mul", "leaky gate", "swish"),
    node("Concat", "swish rectified", "both", axis=1),
    node("MaxPool", "rectified", "peak", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    node("AveragePool", "peak", "average", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    node("AveragePool", "peak", "counted", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    node("Sum", "average counted peak", "sum"),
    node("Conv", "sum grouped.weight", "grouped", group=2, dilations=[2, 2], pads=[2, 2, 2, 2]),
    node("HardSwish", "grouped", "hard"),
    node("GlobalAveragePool", "hard", "mean_of_all"),
    node("Conv", "mean_of_all squeeze.weight", "squeeze"),
    node("Relu", "squeeze", "small"),
    node("Conv", "small excite.weight", "excite"),
    node("HardSigmoid", "excite", "weights", alpha=1 / 6, beta=0.5),
    node("Mul", "hard weights", "weighted"),
    node("Resize", "weighted - scales", "twice", mode="linear", coordinate_transformation_mode="half_pixel"),
    node("Resize", "weighted - - one_more", "nearest", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    node("Add", "twice nearest", "fine"),
    node("ConvTranspose", "weighted larger.weight larger.bias", "larger", group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    node("Mul", "larger factor", "halved"),
    node("Sub", "halved each", "moved"),
    node("Tanh", "moved", "out"),
]
ENDS = ["out", "fine", "both"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_model(tmp_path / "tiny net.onnx", NODES, CONSTANTS, ENDS)


def test_a_network_with_every_operation_computes_what_onnx_runtime_does(file: Path, tmp_path: Path) -> None:
    done = import_onnx(file, tmp_path / "models", OnnxOptions(licence="MIT"))
    assert done.off_folded < 5e-6
    assert 1e-5 < done.off_stored < 5e-3
    assert done.outputs == {"out": "larger", "fine": "fine", "both": "both"}
    layers = {layer.name: layer for layer in done.stored.topology.layers}
    assert (layers["stem"].act, layers["deep"].op, layers["grouped"].groups) == ("relu6", "dwconv", 2)
    assert layers["deep"].pads == (1, 3, 1, 1)
    assert layers["deep"].act == "leaky_relu"
    assert not {"normal", "gate"} & set(layers)
    assert (layers["swish"].op, layers["swish"].act) == ("act", "silu")  # the layer before has an activation already
    assert (done.stored.topology.licence, done.stored.path.name) == ("MIT", "tiny_net")
    assert json.loads((tmp_path / "models" / "tiny_net_layers.json").read_text())["outputs"] == dict(done.outputs)


def test_a_gate_that_something_else_reads_stays(tmp_path: Path) -> None:
    first = [node("Conv", "picture stem.weight", "stem"), node("Sigmoid", "stem", "gate"), node("Mul", "gate stem", "swish")]
    alone = save_model(tmp_path / "alone.onnx", first, CONSTANTS, ["swish"])
    assert [(layer.op, layer.act) for layer in import_onnx(alone, tmp_path).stored.topology.layers] == [("conv", "silu")]
    for name, last in (("gate", "Add"), ("stem", "Mul")):
        file = save_model(tmp_path / f"{name}.onnx", [*first, node(last, f"swish {name}", "out")], CONSTANTS, ["out"])
        layers = [(layer.op, layer.act) for layer in import_onnx(file, tmp_path).stored.topology.layers]
        assert layers == [("conv", None), ("act", "sigmoid"), ("mul", None), (last.lower(), None)]


def test_float32_keeps_what_float16_rounds(file: Path, tmp_path: Path) -> None:
    done = import_onnx(file, tmp_path, OnnxOptions(name="whole", dtype="float32"))
    assert done.off_stored == done.off_folded
    assert read_tensors(tmp_path / "whole_fp32.npz")["deep.weight"].dtype == np.float32


def test_free_sizes_are_imported_and_sizes_that_a_graph_computes_are_understood(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "picture stem.weight", "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Shape", "picture", "shape"),
        node("Slice", "shape from to", "sides"),
        node("Concat", "head sides", "whole", axis=0),
        node("Resize", "stem - - whole", "out", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    ]
    constants = {
        "stem.weight": CONSTANTS["stem.weight"],
        "from": np.array([2]),
        "to": np.array([4]),
        "head": np.array([1, 6]),
    }
    done = import_onnx(save_model(tmp_path / "free.onnx", nodes, constants, ["out"], size=("h", "w")), tmp_path)
    assert done.size == (256, 192)
    assert [layer.op for layer in done.stored.topology.layers] == ["conv", "upsample2x_bilinear"]


def test_the_input_scale_joins_what_the_graph_does_to_its_picture(tmp_path: Path) -> None:
    nodes = [
        node("Div", "picture deviation", "centred"),
        node("Conv", "centred stem.weight", "stem", auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    constants = {"stem.weight": CONSTANTS["stem.weight"], "deviation": np.array([0.5, 0.25, 2], dtype=np.float32).reshape(1, 3, 1, 1)}
    file = save_model(tmp_path / "scaled.onnx", nodes, constants, ["stem"])
    bgr = INPUT_SCALES["imagenet"].model_copy(update={"order": "BGR"})
    scale = import_onnx(file, tmp_path, OnnxOptions(input_scale=bgr)).stored.topology.input_scale
    assert scale.mean == pytest.approx((123.675, 116.28, 103.53))
    assert scale.std == pytest.approx((58.395 / 2, 57.12 / 4, 57.375 * 2))
    assert scale.order == "BGR"


CASES: list[tuple[list[Any], str]] = [
    (
        [node("Conv", "picture stem.weight", "a"), node("Softmax", "a", "out")],
        r"node /out/Softmax \(Softmax\): operation Softmax is not",
    ),
    ([node("Conv", "picture stem.weight", "a"), node("Flatten", "a", "out")], "give --until TENSOR"),
    ([node("Conv", "picture stem.weight", "out", strides=[2, 1])], r"given a kernel \[3, 3\], strides \[2, 1\]"),
    ([node("Conv", "picture stem.weight", "out", auto_pad="SAME_LOWER")], "auto_pad SAME_LOWER"),
    ([node("Clip", "picture factor six", "out")], "bounds 0.5 and 6.0"),
    ([node("MaxPool", "picture", "out", kernel_shape=[2, 2], ceil_mode=1)], "ceil_mode 1"),
    ([node("HardSigmoid", "picture", "out")], "its settings {} are not supported"),
    ([node("Resize", "picture - scales", "out", coordinate_transformation_mode="align_corners", mode="linear")], "align_corners"),
    ([node("Resize", "picture - thirds", "out", mode="linear")], r"factors \[1\.5, 1\.5\]"),
    ([node("Pad", "picture pads", "a"), node("Relu", "a", "out")], "it reads a padded map"),
    ([node("Sub", "picture picture", "out")], "differences and ratios of two maps"),
    ([node("Mul", "picture row", "out")], r"a constant of the shape \(24,\)"),
    ([node("Concat", "picture picture", "out", axis=2)], "over channels alone"),
]


@pytest.mark.parametrize(("nodes", "words"), CASES, ids=[case[1][:24] for case in CASES])
def test_what_cannot_be_said_is_refused_by_its_node(nodes: list[Any], words: str, tmp_path: Path) -> None:
    constants = {**CONSTANTS, "row": random(24), "thirds": np.array([1, 1, 1.5, 1.5], dtype=np.float32)}
    file = save_model(tmp_path / "tiny.onnx", nodes, constants, ["out"])
    with pytest.raises(BadInput, match=words):
        import_onnx(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_what_leads_to_a_tensor_is_imported(tmp_path: Path) -> None:
    nodes = [node("Conv", "picture stem.weight", "a"), node("Relu", "a", "b"), node("Flatten", "b", "out")]
    file = save_model(tmp_path / "tiny.onnx", nodes, CONSTANTS, ["out"])
    done = import_onnx(file, tmp_path, OnnxOptions(until=("b",)))
    assert [(layer.name, layer.act) for layer in done.stored.topology.layers] == [("stem", "relu")]
    with pytest.raises(BadInput, match="c: no such map"):
        import_onnx(file, tmp_path, OnnxOptions(until=("c",)))


def test_a_network_that_computes_something_else_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(onnx_import.ONNX_OPERATIONS, "LeakyRelu", onnx_import.ONNX_OPERATIONS["Identity"])  # type: ignore[index]
    with pytest.raises(Refused, match="differs from ONNX Runtime"):
        import_onnx(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_and_other_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"no model" * 9)
    with pytest.raises(Corrupt, match="no valid ONNX model"):
        import_onnx(tmp_path / "text.onnx", tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        import_onnx(tmp_path / "nothing.onnx", tmp_path)
    file = save_model(tmp_path / "tiny.onnx", [node("Relu", "picture", "out")], {}, ["out"])
    import onnx

    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, file)
    with pytest.raises(BadInput, match=r"expected one input \(1, 3, height, width\)"):
        import_onnx(file, tmp_path)


def test_an_operation_of_another_domain_is_not_taken_for_onnxs(tmp_path: Path) -> None:
    import onnx

    file = save_model(tmp_path / "tiny.onnx", [node("Relu", "picture", "out")], {}, ["out"])
    model = onnx.load(file)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, file)
    with pytest.raises(BadInput, match=r"com\.example\.Relu is not supported"):
        import_onnx(file, tmp_path)


def test_the_command_says_what_it_checked(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "models")
    assert main(["weights", "import", "onnx", str(file), "--out", out, "--name", "mine", "--input", "symmetric"]) == 0
    said = capsys.readouterr().out
    assert "differ from ONNX Runtime's by at most" in said
    assert "out → larger" in said
    assert main(["weights", "import", "onnx", str(file), "--out", out, "--name", "mine", "--input", "1,2,3/4,5,6", "--json"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert main(["weights", "list", "mine", "--json", "--data-dir", str(tmp_path)]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["model"] == "mine"
