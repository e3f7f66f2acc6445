"""Tensors go to a GPU from pinned memory, and nobody waits for the copy; pictures go few at a time."""

from typing import Any

import torch

from dpcore.devices import on_device, pictures_at_once


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


def test_pictures_go_through_a_network_by_their_size_alone() -> None:
    """64 pictures of 256 px at once make maps that fit no cache: they took twice as long."""
    assert [pictures_at_once(torch.empty(count, 3, 256, 256)) for count in (1, 500)] == [4, 4]
    assert pictures_at_once(torch.empty(1, 3, 64, 48)) == 64
    assert pictures_at_once(torch.empty(1, 3, 1024, 1024)) == 1
    assert pictures_at_once(torch.empty(1, 3, 256, 256, device="meta")) == 64
