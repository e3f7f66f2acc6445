"""Operations that write into their input, and how they are undone.

Hooks for per-example gradients read what a layer took and gave. `ReLU(inplace=True)` and `x += shortcut` overwrite exactly that. A module
says of itself that it works in place. What a `forward` does is seen only while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ELSEWHERE: Mapping[str, Callable[..., Tensor]] = {
    "add_": torch.Tensor.add,
    "sub_": torch.Tensor.sub,
    "mul_": torch.Tensor.mul,
    "div_": torch.Tensor.div,
    "relu_": torch.relu,
    "sigmoid_": torch.sigmoid,
    "clamp_": torch.clamp,
}


class OutOfPlace(TorchFunctionMode):
    """Within it `x += y` (and -=, *=, /=, relu_, sigmoid_, clamp_) makes a new tensor. `replaced` counts how often.

    A statement `x.add_(y)` that drops its result would lose it. The safe pass compares outputs and leaves such a network alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        new_tensor = _ELSEWHERE.get(getattr(func, "__name__", ""))
        if new_tensor is None:
            return func(*args, **(kwargs or {}))
        self.replaced += 1
        return new_tensor(*args, **(kwargs or {}))


def elsewhere(active: bool) -> AbstractContextManager[object]:
    """`OutOfPlace` where `active`, else nothing."""
    return OutOfPlace() if active else nullcontext()


class Chain(nn.Sequential):
    """Modules one after the other. With `out_of_place` nothing in them overwrites its input by `+=` and the like."""

    def __init__(self, modules: Iterable[nn.Module], *, out_of_place: bool = False) -> None:
        super().__init__(*modules)
        self.out_of_place = out_of_place

    def forward(self, inputs: Any) -> Any:
        with elsewhere(self.out_of_place):
            return super().forward(inputs)  # type: ignore[no-untyped-call]


def stop_in_place(network: nn.Module) -> tuple[str, ...]:
    """Sets `inplace` of every module to False. Gives their names."""
    names = []
    for name, module in network.named_modules():
        if getattr(module, "inplace", False):
            module.inplace = False
            names.append(name)
    return tuple(names)
