"""The small CPU backbone: stride-4 maps of 64x64 crops with a little top-down path.

No BatchNorm: GroupNorm couples no examples, so per-example gradients are defined in every layer. Shapes by the
legend of the project: B examples, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import ModelConfig, Places
from dpcore.errors import BadInput
from dpcore.model.built import BuiltBackbone, DrawsItself

SMALL_STRIDE_PX = 4
SMALL_CHANNELS = 32
_COARSEST_STRIDE_PX = 16


def _conv(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, ReLU. With `per_channel` every channel of every image is normalised by itself."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1, per_channel: bool = False) -> None:
        super().__init__()
        self.conv = _conv(channels_in, channels_out, kernel=kernel, stride=stride)
        self.norm = nn.GroupNorm(channels_out if per_channel else channels_out // 8, channels_out)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(maps)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.conv = _conv(channels, channels)
        self.norm = nn.GroupNorm(channels // 8, channels)

    def forward(self, maps: Tensor) -> Tensor:
        residual: Tensor = self.norm(self.conv(self.first(maps)))
        return functional.relu(maps + residual)


class SmallPyramid(nn.Module):
    """Bottom-up to stride 16 and back to stride 4 with lateral sums: (B,3,H,W) -> (B,32,H/4,W/4).

    Where a joint is depends on the whole body, which at stride 4 alone would take many layers of full-size maps;
    the coarse levels see the whole crop for a sixteenth of the arithmetic. The two finest levels normalise each channel
    of each image by itself, which takes lighting and colour out of the features (IBN-Net, Pan et al., ECCV 2018): from
    the public to the private synthetic domain, zero-shot PCKh@0.5 went from 45.2 to 48.8 % and that of a head trained
    without privacy from 47.5 to 50.6 % (500 public steps, flips, rotation and scale).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stride2 = ConvBlock(3, 16, stride=2, per_channel=True)
        self.stride4 = ConvBlock(16, SMALL_CHANNELS, stride=2, per_channel=True)
        self.stride8 = nn.Sequential(ConvBlock(SMALL_CHANNELS, 64, stride=2), ResidualBlock(64))
        self.stride16 = nn.Sequential(ConvBlock(64, 64, stride=2), ResidualBlock(64))
        self.down16 = ConvBlock(64, 64, kernel=1)
        self.merge8 = ConvBlock(64, 64)
        self.down8 = ConvBlock(64, SMALL_CHANNELS, kernel=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stride4(self.stride2(images))
        middle = self.stride8(fine)
        coarse = self.down16(self.stride16(middle))
        middle = self.merge8(middle + _twice_as_large(coarse))
        merged: Tensor = fine + _twice_as_large(self.down8(middle))
        return merged


def _twice_as_large(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")


def build_small(config: ModelConfig, places: Places | None, document: object) -> BuiltBackbone:
    """The small backbone: `early` is the pyramid, `late` the last block.

    Raises:
        BadInput: an input side is not a multiple of the coarsest stride.
    """
    height_px, width_px = config.input_height_px, config.input_width_px
    if height_px % _COARSEST_STRIDE_PX or width_px % _COARSEST_STRIDE_PX:
        raise BadInput(
            f"model.input_height_px {height_px} and model.input_width_px {width_px} must be multiples of "
            f"{_COARSEST_STRIDE_PX} for backbone small"
        )
    parts = {"early": SmallPyramid(), "late": ResidualBlock(SMALL_CHANNELS)}
    return BuiltBackbone(parts=parts, channels=SMALL_CHANNELS, stride_px=SMALL_STRIDE_PX)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draws every weight of `module` from `generator`: He normal for convolutions, 1/fan-in for linear maps, norms neutral.

    A module with `draw_weights` draws for itself. The order is that of `named_parameters`, so equal seeds give equal networks in every
    process. The last norm of a residual block starts at zero: the block starts as an identity, which trains faster without BatchNorm.

    Raises:
        BadInput: a layer has weights that this does not know; left alone, they would differ between processes.
    """
    if isinstance(module, DrawsItself):
        module.draw_weights(generator)
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_in = part.weight[0].numel()
            nn.init.normal_(part.weight, std=(2.0 / fan_in) ** 0.5, generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=generator)
        elif isinstance(part, nn.GroupNorm):
            nn.init.ones_(part.weight)
        elif any(part.parameters(recurse=False)):
            raise BadInput(f"{type(part).__name__}: how are its weights drawn? Give the backbone's part a draw_weights(generator)")
        bias = getattr(part, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    for part in module.modules():
        if isinstance(part, ResidualBlock):
            nn.init.zeros_(part.norm.weight)
