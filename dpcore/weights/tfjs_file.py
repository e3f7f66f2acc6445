"""Reads the files of a TensorFlow.js graph model: model.json and its weight shards.

The format: a list of nodes {name, op, input, attr} as in a TensorFlow GraphDef, text attributes in base64, and a manifest that says where
each constant lies in the shards. Weights may be quantised to float16, or to uint8 and uint16 with a scale and a minimum.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from dpcore.errors import BadInput, Corrupt
from dpcore.weights.folding import Array

DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1", "uint16": "<u2", "float16": "<f2"}


@dataclass(frozen=True, kw_only=True)
class GraphModel:
    """A model's nodes in the file's order, and its constants."""

    nodes: Mapping[str, Mapping[str, Any]]
    constants: Mapping[str, Array]


def parse_graph_model(document: bytes, shards: Mapping[str, bytes], *, where: str) -> GraphModel:
    """A graph model from the bytes of its model.json and of its shards by file name.

    Raises:
        BadInput: it is another kind of model. Corrupt: it is not JSON, or the shards do not hold what the manifest says.
    """
    try:
        model = json.loads(document)
        nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        manifest = [(group["paths"], group["weights"]) for group in model["weightsManifest"]]
    except ValueError as error:
        raise Corrupt(f"{where} is not JSON: {error}; fetch it again") from error
    except (KeyError, TypeError) as error:
        raise BadInput(f"{where}: expected a tfjs graph model with modelTopology.node and weightsManifest, {error} is missing") from error
    constants: dict[str, Array] = {}
    for paths, specs in manifest:
        constants |= _constants(b"".join(_shard(path, shards, where) for path in paths), specs, where)
    return GraphModel(nodes=nodes, constants=constants)


def _shard(path: str, shards: Mapping[str, bytes], where: str) -> bytes:
    if PurePosixPath(path).name != path:
        raise Corrupt(f"{where}: the weights are said to lie in {path}; expected a plain file name beside it")
    if path not in shards:
        raise BadInput(f"{where}: its weights {path} are not there; expected the file beside it")
    return shards[path]


def _constants(content: bytes, specs: Sequence[Mapping[str, Any]], where: str) -> dict[str, Array]:
    constants, offset = {}, 0
    for spec in specs:
        quantization = spec.get("quantization") or {}
        kind = quantization.get("dtype", spec["dtype"])
        if kind not in DTYPES:
            raise BadInput(f"{where}: constant {spec['name']} has type {kind}; expected one of {', '.join(DTYPES)}")
        dtype, count = np.dtype(DTYPES[kind]), int(np.prod(spec["shape"], dtype=np.int64))
        if offset + count * dtype.itemsize > len(content):
            raise Corrupt(f"{where}: the weights end at byte {len(content)}, inside {spec['name']}; fetch the package again")
        values: Array = np.frombuffer(content, dtype, count, offset).reshape(spec["shape"])
        if "scale" in quantization:
            values = values.astype(np.float64) * quantization["scale"] + quantization.get("min", 0.0)
        constants[spec["name"]] = values
        offset += count * dtype.itemsize
    if offset != len(content):
        raise Corrupt(f"{where}: the weights have {len(content)} bytes, the manifest says {offset}; fetch the package again")
    return constants


def attribute(node: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """An attribute of a node as a plain value, a list where it is one; `default` where the node leaves it out."""
    value = node.get("attr", {}).get(name)
    if value is None:
        return default
    if "list" in value:
        return [_plain(kind, one) for kind, values in value["list"].items() for one in values]
    return next((_plain(kind, one) for kind, one in value.items()), default)


def _plain(kind: str, value: Any) -> Any:
    if kind == "s":
        return base64.b64decode(value).decode("utf-8", errors="replace")
    return int(value) if kind == "i" else value
