"""The topology of a folded network as a document: its layers in order, checked when it is read. docs/folded-format.md specifies it.

Torch-free: what a file holds can be listed and checked without building the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, model_validator

from dpcore.config import Part, parse_config
from dpcore.errors import BadInput, Corrupt

INPUT = "input"
"""What layers call the picture."""

Activation = Literal["relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "hard_swish", "silu", "tanh", "gelu"]
FIRST_ACTIVATIONS = ("relu", "relu6")
"""Those of version 1."""


@dataclass(frozen=True, kw_only=True)
class LayerOp:
    """What a layer of one kind must and may say.

    Attributes:
        name: as `op` has it.
        inputs: least and most inputs.
        weighted: whether it has a weight, and so a shape.
        needs: fields that it must give; takes: fields that it may give beside them.
        scale: how its `stride` or `factor` changes the stride of its map.
        since: the version of the format that brought it.
    """

    name: str
    inputs: tuple[int, int] = (1, 1)
    weighted: bool = False
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    scale: Literal["same", "coarser", "finer", "whole"] = "same"
    since: int = 1


OPS: Mapping[str, LayerOp] = {
    op.name: op
    for op in (
        LayerOp(name="conv", weighted=True, takes=("groups", "dilation", "pads"), scale="coarser"),
        LayerOp(name="dwconv", weighted=True, takes=("dilation", "pads"), scale="coarser"),
        LayerOp(name="add", inputs=(2, 64)),
        LayerOp(name="upsample2x_bilinear", scale="finer"),
        LayerOp(name="deconv", weighted=True, needs=("pads",), takes=("groups", "dilation", "output_pads"), scale="finer", since=2),
        LayerOp(name="mul", inputs=(2, 64), since=2),
        LayerOp(name="concat", inputs=(1, 64), since=2),
        LayerOp(name="maxpool", needs=("kernel",), takes=("pads",), scale="coarser", since=2),
        LayerOp(name="avgpool", needs=("kernel",), takes=("pads", "count_pads"), scale="coarser", since=2),
        LayerOp(name="global_avgpool", scale="whole", since=2),
        LayerOp(name="upsample_nearest", needs=("factor",), scale="finer", since=2),
        LayerOp(name="upsample_bilinear", needs=("factor",), scale="finer", since=2),
        LayerOp(name="act", since=2),
    )
}
_SINCE_2 = ("groups", "dilation", "pads", "output_pads", "kernel", "count_pads", "factor", "slope")
"""Fields that version 1 does not know."""


class Layer(Part):
    """One line of a topology. Maps are (B, C, H, W).

    `shape` is that of the weight: (out, in / groups, kh, kw), of a `deconv` (in, out / groups, kh, kw). `pads` are zeros around the
    input: (top, left, bottom, right); without it the padding is TensorFlow's SAME. A `deconv` cuts `pads` off its output.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    stride: int = Field(default=1, ge=1)
    act: Activation | None = None
    groups: int = Field(default=1, ge=1)
    dilation: int = Field(default=1, ge=1)
    pads: tuple[int, int, int, int] | None = None
    output_pads: tuple[int, int] | None = None
    kernel: tuple[int, int] | None = None
    count_pads: bool | None = None
    factor: int | None = Field(default=None, ge=2)
    slope: float | None = None

    @model_validator(mode="after")
    def _says_what_its_op_needs(self) -> Self:
        op = OPS.get(self.op)
        if op is None:
            raise ValueError(f"layer {self.name}: unknown op {self.op}; expected one of {', '.join(OPS)}")
        least, most = op.inputs
        if not least <= len(self.inputs) <= most:
            raise ValueError(f"layer {self.name}: {self.op} takes {least} to {most} inputs, given {len(self.inputs)}")
        given = {name for name in _SINCE_2 if getattr(self, name) != type(self).model_fields[name].default} - {"slope"}
        missing, surplus = sorted(set(op.needs) - given), sorted(given - {*op.needs, *op.takes})
        if missing or surplus:
            needs, takes = missing or "nothing more", surplus or "anything else"
            raise ValueError(f"layer {self.name}: {self.op} needs {needs} and does not take {takes}")
        if op.weighted != (self.shape is not None) or (self.shape is not None and (len(self.shape) != 4 or min(self.shape) < 1)):
            expected = "a shape of four sizes" if op.weighted else "no shape"
            raise ValueError(f"layer {self.name}: {self.op} has {expected}, given {self.shape}")
        if self.op == "dwconv" and self.shape is not None and self.shape[1] != 1:
            raise ValueError(f"layer {self.name}: the shape of a dwconv is (channels, 1, kh, kw), given {self.shape}")
        if (self.act == "leaky_relu") != (self.slope is not None) or (self.op == "act" and self.act is None):
            raise ValueError(f"layer {self.name}: slope belongs to act leaky_relu, and op act needs an act")
        return self

    def since(self) -> int:
        """The first version of the format that can say this layer."""
        newer = any(getattr(self, name) != type(self).model_fields[name].default for name in _SINCE_2)
        return max(OPS[self.op].since, 2 if newer or self.act not in (None, *FIRST_ACTIVATIONS) else 1)

    def document(self) -> dict[str, Any]:
        """The layer as a file has it: what says nothing is left out."""
        document = self.model_dump(mode="json", include={"name", "op", "inputs"})
        if self.shape is not None:
            document |= {"shape": list(self.shape), "stride": self.stride, "act": self.act}
        elif self.stride != 1 or self.act is not None:
            document |= {"stride": self.stride, "act": self.act}
        newer = self.model_dump(mode="json", include=set(_SINCE_2))
        return document | {name: value for name, value in newer.items() if value != type(self).model_fields[name].default}


