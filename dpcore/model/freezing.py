"""Which parts of a network stay fixed, by name of the policy.

A network is a chain of named parts. A policy freezes a prefix of that chain, so that everything frozen is one function
of the image and its features can be computed once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from dpcore.errors import BadInput

Freeze = Literal["none", "early", "backbone"]

PARTS = ("early", "late", "head")
"""The chain, from the image to the logits. A backbone may lack `late`, none lacks `early` and `head`."""

FROZEN_PARTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "early": ("early",),
    "backbone": ("early", "late"),
}


def frozen_parts(freeze: Freeze, present: Sequence[str]) -> tuple[str, ...]:
    """The names of the parts that `freeze` keeps fixed, in chain order.

    Raises:
        BadInput: the policy is unknown, or means nothing for a network of these parts.
    """
    if freeze not in FROZEN_PARTS:
        raise BadInput(f"freeze {freeze}: unknown policy; expected one of {', '.join(FROZEN_PARTS)}")
    if freeze == "early" and "late" not in present:
        raise BadInput("freeze early: this backbone has no late block of its own; give backbone (head alone trains) or none")
    return tuple(name for name in FROZEN_PARTS[freeze] if name in present)


def freeze_module(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode with gradients off: BatchNorm there reads its stored statistics and never updates them."""
    return module.requires_grad_(False).eval()
