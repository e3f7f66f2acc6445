"""Turns a graph of single operations into the layers of a folded network.

A reader of some file format writes one `Draft` for each node. `fold` then merges what need not stand alone:

| draft | becomes |
|---|---|
| `affine` on the picture itself | the input's scale |
| `affine` (BatchNorm, BiasAdd, a constant factor) after a convolution that nothing else reads | its weight and bias |
| any other `affine` | a 1x1 `dwconv` |
| x * sigmoid(x), of a map that nothing else reads | the activation `silu` |
| `act` after a layer that has none and that nothing else reads | that layer's activation |

All arithmetic is float64; numbers that nothing is folded into keep their bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import parse_config
from dpcore.errors import BadInput
from dpcore.model.topology import INPUT, OPS, Layer, PixelScale, Topology

Array = NDArray[Any]
AFFINE = "affine"
"""A draft's op that no file has: y = scale * x + shift, both of size 1 or one number per channel."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One operation of a graph.

    Attributes:
        name: of the layer; op: of the folded format, or `affine`; inputs: names of other drafts or `input`.
        weight, bias: of a weighted op. scale, shift: of an affine one.
        fields: what else its `Layer` says.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    weight: Array | None = None
    bias: Array | None = None
    scale: Array | None = None
    shift: Array | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FoldedNetwork:
    """A topology, the document that a file says it in, and its tensors, `NAME.weight` and `NAME.bias`."""

    topology: Topology
    document: Mapping[str, Any]
    tensors: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class FoldedGraph:
    """What is left of a graph.

    Attributes:
        layers: in order.
        tensors: `NAME.weight` and `NAME.bias`.
        names: where the result of each draft is now.
        scale, shift: of the picture, one number per channel (or one for all): the network reads scale * x + shift.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, Array]
    names: Mapping[str, str]
    scale: Array
    shift: Array

    def input_scale(self, given: PixelScale) -> PixelScale:
        """The scale of pixels 0..255 where the graph's own input is a picture that `given` scales."""
        mean, std = np.array(given.mean), np.array(given.std)
        scale, shift = np.broadcast_to(self.scale, 3), np.broadcast_to(self.shift, 3)
        values = {"mean": list(mean - shift * std / scale), "std": list(std / scale), "order": given.order}
        return parse_config(PixelScale, values, where="input_scale")


class _Folding:
    """The drafts that are left, while others are merged into them."""

    def __init__(self, drafts: Sequence[Draft], outputs: Sequence[str]) -> None:
        self.readers = Counter([name for draft in drafts for name in draft.inputs] + list(outputs))
        self.left: dict[str, Draft] = {}
        self.names = {INPUT: INPUT}
        self.scale, self.shift = np.ones(1), np.zeros(1)
        self.channels = {INPUT: 3}
        for draft in drafts:
            self.take(replace(draft, inputs=tuple(self.names[name] for name in draft.inputs)), was=draft.inputs)

    def take(self, draft: Draft, *, was: tuple[str, ...]) -> None:
        """Merges a draft into the one that it reads, or keeps it."""
        gated = self._gated_by_itself(draft, was)
        if gated is not None:
            draft, was = replace(draft, op="act", inputs=(gated,), fields={"act": "silu"}), (draft.name,)
        source = draft.inputs[0]
        alone = gated is not None or self.readers[was[0]] == 1
        if draft.op == AFFINE and source == INPUT and alone and not self.left:
            scale, shift = _pair(draft)
            self.scale, self.shift = self.scale * scale, self.shift * scale + shift
            self.names[draft.name] = INPUT
            return
        before = self.left.get(source)
        if alone and before is not None and before.fields.get("act") is None:
            merged = _merged(before, draft)
            if merged is not None:
                self.left[source] = merged
                self.names[draft.name] = source
                return
        self.keep(draft)

    def _gated_by_itself(self, draft: Draft, was: tuple[str, ...]) -> str | None:
        """The map x where the draft is x * sigmoid(x) and is all that reads the two; the sigmoid is then taken out."""
        for place in (0, 1) if draft.op == "mul" and len(was) == 2 else ():
            gate, name = self.left.get(draft.inputs[place]), draft.inputs[1 - place]
            is_sigmoid = gate is not None and gate.op == "act" and gate.fields == {"act": "sigmoid"} and gate.inputs == (name,)
            if is_sigmoid and name in self.left and self.readers[was[place]] == 1 and self.readers[was[1 - place]] == 2:
                del self.left[draft.inputs[place]]
                return name
        return None

    def keep(self, draft: Draft) -> None:
        if draft.op == AFFINE:
            draft = _as_convolution(draft, self.channels[draft.inputs[0]])
        if draft.name in self.left:
            raise BadInput(f"layer {draft.name}: two nodes get this name; rename one of them in the file")
        self.left[draft.name] = draft
        self.names[draft.name] = draft.name
        self.channels[draft.name] = _channels(draft, [self.channels[name] for name in draft.inputs])


def fold(drafts: Sequence[Draft], outputs: Sequence[str]) -> FoldedGraph:
    """The layers of a graph whose drafts stand in the order of their computation.

    Args:
        outputs: drafts that must keep a map of their own.

    Raises:
        BadInput: a layer is not what the folded format can say.
    """
    done = _Folding(drafts, outputs)
    tensors: dict[str, Array] = {}
    for draft in done.left.values():
        for kind, values in (("weight", draft.weight), ("bias", draft.bias)):
            if values is not None:
                tensors[f"{draft.name}.{kind}"] = values
    layers = tuple(_layer(draft) for draft in done.left.values())
    return FoldedGraph(layers=layers, tensors=tensors, names=done.names, scale=done.scale, shift=done.shift)


