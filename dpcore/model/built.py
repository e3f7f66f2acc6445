"""What a backbone's builder hands over, and how the weights of its parts are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from dpcore.config import ModelConfig, Places
from dpcore.config.networks import backbone_traits
from dpcore.config.registry import loaded
from dpcore.errors import BadInput
from dpcore.model.maps.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltBackbone:
    """A backbone from images (B,3,H,W) in [-1, 1] to maps (B,C,H/s,W/s).

    Attributes:
        parts: the chain, from the image to the maps; the last of several is the last block. No layer may couple examples (no BatchNorm
            that learns).
        channels: C; stride_px: s.
        ready: the parts whose weights are set already; the others are drawn from the trial's seed.
        pyramid: how the maps are packed, where each keeps its own grid; then C and s are those of the packed tensor.
        head_layers: parameters, by part and name, that train with the head whatever is frozen.
        layers: channels of each named map in the order of the concatenation, where it is one.
        last_layer: the last stage, by the name that a rule of `freeze` would give it; None where it is the last part.
        document: what a saved model must hold, as JSON, so that the same modules are built again from it alone.
        code: versions or digests of code that is not dpsweep's, by name: part of the trial's identity and of the keys of caches.
        unused: parameters, by part and name, that the maps do not depend on. They never train.
        out_of_place: whether `x += y` within it must make a new tensor (`dpcore.model.safety.in_place`).
        says: sentences for people on what was loaded and what was changed.
    """

    parts: Mapping[str, nn.Module]
    channels: int
    stride_px: int
    ready: frozenset[str] = frozenset()
    pyramid: Pyramid | None = None
    head_layers: frozenset[str] = frozenset()
    layers: Mapping[str, int] = field(default_factory=dict)
    last_layer: str | None = None
    document: Mapping[str, Any] | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    out_of_place: bool = False
    says: tuple[str, ...] = ()


@runtime_checkable
class DrawsItself(Protocol):
    """A part with layers that `dpcore.model.backbones.initialise` does not know."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """Sets every weight from `generator` alone, so that equal seeds give equal networks."""


def build_backbone(config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None = None) -> BuiltBackbone:
    """The backbone that a model config names. `document`: of a saved model, which then needs no other file.

    Raises:
        BadInput: it does not load, gives something else, or sizes and weights do not fit.
    """
    traits = backbone_traits(config.backbone)
    built = loaded(traits.builder, what=f"backbone {traits.name}")(config, places, document)
    if not isinstance(built, BuiltBackbone):
        raise BadInput(f"backbone {traits.name}: its builder must give a BuiltBackbone, it gave {type(built).__name__}")
    wanted = {"early", "late"} if traits.has_late else {"early"}
    if not traits.is_foreign and set(built.parts) != wanted:
        raise BadInput(f"backbone {traits.name}: expected the parts {', '.join(sorted(wanted))}, given {', '.join(sorted(built.parts))}")
    return built
