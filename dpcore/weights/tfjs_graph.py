"""Walks through a TensorFlow.js graph and collects the drafts of a folded network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpcore.errors import BadInput, Corrupt
from dpcore.weights.folding import Array, Draft, size_after
from dpcore.weights.tfjs_file import GraphModel

TfjsNode = Mapping[str, Any]
TfjsOperation = Callable[["GraphReader", TfjsNode], None]


class GraphReader:
    """Walks from the outputs to the picture. A node is read after its inputs, otherwise in the file's order."""

    def __init__(self, model: GraphModel, operations: Mapping[str, TfjsOperation], name_of: Callable[[str], str]) -> None:
        self.model = model
        self.operations = operations
        self.name_of = name_of
        self.order = {name: place for place, name in enumerate(model.nodes)}
        self.drafts: list[Draft] = []
        self.layer_of: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}

    def read(self, outputs: Sequence[str]) -> None:
        """Adds drafts for all that `outputs` need."""
        needed, open_names = set(outputs), list(outputs)
        while open_names:
            for name in self.inputs(self.node(open_names.pop())):
                if name not in needed and name not in self.model.constants:
                    needed.add(name)
                    open_names.append(name)
        for name in self._sorted(needed):
            if name not in self.layer_of:
                node = self.node(name)
                operation = self.operations.get(node["op"])
                if operation is None:
                    names = ", ".join(sorted(self.operations))
                    raise BadInput(f"node {name}: operation {node['op']} is not supported; supported: {names}")
                operation(self, node)

    def _sorted(self, names: set[str]) -> list[str]:
        done: dict[str, None] = {}
        open_names = sorted(names, key=self.order.__getitem__, reverse=True)
        begun: set[str] = set()
        while open_names:
            name = open_names[-1]
            before = [other for other in self.inputs(self.node(name)) if other in names and other not in done]
            if name in begun and before:
                raise Corrupt(f"node {name}: it needs its own result; fetch the package again")
            begun.add(name)
            if before:
                open_names.extend(before)
                continue
            begun.discard(name)
            done[open_names.pop()] = None
        return list(done)

    def node(self, name: str) -> TfjsNode:
        if name not in self.model.nodes:
            raise BadInput(f"the graph has no node {name}")
        return self.model.nodes[name]

    def inputs(self, node: TfjsNode) -> list[str]:
        """Names of the nodes that a node reads; without control inputs, and of several outputs the first."""
        return [name.removesuffix(":0") for name in node.get("input", ()) if not name.startswith("^")]

    def constant(self, node: TfjsNode, place: int) -> Array | None:
        inputs = self.inputs(node)
        return self.model.constants.get(inputs[place]) if place < len(inputs) else None

    def weights(self, node: TfjsNode, place: int) -> Array:
        values = self.constant(node, place)
        if values is None:
            raise BadInput(f"node {node['name']}: input {place} of {node['op']} must be a constant")
        return values

    def add(self, node: TfjsNode, op: str, inputs: Sequence[str], **values: Any) -> None:
        """Adds a draft for a node, which reads the maps of the nodes `inputs`."""
        name = self.name_of(node["name"])
        self.drafts.append(Draft(name=name, op=op, inputs=tuple(self.layer_of[one] for one in inputs), **values))
        self.layer_of[node["name"]], self.sizes[node["name"]] = name, size_after(self.drafts[-1], self.sizes[inputs[0]])
