"""Tiny ONNX models for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save


def save_model(
    path: Path,
    nodes: Sequence[Any],
    constants: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    *,
    size: tuple[int | str, int | str] = (16, 24),
    opset: int = 20,
) -> Path:
    """A model with the input `picture` (1, 3, H, W)."""
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, *size])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
    initializers = [numpy_helper.from_array(np.array(values, order="C"), name) for name, values in constants.items()]
    graph = helper.make_graph(list(nodes), "tiny", [picture], ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    return path


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    """A node from the names of its inputs with spaces between them; `-` leaves an input out."""
    return helper.make_node(op, ["" if one == "-" else one for one in inputs.split()], [output], name=f"/{output}/{op}", **attributes)