class PixelScale(Part):
    """What a network expects of a pixel x in 0..255: (x - mean) / std per channel, channels in this order."""

    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    order: Literal["RGB", "BGR"] = "RGB"


class Topology(Part):
    """A folded network: its layers in order, and how a picture is scaled for it.

    In version 1 `input` holds the scaling, as `x/a-b` or `(x-a)/b`. In version 2 `input_scale` does, and `input` is for people.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: Literal[1, 2] = 1
    model: str
    input: str
    input_scale: PixelScale | None = None
    licence: str | None = None
    source: str | None = None
    layers: tuple[Layer, ...]

    @model_validator(mode="after")
    def _layers_fit_together(self) -> Self:
        if (self.version == 1) != (self.input_scale is None):
            raise ValueError("input_scale belongs to version 2, which needs it")
        keys: dict[str, str] = {}
        for layer in self.layers:
            if layer.since() > self.version:
                raise ValueError(f"layer {layer.name}: op {layer.op} or one of its fields needs version {layer.since()}")
            if layer.name == INPUT or keys.setdefault(layer.name.replace(".", "_"), layer.name) != layer.name:
                raise ValueError(f"layer {layer.name}: the name is taken; names differ in more than dots and underscores")
        if len(keys) != len(self.layers):
            raise ValueError("two layers have one name")
        self.channels()
        return self

    def channels(self) -> dict[str, int]:
        """Channels of every layer's map.

        Raises:
            ValueError: a layer reads what is not there yet, or its weight does not fit its input.
        """
        known = {INPUT: 3}
        for layer in self.layers:
            missing = [name for name in layer.inputs if name not in known]
            if missing:
                raise ValueError(f"layer {layer.name}: it reads {', '.join(missing)}, which no earlier layer is")
            known[layer.name] = _channels_of(layer, [known[name] for name in layer.inputs])
        return known

    def strides(self) -> dict[str, Fraction | None]:
        """Input pixels per cell of every layer's map; None where the map is one cell for the whole picture."""
        known: dict[str, Fraction | None] = {INPUT: Fraction(1)}
        for layer in self.layers:
            scale, finest = OPS[layer.op].scale, [known[name] for name in layer.inputs if known[name] is not None]
            times = Fraction(layer.factor or (2 if layer.op == "upsample2x_bilinear" else layer.stride))
            if scale == "whole" or not finest:
                known[layer.name] = None
            else:
                known[layer.name] = {"coarser": finest[0] * times, "finer": finest[0] / times}.get(scale, finest[0])  # type: ignore[operator]
        return known

    def parameters(self) -> int:
        """Weights and biases of all layers."""
        channels = self.channels()
        return sum(_product(layer.shape) + channels[layer.name] for layer in self.layers if layer.shape is not None)

    def input_affine(self) -> tuple[float, float]:
        """(scale, shift) of version 1 such that `scale * t + shift` is this network's input for a pixel `t = x / 127.5 - 1`.

        Raises:
            BadInput: the input line is neither `x/a-b` nor `(x-a)/b`.
        """
        number = r"([0-9]+(?:\.[0-9]+)?)"
        if match := re.search(rf"x/{number}-{number}", self.input):
            divisor, shift = float(match[1]), -float(match[2])
        elif match := re.search(rf"\(x-{number}\)/{number}", self.input):
            divisor, shift = float(match[2]), -float(match[1]) / float(match[2])
        else:
            raise BadInput(f"{self.model}: input scaling {self.input!r} is not understood; expected x/a-b or (x-a)/b")
        return 127.5 / divisor, 127.5 / divisor + shift

    def document(self) -> dict[str, Any]:
        """The topology as a file has it; what says nothing is left out."""
        fields = self.model_dump(mode="json", exclude={"layers"}, exclude_none=True)
        if self.version == 1:
            del fields["version"]
        return {**fields, "layers": [layer.document() for layer in self.layers]}

    def needed_for(self, feature_layers: Sequence[str]) -> Topology:
        """The topology without the layers that no wanted feature depends on.

        Raises:
            BadInput: a wanted layer does not exist.
        """
        by_name = {layer.name: layer for layer in self.layers}
        unknown = [name for name in feature_layers if name not in by_name]
        if unknown:
            raise BadInput(f"model.feature_layers: {self.model} has no layer {', '.join(unknown)}; it has {', '.join(by_name)}")
        wanted, open_names = set(), list(feature_layers)
        while open_names:
            name = open_names.pop()
            if name in wanted or name == INPUT:
                continue
            wanted.add(name)
            open_names.extend(by_name[name].inputs)
        return self.model_copy(update={"layers": tuple(layer for layer in self.layers if layer.name in wanted)})


