"""Walks through an ONNX graph and collects the drafts of a folded network.

A tensor is a constant, a map, or a map with zeros around it that the next convolution takes in. Nodes that read constants alone, such as
those that compute the size of an upsampling, are evaluated by ONNX's own reference implementation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcore.errors import BadInput
from dpcore.model.topology import INPUT
from dpcore.weights.folding import Array, Draft, size_after

Node = Any
"""An onnx.NodeProto."""

OnnxOperation = Callable[["OnnxReader", Node], None]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Map:
    """What a tensor is in the folded network: the map of a layer, its channels and size, and zeros around it."""

    layer: str
    channels: int
    size: tuple[int, int]
    pads: Pads = (0, 0, 0, 0)


class OnnxReader:
    """Reads the nodes of a model whose input has a known size. ONNX keeps nodes in the order of their computation."""

    def __init__(self, model: Any, operations: Mapping[str, OnnxOperation]) -> None:
        from onnx import numpy_helper

        self.opset = {one.domain: one.version for one in model.opset_import}
        self.operations = operations
        self.constants: dict[str, Array] = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self.maps: dict[str, Map] = {}
        self.drafts: list[Draft] = []
        self.names: set[str] = set()

    def begin(self, tensor: str, size: tuple[int, int]) -> None:
        """Names the tensor that is the picture."""
        self.maps[tensor] = Map(layer=INPUT, channels=3, size=size)

    def read(self, nodes: Sequence[Node], outputs: Sequence[str]) -> None:
        """Adds drafts for all that `outputs` need.

        Raises:
            BadInput: an output does not exist, or a node has an operation or a setting that the folded format cannot say.
        """
        for node in _needed(nodes, outputs):
            if node.op_type == "Constant" or all(name in self.constants for name in node.input if name):
                self._evaluate(node)
            elif node.op_type == "Shape":
                found = self.map(node, 0)
                self.constants[node.output[0]] = np.array([1, found.channels, *found.size])[attributes(node).get("start", 0) :]
            elif node.op_type not in self.operations or node.domain not in ("", "ai.onnx"):
                raise self.refusal(node, f"operation {node.domain and node.domain + '.'}{node.op_type} is not supported")
            else:
                self.operations[node.op_type](self, node)
        missing = [name for name in outputs if name not in self.maps]
        if missing:
            raise BadInput(f"{', '.join(missing)}: no such map in the graph; give --until the name of a tensor that a node computes")

    def refusal(self, node: Node, problem: str) -> BadInput:
        """What is wrong with a node, and what to do."""
        return BadInput(
            f"node {node.name or node.output[0]} ({node.op_type}): {problem}; give --until TENSOR to import only what leads to a tensor "
            f"before it. Supported operations: {', '.join(sorted(self.operations))}"
        )

    def map(self, node: Node, place: int, *, pads: bool = False) -> Map:
        """The map that a node reads.

        Args:
            pads: whether the node takes in zeros around it.

        Raises:
            BadInput: it is a constant, or has zeros around it that the node cannot take in.
        """
        found = self.maps.get(node.input[place])
        if found is None:
            raise self.refusal(node, f"input {place} must be a map, not a constant")
        if any(found.pads) and not pads:
            raise self.refusal(node, "it reads a padded map, which is supported before a convolution alone")
        return found

    def constant(self, node: Node, place: int) -> Array | None:
        """The constant that a node reads, None where it reads none there."""
        name = node.input[place] if place < len(node.input) else ""
        if name and name not in self.constants:
            raise self.refusal(node, f"input {place} must be a constant")
        return self.constants.get(name)

    def add(self, node: Node, op: str, inputs: Sequence[Map], **values: Any) -> None:
        """Adds a draft for a node, which reads `inputs`."""
        draft = Draft(name=self._name(node), op=op, inputs=tuple(one.layer for one in inputs), **values)
        widest = max(inputs, key=lambda one: one.size)
        size = size_after(draft, widest.size)
        if min(size) < 1:
            raise self.refusal(node, f"its map would have the size {size}; the picture of the check is too small")
        self.drafts.append(draft)
        self.maps[node.output[0]] = Map(layer=draft.name, channels=_channels(draft, inputs), size=size)

    def passes(self, node: Node, found: Map) -> None:
        """The node's result is `found`."""
        self.maps[node.output[0]] = found

    def _name(self, node: Node) -> str:
        weight = node.input[1] if len(node.input) > 1 else ""
        name = weight.removesuffix(".weight") if weight.endswith(".weight") else node.name or node.output[0]
        name = _readable(name, node.op_type)
        times, free = 2, name
        while free.replace(".", "_") in self.names or free == INPUT:
            free, times = f"{name}-{times}", times + 1
        self.names.add(free.replace(".", "_"))
        return free

    def _evaluate(self, node: Node) -> None:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        inputs = [helper.make_empty_tensor_value_info(name) for name in node.input if name]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "constant", inputs, outputs)
        opsets = [helper.make_operatorsetid(domain, version) for domain, version in self.opset.items()]
        model = helper.make_model(graph, opset_imports=opsets)
        results = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in node.input if name})
        self.constants |= {one.name: np.asarray(value) for one, value in zip(outputs, results, strict=True)}


def attributes(node: Node) -> dict[str, Any]:
    """A node's attributes as plain values; texts as str."""
    from onnx import helper

    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    wanted, needed = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            needed.append(node)
            wanted.update(node.input)
    return needed[::-1]


def _readable(name: str, op: str) -> str:
    """`/layer1/layer1.0/conv1/Conv_2` as `layer1.0.conv1`; what a layer's name may not hold becomes _."""
    parts = [part for part in name.split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{op}(_\d+)?", parts[-1]):
        parts = parts[:-1]
    kept = [part for place, part in enumerate(parts) if not (place + 1 < len(parts) and parts[place + 1].startswith(f"{part}."))]
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", ".".join(kept)).lstrip(".-")
    return clean or op.lower()


def _channels(draft: Draft, inputs: Sequence[Map]) -> int:
    if draft.op == "concat":
        return sum(one.channels for one in inputs)
    if draft.weight is None:
        return max(one.channels for one in inputs)
    return int(draft.weight.shape[1] * draft.fields.get("groups", 1) if draft.op == "deconv" else draft.weight.shape[0])
