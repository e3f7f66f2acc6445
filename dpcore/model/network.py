"""A pose network: a chain of named parts, splittable into a frozen stem and a trainable tail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig, Places
from dpcore.errors import BadInput, Corrupt
from dpcore.model.backbones import initialise
from dpcore.model.built import BuiltBackbone, build_backbone
from dpcore.model.freezing import PARTS, Freeze, freeze_module, frozen_parts
from dpcore.model.head import HeadShape, MarginalHead, build_head
from dpcore.model.head_start import start_from_heat_maps
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.skeleton import MPII_16, Skeleton


@dataclass(frozen=True)
class SplitNetwork:
    """One network seen as two: `stem` fixed, in evaluation mode, without gradients; `tail` trains. They share their
    tensors with the network they came from. `stem_is_empty` where nothing is frozen: features are then the images."""

    stem: nn.Module
    tail: nn.Module
    stem_is_empty: bool


class PoseNetwork(nn.Module):
    """Images (B,3,H,W) in [-1, 1] to logits over x bins (B,K,Wx) and y bins (B,K,Wy)."""

    def __init__(self, parts: Mapping[str, nn.Module], *, document: Mapping[str, Any] | None = None) -> None:
        """From its parts; `document`: what a saved model must hold of the backbone."""
        super().__init__()
        self.document = document
        self.parts = nn.ModuleDict({name: parts[name] for name in PARTS if name in parts})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = images
        for part in self.parts.values():
            outputs = part(outputs)
        return outputs  # type: ignore[return-value]  # the last part is a head, whose output is the pair

    def split(self, freeze: Freeze) -> SplitNetwork:
        """The network as stem and tail under a freezing policy; sets which parameters require gradients.

        Raises:
            BadInput: the policy means nothing for this network.
        """
        frozen = frozen_parts(freeze, tuple(self.parts))
        stem = nn.Sequential(*(self.parts[name] for name in frozen))
        tail = nn.Sequential(*(part for name, part in self.parts.items() if name not in frozen))
        tail.requires_grad_(True).train()
        return SplitNetwork(stem=freeze_module(stem), tail=tail, stem_is_empty=not frozen)


def codec_of(config: ModelConfig) -> SimCCCodec:
    """The SimCC codec that a model's input size and bins imply."""
    return SimCCCodec(
        height_px=config.input_height_px,
        width_px=config.input_width_px,
        split_ratio=config.split_ratio,
        label_sigma_bins=config.label_sigma_bins,
    )


def build_network(config: ModelConfig, places: Places, *, generator: torch.Generator, skeleton: Skeleton = MPII_16) -> PoseNetwork:
    """A new network for the joints of `skeleton`: public weights where the config names some, the rest drawn from `generator`.

    Raises:
        BadInput: weights, layers or sizes do not fit. Corrupt: the stored network is damaged.
    """
    built = build_backbone(config, places)
    network = assemble_network(config, built, skeleton=skeleton)
    for name, part in network.parts.items():
        if name not in built.ready:
            initialise(part, generator)
    head = network.parts["head"]
    if config.head_start == "heatmap":
        start_from_heat_maps(head, built.layers, skeleton)
    elif isinstance(head, MarginalHead):
        head.start_interpolating()
    return network


def assemble_network(config: ModelConfig, built: BuiltBackbone, *, skeleton: Skeleton = MPII_16) -> PoseNetwork:
    """A backbone with a head on it for the joints of `skeleton`, whose weights are not yet set.

    Raises:
        BadInput: the input size is no multiple of the backbone's stride.
    """
    stride_px = built.stride_px
    if config.input_height_px % stride_px or config.input_width_px % stride_px:
        raise BadInput(
            f"model.input_height_px {config.input_height_px} and input_width_px {config.input_width_px}: give multiples of {stride_px}"
        )
    codec = codec_of(config)
    shape = HeadShape(
        channels=built.channels,
        grid_height=config.input_height_px // stride_px,
        grid_width=config.input_width_px // stride_px,
        height_px=config.input_height_px,
        width_px=config.input_width_px,
        bins_x=codec.bins_x,
        bins_y=codec.bins_y,
        joints=skeleton.count,
        sharpness=config.marginal_sharpness,
    )
    return PoseNetwork({**built.parts, "head": build_head(config.head, shape)}, document=built.document)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Sets every weight of `module` from `state`; nothing is dropped and nothing is left over.

    Raises:
        Corrupt: names or shapes differ; the message names the first of them.
    """
    own = module.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in sorted(own.keys() & state.keys()) if own[name].shape != state[name].shape]
    if missing or surplus or shapes:
        raise Corrupt(f"{where}: weights do not fit the network (missing {missing[:3]}, unknown {surplus[:3]}, other shape {shapes[:3]})")
    module.load_state_dict(dict(state))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """32 hex digits of sha256 over names, shapes and bytes of a state, in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:32]
