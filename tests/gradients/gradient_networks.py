"""Small networks of every kind that a way to rows can get wrong, their loss, and a loop of one example in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.privacy.per_example import Batch


def output_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Not linear in the outputs, so that backprops differ between positions and examples."""
    outputs = module(batch.inputs).flatten(1)
    weights = torch.linspace(-1.0, 1.0, outputs.shape[1], dtype=outputs.dtype)
    return (torch.sin(outputs) * weights).sum(1) + 0.1 * outputs.square().sum(1)


def examples(count: int, shape: tuple[int, ...], *, seed: int) -> Batch:
    """Inputs (count, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator)
    return Batch(inputs, torch.zeros(count, 1, 2), torch.ones(count, 1, dtype=torch.bool))


def oracle(module: nn.Module, batch: Batch, loss: Callable[[nn.Module, Batch], Tensor] = output_loss) -> Tensor:
    """Rows (B, P) float64: one backward pass for each example alone, in float64."""
    wide = copy.deepcopy(module).double().train()
    trained = [p for p in wide.parameters() if p.requires_grad]
    rows = []
    for one in batch.chunks(1):
        single = Batch(one.inputs.double() if one.inputs.is_floating_point() else one.inputs, one.keypoints.double(), one.visible)
        found = torch.autograd.grad(loss(wide, single).sum(), trained, allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, trained, strict=True)]))
    return torch.stack(rows)


class Small(nn.Module):
    """Convolution, norm, depthwise, and a Linear that is used twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.shared = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.depthwise(torch.relu(self.norm(self.conv(images))))
        return torch.cat([self.shared(maps.mean(2).transpose(1, 2)), self.shared(maps.mean(3).transpose(1, 2))], dim=1)


class WindowAttention(nn.Module):
    """Attention in windows that lie in the batch dimension, with biases by relative position: TinyViT's and Swin's way."""

    apart: Tensor

    def __init__(self, channels: int = 8, heads: int = 2, window: int = 2) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        offsets = (2 * window - 1) ** 2
        self.attention_biases = nn.Parameter(torch.randn(heads, offsets))
        places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = places[:, None] - places[None, :] + window - 1
        self.register_buffer("apart", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def forward(self, windows: Tensor) -> Tensor:
        """(B·n, T, C) to the same."""
        count, positions, channels = windows.shape
        q, k, v = self.qkv(self.norm(windows)).reshape(count, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * (channels // self.heads) ** -0.5 + self.attention_biases[:, self.apart]
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(count, positions, channels))


class Windowed(nn.Module):
    """Maps (B, C, H, W) through attention in windows of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.attention = WindowAttention()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.embed(images)
        count, channels, height, width = maps.shape
        windows = maps.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, channels)
        return (windows + self.attention(windows)).reshape(count, -1)


class Tokens(nn.Module):
    """A vision transformer's start: class token and position embedding as bare parameters, then a scale of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 6))
        self.gamma = nn.Parameter(torch.randn(6))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        return self.head(self.norm(tokens) * self.gamma)


class Tied(nn.Module):
    """One weight in two layers, once transposed and functional."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.up(torch.tanh(self.down(inputs))) + functional.linear(torch.sin(inputs[..., :4]), self.down.weight.T)


class LowRank(nn.Module):
    """A frozen Linear with a trained low-rank part beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 5).requires_grad_(False)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.frozen(inputs) + 0.5 * self.up(self.down(inputs))


class BareLowRank(nn.Module):
    """The same with bare matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 5).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.frozen(inputs) + inputs @ self.down.T @ self.up.T


class WordsAndPlaces(nn.Module):
    """Embeddings of tokens and of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4, padding_idx=0)
        self.places = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = (inputs.detach().nan_to_num(0.0, 0.0, 0.0) * 2).long().clamp(0, 6)
        return self.head(torch.tanh(self.words(tokens) + self.places(torch.arange(6)) + inputs.unsqueeze(-1)))


class FrozenNorm(nn.Module):
    """A BatchNorm's affine part alone, on stored statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.weight, self.bias = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.randn(4))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("var", torch.rand(4) + 0.5)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(functional.batch_norm(self.conv(images), self.mean, self.var, self.weight, self.bias, training=False))


class SelfAttention(nn.Module):
    """torch's own attention, which uses its weights without its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.attention(inputs, inputs, inputs, need_weights=False)[0]
        return outputs


class TimmNorm(nn.LayerNorm):
    """A layer norm of another type that computes the same, as timm's."""

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.layer_norm(tokens, self.normalized_shape, self.weight, self.bias, self.eps)


class Standardised(nn.Conv2d):
    """A convolution of another type that computes something else: with a standardised weight."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.conv2d(images, self.weight / self.weight.std(), self.bias, padding=1)


class LayerScale(nn.Module):
    """A gain for each channel, as in a vision transformer's residual branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Scaled(nn.Module):
    """A perceptron beside an identity, behind a norm of another type and before a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map, self.scale = TimmNorm(6), nn.Linear(6, 6), LayerScale(6)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.scale(torch.tanh(self.map(self.norm(tokens))))


class Switched(nn.Module):
    """Uses one of its layers as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes, self.uses_both = nn.Linear(4, 3), nn.Linear(4, 3), True

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.always(inputs)
        return outputs + self.sometimes(inputs) if self.uses_both else outputs


@dataclass(frozen=True)
class Network:
    """How a network is made, and the shape of one input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def made(self) -> tuple[nn.Module, tuple[int, ...]]:
        """The network at weights that are always the same."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make(), self.shape


IMAGE = (3, 8, 8)
NETWORKS = {
    "small": Network(Small, IMAGE),
    "strided dilated convolution": Network(lambda: nn.Conv2d(3, 6, 3, stride=2, dilation=2, padding=(1, 2)), IMAGE),
    "grouped convolution": Network(lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, (3, 1), groups=2, padding="same")), IMAGE),
    "depthwise convolution": Network(lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6, bias=False)), IMAGE),
    "convolution over a sequence": Network(lambda: nn.Conv1d(3, 4, 3, padding=2, stride=2), (3, 9)),
    "transposed convolution": Network(lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), IMAGE),
    **{
        f"padded by {mode}": Network(partial(nn.Conv2d, 3, 4, 3, padding=(1, 2), padding_mode=mode), IMAGE)
        for mode in ("reflect", "replicate", "circular")
    },
    **{
        f"patches padded by {mode}": Network(
            partial(nn.Conv2d, 9, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 0), padding_mode=mode, bias=False), (9, 5, 5)
        )
        for mode in ("zeros", "reflect", "circular")
    },
    "patches of the same size": Network(partial(nn.Conv2d, 20, 3, 3, padding="same"), (20, 4, 4)),
    "standardised convolution": Network(partial(Standardised, 3, 4, 3), IMAGE),
    "layer scale": Network(Scaled, (5, 6)),
    "linear over positions": Network(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (2, 3, 4)),
    "linear": Network(lambda: nn.Linear(4, 5), (4,)),
    "norms": Network(lambda: nn.Sequential(nn.GroupNorm(3, 3), nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 8, 8)), nn.GroupNorm(2, 4)), IMAGE),
    "windows": Network(Windowed, IMAGE),
    "tokens": Network(Tokens, IMAGE),
    "tied": Network(Tied, (3, 6)),
    "low rank": Network(LowRank, (3, 6)),
    "bare low rank": Network(BareLowRank, (3, 6)),
    "embeddings": Network(WordsAndPlaces, (6,)),
    "frozen batch norm": Network(FrozenNorm, IMAGE),
    "attention of torch": Network(SelfAttention, (4, 6)),
}