def size_after(draft: Draft, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a draft's map, from those of its first input."""
    scale, fields = OPS[draft.op].scale if draft.op in OPS else "same", draft.fields
    if scale == "whole":
        return 1, 1
    if scale == "same":
        return size
    kernel = draft.weight.shape[2:] if draft.weight is not None else fields.get("kernel", (1, 1))
    top, left, bottom, right = fields.get("pads") or (0, 0, 0, 0)
    stride, sides = fields.get("stride", 1), []
    for side, cells, pads, more in zip(size, kernel, (top + bottom, left + right), fields.get("output_pads") or (0, 0), strict=True):
        reach = (cells - 1) * fields.get("dilation", 1) + 1
        if draft.op == "deconv":
            sides.append((side - 1) * stride + reach + more - pads)
        elif scale == "finer":
            sides.append(side * fields.get("factor", 2))
        else:
            sides.append(-(-side // stride) if fields.get("pads") is None else (side + pads - reach) // stride + 1)
    return sides[0], sides[1]


def version_of(layers: Sequence[Layer]) -> int:
    """The first version of the format that can say these layers."""
    return max((layer.since() for layer in layers), default=1)


def stored_as(tensors: Mapping[str, Array], dtype: str) -> dict[str, Array]:
    """The tensors as a file holds them.

    Raises:
        BadInput: a number is not finite, or does not fit float16.
    """
    stored = {}
    for name, values in tensors.items():
        with np.errstate(over="ignore"):
            stored[name] = np.asarray(values).astype(dtype)
        if not np.isfinite(stored[name]).all():
            largest = np.abs(np.asarray(values, dtype=np.float64)).max()
            raise BadInput(f"tensor {name}: a number of size {largest:g} does not fit {dtype}; give --dtype float32 if it is finite")
    return stored


def _merged(before: Draft, draft: Draft) -> Draft | None:
    """`draft` as part of the layer that it reads; None where it must stand alone."""
    if draft.op == "act":
        return replace(before, fields={**before.fields, "act": draft.fields["act"], **_slope(draft)})
    if draft.op == AFFINE and before.weight is not None:
        return _scaled(before, *_pair(draft))
    return None


def _slope(draft: Draft) -> dict[str, Any]:
    return {"slope": draft.fields["slope"]} if "slope" in draft.fields else {}


def _pair(draft: Draft) -> tuple[Array, Array]:
    scale = np.ones(1) if draft.scale is None else np.asarray(draft.scale, dtype=np.float64).reshape(-1)
    shift = np.zeros(1) if draft.shift is None else np.asarray(draft.shift, dtype=np.float64).reshape(-1)
    return scale, shift


def _scaled(draft: Draft, scale: Array, shift: Array) -> Draft:
    """A weighted draft, followed by an affine map of its output."""
    assert draft.weight is not None
    weight, bias, count = draft.weight, draft.bias, _channels(draft, [])
    if not np.array_equal(scale, np.ones(1)):
        per_output = np.broadcast_to(scale, count)
        if draft.op == "deconv":
            groups = draft.fields.get("groups", 1)
            split = np.asarray(weight, dtype=np.float64).reshape(groups, -1, *weight.shape[1:])
            weight = (split * per_output.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)
        else:
            weight = np.asarray(weight, dtype=np.float64) * per_output[:, None, None, None]
        bias = None if bias is None else np.asarray(bias, dtype=np.float64) * per_output
    if bias is None:
        bias = np.broadcast_to(shift, count).copy() if shift.any() or len(shift) > 1 else None
    elif shift.any():
        bias = np.asarray(bias, dtype=np.float64) + shift
    return replace(draft, weight=weight, bias=bias)


def _as_convolution(draft: Draft, channels: int) -> Draft:
    scale, shift = _pair(draft)
    if any(len(values) not in (1, channels) for values in (scale, shift)):
        raise BadInput(f"layer {draft.name}: a constant of {max(len(scale), len(shift))} numbers on {channels} channels; expected one each")
    weight = np.broadcast_to(scale, channels).reshape(channels, 1, 1, 1).copy()
    return replace(draft, op="dwconv", weight=weight, bias=np.broadcast_to(shift, channels).copy(), scale=None, shift=None)


def _channels(draft: Draft, inputs: list[int]) -> int:
    if draft.op == "concat":
        return sum(inputs)
    if draft.weight is None:
        return max(inputs)
    return int(draft.weight.shape[1] * draft.fields.get("groups", 1) if draft.op == "deconv" else draft.weight.shape[0])


def _layer(draft: Draft) -> Layer:
    shape = {} if draft.weight is None else {"shape": draft.weight.shape}
    document = {"name": draft.name, "op": draft.op, "inputs": draft.inputs, **shape, **draft.fields}
    pads, op = document.get("pads"), OPS[draft.op]
    if pads is not None and not any(pads) and op.needs != ("pads",) and _window(document) == (1, 1):
        del document["pads"]  # SAME says it too, and version 1 knows no other
    return parse_config(Layer, document, where=draft.name)


def _window(document: Mapping[str, Any]) -> tuple[int, ...]:
    window = document["shape"][2:] if "shape" in document else document.get("kernel", ())
    return tuple(int(side) for side in window)
