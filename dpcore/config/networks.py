"""Backbones and heads by name: what a model config may say of them. Who builds them lies with `builder`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpcore.config.registry import Table


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One kind of network from images to maps.

    Attributes:
        name: as `model.backbone` has it.
        builder: `module:name` of a function (ModelConfig, Places | None, document | None) → `dpcore.model.built.BuiltBackbone`, or the
            function. The document is that of a saved model; then no other file may be read.
        has_late: whether it has a last block of its own, so that `freeze: early` means something.
        takes_weights: whether it is read from `model.weights` and gives `model.feature_layers`.
    """

    name: str
    builder: str | Callable[[Any, Any, Any], Any]
    has_late: bool = False
    takes_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Head:
    """One kind of map from features to logits.

    Attributes:
        name: as `model.head` has it.
        builder: `module:name` of a function from a `dpcore.model.head.HeadShape` to a torch module, or the function.
        has_sharpness: whether it reads `model.marginal_sharpness`.
    """

    name: str
    builder: str | Callable[[Any], Any]
    has_sharpness: bool = False


BACKBONES = Table(
    "backbone",
    Backbone,
    (
        Backbone(name="small", builder="dpcore.model.backbones:build_small", has_late=True),
        Backbone(name="folded", builder="dpcore.model.folded:build_folded", takes_weights=True),
    ),
)

HEADS = Table(
    "head",
    Head,
    (
        Head(name="marginal", builder="dpcore.model.head:MarginalHead", has_sharpness=True),
        Head(name="flat", builder="dpcore.model.head:FlatHead"),
    ),
)
