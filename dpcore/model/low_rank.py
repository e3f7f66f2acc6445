"""Low-rank matrices beside frozen weights (LoRA; Hu et al., ICLR 2022).

A layer gives W x + U D x. W stays, D (r × inputs) and U (outputs × r) train. U starts at zero, so the network starts as it was. A saved
model keeps the three apart: it holds the very tensors that were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dpcore.errors import BadInput
from dpcore.model.safety.batch_norm import replace


class LowRank(nn.Module):
    """A linear map or 1x1 convolution with a change of low rank beside it."""

    TRAINED = ("down", "up")

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down: nn.Module
        self.up: nn.Module
        if isinstance(base, nn.Linear):
            self.down, self.up = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)
        else:
            self.down = nn.Conv2d(base.in_channels, rank, 1, stride=base.stride, bias=False)  # type: ignore[arg-type]
            self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.base(inputs) + self.up(self.down(inputs))
        return outputs

    def draw_weights(self, generator: torch.Generator) -> None:
        """D normal with variance 1/inputs, U zero."""
        down, up = self.down.weight, self.up.weight
        nn.init.normal_(down, std=down[0].numel() ** -0.5, generator=generator)  # type: ignore[arg-type, index]
        nn.init.zeros_(up)  # type: ignore[arg-type]


def add_low_rank(parts: Mapping[str, nn.Module], rank: int, *, wanted: Callable[[str], bool]) -> int:
    """Puts a `LowRank` in the place of every plain linear map and 1x1 convolution of `parts` that is `wanted` by its name.

    Returns how many there are. A part that is such a layer itself is left out, because a part cannot replace itself.

    Raises:
        BadInput: there is none, or `rank` is more than one of them has inputs or outputs.
    """
    count = 0
    for part, module in parts.items():
        for name, layer in list(module.named_modules()):
            if not name or not _is_plain(layer) or not wanted(f"{part}.{name}.weight"):
                continue
            full = min(layer.weight.shape[:2])
            if rank > full:
                raise BadInput(
                    f"freeze lora {rank}: layer {name} of {part} has rank {full} at most; give at most {full}, or begin later by from"
                )
            replace(module, name, LowRank(layer, rank))
            count += 1
    if count == 0:
        raise BadInput(f"freeze lora {rank}: this backbone has no linear map and no 1x1 convolution there; give another policy")
    return count


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return True
    return type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
