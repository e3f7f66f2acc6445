"""Networks and batches for `bench_private_step.py`: ours, MoveNet's, a vision transformer, and two of timm."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig, Places
from dpcore.model.head import HeadShape, build_head
from dpcore.model.network import build_network, codec_of
from dpcore.privacy.per_example import Batch, Loss
from dpcore.train.evaluator import loss_of

MOVENET_LAYERS = ("b2.add", "b5.add", "b12.add", "fpn4.pw", "fpn8.pw", "heat.out", "center.out")
VIT_SIDE_PX, VIT_PATCH_PX, VIT_WIDTH = 192, 16, 192


class Missing(Exception):
    """A file or package that a network needs is not there."""


@dataclass(frozen=True)
class Problem:
    """A trainable tail, its loss, and a batch of random inputs with as many views."""

    tail: nn.Module
    loss: Loss
    batch: Batch
    views: Batch

    def of_few_in_float64(self, count: int) -> Problem:
        """The same on the first examples, with numbers that round so finely that no ReLU falls on its other side."""
        few = [some[:count] for some in (self.batch, self.views)]
        wide = [Batch(some.inputs.double(), some.keypoints.double(), some.visible) for some in few]
        return Problem(copy.deepcopy(self.tail).double(), self.loss, wide[0], wide[1])


def small(freeze: str, batch_size: int) -> Problem:
    """The small network on 64 x 64 crops, whole or its last block and head on the features below."""
    return _ours(ModelConfig(), Places(data_dir=Path(), cache_dir=Path()), freeze, batch_size)


def movenet(freeze: str, batch_size: int) -> Problem:
    """MoveNet Lightning with a marginal head on 192 x 192 crops: all layers, or the head on cached features."""
    data = Path(os.environ.get("DPSWEEP_SHARED", Path(__file__).parents[1].parent / "shared")) / "data"
    if not (data / "models" / "movenet_lightning_fp16.npz").is_file():
        raise Missing("movenet_lightning_fp16.npz is not in models below DPSWEEP_SHARED/data")
    values = {"backbone": "folded", "weights": "models/movenet_lightning", "feature_layers": MOVENET_LAYERS, "freeze": freeze}
    config = ModelConfig.model_validate({**values, "input_height_px": 192, "input_width_px": 192})
    return _ours(config, Places(data_dir=data, cache_dir=Path()), freeze, batch_size)


def _ours(config: ModelConfig, places: Places, freeze: str, batch_size: int) -> Problem:
    generator = torch.Generator().manual_seed(0)
    split = build_network(config, places, generator=generator).split(freeze)  # type: ignore[arg-type]
    images = _images(2 * batch_size, config.input_height_px, config.input_width_px, generator)
    with torch.no_grad():
        inputs = torch.cat([split.stem(some) for some in torch.split(images, 8)])
    return _problem(split.tail, config, inputs, generator)


def _images(count: int, height_px: int, width_px: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 3, height_px, width_px, generator=generator) * 2 - 1


def _problem(tail: nn.Module, config: ModelConfig, inputs: Tensor, generator: torch.Generator) -> Problem:
    count = len(inputs) // 2
    keypoints = torch.rand(count, 16, 2, generator=generator) * (config.input_height_px - 4)
    visible = torch.ones(count, 16, dtype=torch.bool)
    halves = [Batch(some.contiguous(), keypoints, visible) for some in torch.split(inputs, count)]
    return Problem(tail.train(), loss_of(codec_of(config)), halves[0], halves[1])


class _Block(nn.Module):
    """Attention and a perceptron beside identities, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, positions, width = tokens.shape
        q, k, v = self.qkv(self.norm1(tokens)).reshape(count, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, positions, width)
        tokens = tokens + self.proj(mixed)
        return tokens + self.fc2(nn.functional.gelu(self.fc1(self.norm2(tokens))))


class _Tokens(nn.Module):
    """ViT-tiny in torch alone: class token, position embedding, twelve blocks. (B, 3, 192, 192) -> (B, 145, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, VIT_WIDTH, VIT_PATCH_PX, stride=VIT_PATCH_PX)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, VIT_WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (VIT_SIDE_PX // VIT_PATCH_PX) ** 2 + 1, VIT_WIDTH))
        self.blocks = nn.Sequential(*(_Block(VIT_WIDTH, 3) for _ in range(12)))
        self.norm = nn.LayerNorm(VIT_WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens: Tensor = self.norm(self.blocks(torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed))
        return tokens


class _TokensToLogits(nn.Module):
    """A transformer's patch tokens on their grid, into a SimCC head."""

    def __init__(self, tokens: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tokens, self.head = tokens, head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = VIT_SIDE_PX // VIT_PATCH_PX
        logits: tuple[Tensor, Tensor] = self.head(self.tokens(images)[:, 1:].transpose(1, 2).reshape(len(images), -1, side, side))
        return logits


def vit_tiny(batch_size: int) -> Problem:
    """ViT-tiny in torch alone with a SimCC head on 192 x 192 crops."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(input_height_px=VIT_SIDE_PX, input_width_px=VIT_SIDE_PX)
    codec, side = codec_of(config), VIT_SIDE_PX // VIT_PATCH_PX
    shape = HeadShape(
        channels=VIT_WIDTH,
        grid_height=side,
        grid_width=side,
        height_px=VIT_SIDE_PX,
        width_px=VIT_SIDE_PX,
        bins_x=codec.bins_x,
        bins_y=codec.bins_y,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _TokensToLogits(_Tokens(), build_head("marginal", shape))
    return _problem(network, config, _images(2 * batch_size, VIT_SIDE_PX, VIT_SIDE_PX, generator), generator)


def of_timm(name: str, batch_size: int) -> Problem:
    """All layers of a network of timm with a marginal head on 192 x 192 crops."""
    if find_spec("timm") is None:
        raise Missing("the package timm is not installed")
    config = ModelConfig(backbone=f"timm:{name}", input_height_px=192, input_width_px=192)
    return _ours(config, Places(data_dir=Path(), cache_dir=Path()), "none", batch_size)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "small net, whole, 64": lambda: small("none", 64),
    "small net, last block and head, 64": lambda: small("early", 64),
    "MoveNet, all layers, 8": lambda: movenet("none", 8),
    "MoveNet head on cached features, 64": lambda: movenet("backbone", 64),
    "ViT-tiny + SimCC, 16": lambda: vit_tiny(16),
    "timm vit_tiny_patch16_224, all layers, 8": lambda: of_timm("vit_tiny_patch16_224", 8),
    "timm tiny_vit_5m_224, all layers, 8": lambda: of_timm("tiny_vit_5m_224", 8),
}
