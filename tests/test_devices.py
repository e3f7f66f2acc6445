"""Tensors go to a GPU from pinned memory, and nobody waits for the copy."""

from typing import Any

import torch

from dpcore.devices import on_device


class Told:
    """A tensor on a CPU that hears what is asked of it: there may be no GPU here."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def pin_memory(self) -> "Told":
        self.asked.append("pinned")
        return self

    def to(self, *given: Any, **named: Any) -> "Told":
        self.asked.append((given, named))
        return self


def test_a_copy_to_a_gpu_leaves_from_pinned_memory_and_is_not_waited_for() -> None:
    tensor: Any = Told()
    on_device(tensor, torch.device("cuda"))
    assert tensor.asked == ["pinned", ((torch.device("cuda"),), {"non_blocking": True})]


def test_on_a_cpu_nothing_is_copied() -> None:
    here = torch.arange(3)
    assert on_device(here, torch.device("cpu")) is here
