"""A gain for each channel of a layer whose norm was folded away: the number by which the norm once multiplied it, now 1.

With it a folded network has the kinds `gain` and `norm` of `model.freeze`, at two numbers a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gained(nn.Module):
    """A convolution without bias, then gain · x + bias by channel. It starts as the convolution that it was made of.

    Gain and bias are the weights of a 1x1 convolution by channel, whose per-example gradients are known to every engine.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        channels = layer.out_channels
        self.affine = nn.Conv2d(channels, channels, 1, groups=channels)
        with torch.no_grad():
            nn.init.ones_(self.affine.weight)
            if self.affine.bias is not None:
                nn.init.zeros_(self.affine.bias)
                if layer.bias is not None:
                    self.affine.bias.copy_(layer.bias)
        layer.register_parameter("bias", None)
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        outputs: Tensor = self.affine(self.layer(maps))
        return outputs
