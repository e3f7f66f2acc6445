"""`torch.func.vmap` over records, as the ways and rules of this room use it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def over_records(function: Callable[..., Any], *arguments: Any, in_dims: tuple[int | None, ...]) -> Any:
    """`function` of each record's part of the arguments. Random numbers are refused.

    Torch's fused attention has no batching rule and would run record by record, so attention is plain arithmetic here. Its note that an
    operator without such a rule is slow is silenced: the results are right.
    """
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        return torch.func.vmap(function, in_dims=in_dims, randomness="error")(*arguments)
