"""Any network from images to maps as the chain of parts that a pose network is made of.

Where a network's children, one after the other, are the network, each of them is a part: a frozen prefix of them is a stem whose features
are computed once. Otherwise the whole network is one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig
from dpcore.errors import BadInput
from dpcore.model.built import BuiltBackbone
from dpcore.model.safety.report import SafetyReport
from dpcore.model.safety.safe_pass import TOLERANCE, difference, make_safe, outputs_of

INPUT = "input"
"""The part without weights that maps [-1, 1] to a network's own scale."""


class InputScale(nn.Module):
    """(B,3,H,W) in [-1, 1] → ((x + 1)/2 − mean)/std, by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return ((images + 1) / 2 - self.mean) / self.std


class OneGrid(nn.Module):
    """A network that gives several maps: all on the grid of the finest, concatenated; a single map stays as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        maps: Any = self.network(images)
        if isinstance(maps, Tensor):
            return maps
        grid = max(tuple(one.shape[2:]) for one in maps)
        return torch.cat([one if one.shape[2:] == grid else _resized(one, grid) for one in maps], dim=1)


def _resized(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    return functional.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A network from elsewhere before the safe pass.

    Attributes:
        network: from images to maps (B,C,h,w), or to a list of maps.
        mean, std: of its input, in the scale from 0 to 1; None where it takes [-1, 1].
        document: what a saved model must hold of it.
        code: versions or digests of the code that it is made of.
        loaded: sentences on its weights, for people.
        last_layer: its last stage; None where that is the last part of the chain.
    """

    network: nn.Module
    document: Mapping[str, Any]
    code: Mapping[str, str]
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    loaded: tuple[str, ...] = ()
    last_layer: str | None = None


def safe_backbone(foreign: Foreign, config: ModelConfig, known: Mapping[str, Any] | None) -> BuiltBackbone:
    """The network after the safe pass, as parts.

    Args:
        foreign: the network.
        config: its input size, and what becomes of BatchNorms.
        known: the document of a saved model, whose modules must come out again.

    Raises:
        BadInput: it gives no maps. Refused: the safe pass does not succeed.
    """
    example = example_images(config)
    _require_maps(foreign.network, example)
    report = None if known is None else SafetyReport.of_document(known["safety"])
    safe = make_safe(foreign.network, example, batch_norm=config.batch_norm, known=report)
    children = _children_in_chain(safe.module, example)
    parts = children or {"network": OneGrid(safe.module)}
    unused = {id(safe.module.get_parameter(name)) for name in safe.report.unused}
    with torch.no_grad():
        maps = _run(parts.values(), example[:1])
    if foreign.mean is not None and foreign.std is not None:
        parts = {INPUT: InputScale(foreign.mean, foreign.std), **parts}
    return BuiltBackbone(
        parts=parts,
        channels=maps.shape[1],
        stride_px=_stride(maps, config),
        ready=frozenset(parts),
        last_layer=foreign.last_layer,
        document={**foreign.document, "safety": safe.report.document(), "loaded": list(foreign.loaded)},
        code=foreign.code,
        unused=frozenset(f"{key}.{name}" for key, part in parts.items() for name, p in part.named_parameters() if id(p) in unused),
        out_of_place=safe.out_of_place,
        says=(*foreign.loaded, *safe.report.lines()),
    )


def example_images(config: ModelConfig) -> Tensor:
    """Two images of numbers in [-1, 1], the same in every process: (2,3,H,W)."""
    size = (2, 3, config.input_height_px, config.input_width_px)
    return torch.rand(size, generator=torch.Generator().manual_seed(7)) * 2 - 1


def _require_maps(network: nn.Module, example: Tensor) -> None:
    network.eval()
    with torch.no_grad():
        outputs = network(example)
    several = outputs if isinstance(outputs, list | tuple) else [outputs]
    shapes = [tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in several]
    if not several or any(not isinstance(one, Tensor) or one.ndim != 4 or len(one) != len(example) for one in several):
        raise BadInput(f"model.backbone: expected maps (B, C, h, w) from images {tuple(example.shape)}, the network gives {shapes}")


def _children_in_chain(network: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """The children, those of plain sequences instead of the sequences; none where they are not the network."""
    wanted = outputs_of(network, example)
    if len(wanted) != 1:
        return {}
    parts: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        inner = dict(child.named_children()) if type(child) is nn.Sequential else {}
        parts |= {f"{name}_{key}": module for key, module in inner.items()} or {name: child}
    try:
        with torch.no_grad():
            found = _run(parts.values(), example)
    except Exception:  # noqa: BLE001 - a child that takes something else may fail in any way: then they are no chain
        return {}
    return parts if parts and isinstance(found, Tensor) and difference([found], wanted) <= TOLERANCE else {}


def _run(parts: Iterable[nn.Module], images: Tensor) -> Tensor:
    for part in parts:
        images = part(images)
    return images


def _stride(maps: Tensor, config: ModelConfig) -> int:
    """Pixels of the input for one cell of the maps.

    Raises:
        BadInput: it is no whole number, or differs between the axes.
    """
    height, width = maps.shape[2:]
    stride = config.input_height_px // height
    if stride * height != config.input_height_px or stride * width != config.input_width_px:
        raise BadInput(
            f"model.backbone: an input of {config.input_height_px}×{config.input_width_px} px gives maps of {height}×{width} cells, "
            "which is no whole number of pixels a cell, the same along both axes; give another input size"
        )
    return stride