def _product(sizes: Sequence[int] | None) -> int:
    result = 1
    for size in sizes or ():
        result *= size
    return result


def _channels_of(layer: Layer, inputs: list[int]) -> int:
    if layer.op == "concat":
        return sum(inputs)
    if layer.shape is None:
        if len({count for count in inputs if count != 1}) > 1:
            raise ValueError(f"layer {layer.name}: its inputs have {inputs} channels; expected equal numbers")
        return max(inputs)
    if layer.op == "deconv":
        expected, result = layer.shape[0], layer.shape[1] * layer.groups
    elif layer.op == "dwconv":
        expected, result = layer.shape[0], layer.shape[0]
    else:
        expected, result = layer.shape[1] * layer.groups, layer.shape[0]
    if inputs[0] != expected or result % layer.groups or expected % layer.groups:
        raise ValueError(f"layer {layer.name}: its input has {inputs[0]} channels, its shape {layer.shape} needs {expected}")
    return result


def read_topology(weights: Path) -> Topology:
    """The topology beside `<weights>_fp16.npz`: `<weights>_layers.json`, or the same without the stem's last word
    (`efficientnet_lite0_imagenet` has `efficientnet_lite0_layers.json`).

    Raises:
        BadInput: there is no such file. Corrupt: it is not a topology.
    """
    path = topology_path(weights)
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise Corrupt(f"{path} is not JSON: {error}; fetch the network again") from error
    return parse_config(Topology, document, where=path.name)


def topology_path(weights: Path) -> Path:
    """Where the topology of `weights` lies.

    Raises:
        BadInput: nowhere.
    """
    shorter = weights.name.rsplit("_", 1)[0]
    candidates = [weights.with_name(f"{stem}_layers.json") for stem in dict.fromkeys((weights.name, shorter))]
    for path in candidates:
        if path.is_file():
            return path
    expected = " or ".join(map(str, candidates))
    raise BadInput(f"model.weights: no topology found; expected {expected}. `dpsweep weights list` shows what is there and what can be had")
