"""Backbones and heads by name: what a model config may say of them. Who builds them lies with `builder`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import PydanticCustomError

from dpcore.config.parsing import UNKNOWN_NAME
from dpcore.config.registry import Table

TIMM_WEIGHTS = "timm"
"""As `model.weights`: what timm itself has for the network."""


def _nothing_wrong(_backbone: str) -> str | None:
    return None


def _wrong_with_timm(backbone: str) -> str | None:
    return None if backbone.partition(":")[2] else "backbone timm: name a network of timm, as in timm:tiny_vit_5m_224"


def _wrong_with_own(backbone: str) -> str | None:
    module, _, function = backbone.partition(":")
    if all(part.isidentifier() for part in [*module.split("."), function]):
        return None
    return f"backbone {backbone}: expected module:FUNCTION in Python's names, as in my_network:build"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One kind of network from images to maps.

    Attributes:
        name: as `model.backbone` has it.
        builder: `module:name` of a function (ModelConfig, Places | None, document | None) → `dpcore.model.built.BuiltBackbone`, or the
            function. The document is that of a saved model; then no other file may be read.
        has_late: whether it has a last block of its own, so that `freeze: early` means something.
        takes_weights: whether it is read from `model.weights` and gives `model.feature_layers`.
        is_foreign: whether it is a network from elsewhere: `model.batch_norm` applies, weights are optional, and its parts are its own.
        gives_keypoints: whether it gives keypoints in place of maps, of the views that `model.asked` says.
        has_layers: of a foreign one, whether it gives `model.feature_layers`.
        any_size: whether it reads pictures of other sizes than `model.input_*_px`, in multiples of 32 px.
        checks_name: what is wrong with what stands around the colon of its name, None where nothing is.
        packages: distributions that building it needs beside dpsweep's own.
    """

    name: str
    builder: str | Callable[[Any, Any, Any], Any]
    has_late: bool = False
    takes_weights: bool = False
    is_foreign: bool = False
    gives_keypoints: bool = False
    has_layers: bool = False
    any_size: bool = False
    checks_name: Callable[[str], str | None] = _nothing_wrong
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Head:
    """One kind of map from features to logits.

    Attributes:
        name: as `model.head` has it.
        builder: `module:name` of a function from a `dpcore.model.head.HeadShape` to a torch module, or the function.
        has_sharpness: whether it reads `model.marginal_sharpness`.
        readout: `module:name` of a function (ModelConfig, Skeleton) → `dpcore.inference.readouts.Readout`, or the function: how its outputs
            are read. A head whose outputs are SimCC logits (B,K,Wx) and (B,K,Wy) needs none of its own.
        any_size: whether it reads maps of any size.
        layers: what `model.feature_layers` must be for it, where it reads certain maps alone.
        reads_pyramid: whether it reads the maps of a folded network on their own grids, packed (`dpcore.model.maps.pyramid`).
        reads_keypoints: whether it reads the keypoints of a backbone that gives them.
        for_loss: `module:name` of a function (ModelConfig, Skeleton) → function from its outputs to what `gives` says, where they are
            something else.
        gives: `marginals`, logits over x and over y, or `maps`, logits over cells: which losses fit it.
    """

    name: str
    builder: str | Callable[[Any], Any]
    has_sharpness: bool = False
    readout: str | Callable[[Any, Any], Any] = "dpcore.inference.readouts:simcc_readout"
    any_size: bool = False
    layers: tuple[str, ...] = ()
    reads_pyramid: bool = False
    reads_keypoints: bool = False
    for_loss: str | Callable[[Any, Any], Any] | None = None
    gives: Literal["marginals", "maps"] = "marginals"


BACKBONES = Table(
    "backbone",
    Backbone,
    (
        Backbone(name="small", builder="dpcore.model.backbones:build_small", has_late=True, any_size=True),
        Backbone(name="folded", builder="dpcore.model.folded:build_folded", takes_weights=True, any_size=True),
        Backbone(name="keypoints", builder="dpcore.inference.asked:build_asked", takes_weights=True, gives_keypoints=True),
    ),
)

TIMM = Backbone(
    name="timm",
    builder="dpcore.model.outside.timm_backbone:build_timm",
    is_foreign=True,
    has_layers=True,
    checks_name=_wrong_with_timm,
    packages=("timm", "torchvision"),
)
OWN = Backbone(name="module:FUNCTION", builder="dpcore.model.outside.own_backbone:build_own", is_foreign=True, checks_name=_wrong_with_own)


def backbone_traits(backbone: str) -> Backbone:
    """What `model.backbone` names: an entry of the table, `timm:NAME`, or `module:FUNCTION`.

    Raises:
        BadInput: none of these.
    """
    first, colon, _ = backbone.partition(":")
    if not colon:
        return BACKBONES.get(backbone)
    return TIMM if first == TIMM.name else OWN


def checked_backbone(backbone: str) -> str:
    """`backbone`, if it can be one; for pydantic's validators. Whether timm or a module has it shows when it is built.

    Raises:
        PydanticCustomError: it can't.
    """
    if ":" not in backbone:
        return BACKBONES.checked(backbone)
    problem = backbone_traits(backbone).checks_name(backbone)
    if problem is not None:
        raise PydanticCustomError(UNKNOWN_NAME, "{problem}", {"problem": problem})
    return backbone


MOVENET_LAYERS = ("heat.out", "center.out", "reg.out", "off.out")
"""The maps of MoveNet's four heads."""

HEADS = Table(
    "head",
    Head,
    (
        Head(name="marginal", builder="dpcore.model.head:MarginalHead", has_sharpness=True),
        Head(name="flat", builder="dpcore.model.head:FlatHead"),
        Head(
            name="movenet",
            builder="dpcore.inference.movenet:MoveNetHead",
            readout="dpcore.inference.movenet:movenet_readout",
            any_size=True,
            layers=MOVENET_LAYERS,
            for_loss="dpcore.inference.movenet:logits_for_loss",
            gives="maps",
        ),
        Head(
            name="movenet_mixed",
            builder="dpcore.inference.movenet_mixed:MixedHead",
            readout="dpcore.inference.movenet_mixed:mixed_readout",
            any_size=True,
            layers=MOVENET_LAYERS,
            for_loss="dpcore.inference.movenet_mixed:logits_for_loss",
            gives="maps",
        ),
        Head(
            name="calibrator",
            builder="dpcore.inference.calibrator:CalibratorHead",
            readout="dpcore.inference.readouts:heat_map_readout",
            any_size=True,
            layers=MOVENET_LAYERS,
            gives="maps",
        ),
        Head(
            name="fpn2d",
            builder="dpcore.model.fpn:build_fpn",
            has_sharpness=True,
            readout="dpcore.inference.readouts:heat_map_readout",
            any_size=True,
            reads_pyramid=True,
            gives="maps",
        ),
        Head(
            name="linear2d",
            builder="dpcore.model.fpn:LinearMaps",
            has_sharpness=True,
            readout="dpcore.inference.readouts:heat_map_readout",
            any_size=True,
            reads_pyramid=True,
            gives="maps",
        ),
        Head(
            name="keypoints",
            builder="dpcore.inference.joint_mixer:JointMixer",
            has_sharpness=True,
            layers=MOVENET_LAYERS,
            reads_keypoints=True,
        ),
    ),
)
