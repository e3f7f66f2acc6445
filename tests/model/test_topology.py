"""Topologies as documents: what each version may say, and what is refused."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpcore.config import parse_config
from dpcore.errors import BadInput
from dpcore.model.topology import OPS, Topology, read_topology

SCALE = {"mean": [123.5, 117, 104], "std": [58.5, 57, 57.5]}


def conv(name: str, *inputs: str, shape: tuple[int, ...] = (4, 3, 3, 3), **more: Any) -> dict[str, Any]:
    return {"name": name, "op": "conv", "inputs": list(inputs), "shape": list(shape), **more}


def plain(name: str, op: str, *inputs: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": list(inputs), **more}


def topology(*layers: dict[str, Any], version: int = 2) -> Topology:
    head = {"version": 2, "input_scale": SCALE} if version == 2 else {}
    return parse_config(Topology, {**head, "model": "tiny", "input": "x/127.5-1", "layers": list(layers)})


def test_channels_and_strides_follow_the_layers() -> None:
    known = topology(
        conv("stem", "input", stride=2),
        plain("pool", "maxpool", "stem", kernel=[3, 3], stride=2, pads=[1, 1, 1, 1]),
        plain("up", "upsample_nearest", "pool", factor=4),
        plain("both", "concat", "up", "input"),
        plain("gate", "global_avgpool", "both", act="sigmoid"),
        plain("gated", "mul", "both", "gate"),
        {"name": "larger", "op": "deconv", "inputs": ["gated"], "shape": [7, 5, 4, 4], "stride": 2, "pads": [1, 1, 1, 1]},
    )
    assert known.channels() == {"input": 3, "stem": 4, "pool": 4, "up": 4, "both": 7, "gate": 7, "gated": 7, "larger": 5}
    assert known.strides() == {"input": 1, "stem": 2, "pool": 4, "up": 1, "both": 1, "gate": None, "gated": 1, "larger": Fraction(1, 2)}
    assert known.parameters() == 4 * 3 * 9 + 4 + 7 * 5 * 16 + 5


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([plain("x", "softmax", "input")], "unknown op softmax; expected one of conv, dwconv"),
        ([plain("x", "add", "input")], "add takes 2 to 64 inputs, given 1"),
        ([conv("x", "input", kernel=[3, 3])], "does not take \\['kernel'\\]"),
        ([plain("x", "maxpool", "input")], "needs \\['kernel'\\]"),
        ([plain("x", "conv", "input")], "has a shape of four sizes, given None"),
        ([conv("x", "input", shape=(4, 5, 3, 3))], "its input has 3 channels, its shape .* needs 5"),
        ([conv("x", "y"), conv("y", "input")], "it reads y, which no earlier layer is"),
        ([conv("a.b", "input"), conv("a_b", "input")], "the name is taken"),
        ([conv("a", "input"), conv("a", "input")], "one name"),
        ([conv("a", "input"), plain("x", "add", "a", "b"), plain("b", "act", "input", act="relu")], "reads b"),
        ([conv("a", "input", shape=(5, 3, 1, 1)), plain("x", "add", "a", "input")], r"\[5, 3\] channels"),
        ([plain("x", "act", "input")], "op act needs an act"),
        ([plain("x", "act", "input", act="leaky_relu")], "slope belongs to act leaky_relu"),
        ([conv("../x", "input")], "match pattern"),
        ([conv("x", "input", strid=2)], r"layers\.0\.strid: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_layer(layers: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        topology(*layers)


@pytest.mark.parametrize(
    "layer", [conv("x", "input", pads=[0, 0, 0, 0]), conv("x", "input", act="silu"), plain("x", "global_avgpool", "input")]
)
def test_version_1_cannot_say_what_version_2_brought(layer: dict[str, Any]) -> None:
    topology(layer)
    with pytest.raises(BadInput, match="needs version 2"):
        topology(layer, version=1)


def test_the_input_scale_belongs_to_version_2() -> None:
    for document in ({"version": 2}, {"input_scale": SCALE}):
        with pytest.raises(BadInput, match="input_scale belongs to version 2"):
            parse_config(Topology, {**document, "model": "tiny", "input": "x/127.5-1", "layers": []})


def test_a_document_comes_back_from_its_topology() -> None:
    layers = [conv("stem", "input", stride=2, act=None), plain("x", "act", "stem", stride=1, act="leaky_relu", slope=0.13)]
    known = topology(*layers)
    assert known.document()["layers"] == layers
    assert parse_config(Topology, json.loads(json.dumps(known.document()))) == known


@pytest.mark.parametrize("name", ["movenet_lightning", "movenet_thunder", "efficientnet_lite0_imagenet"])
def test_the_shared_files_come_back_as_they_are(shared_data: Path, name: str) -> None:
    known = read_topology(shared_data / "models" / name)
    text = (shared_data / "models" / f"{name.removesuffix('_imagenet')}_layers.json").read_text(encoding="utf-8")
    assert known.document()["layers"] == json.loads(text)["layers"]
    assert "version" not in known.document()


def test_the_page_of_the_format_names_every_op_and_every_key_of_a_layer() -> None:
    page = (Path(__file__).parents[2] / "docs" / "folded-format.md").read_text(encoding="utf-8")
    schema = Topology.model_json_schema()
    keys = {*schema["$defs"]["Layer"]["properties"], *schema["$defs"]["PixelScale"]["properties"], *schema["properties"], *OPS}
    assert [key for key in sorted(keys) if f"`{key}`" not in page and f"{key}:" not in page] == []
