"""A private step makes the host wait for nothing. On a GPU each look at a number would. Here that code runs on a CPU, and is watched."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpcore.gradients import norms
from dpcore.gradients.norms import weighted_rows
from dpcore.privacy import clipping
from dpcore.privacy.clipping import clip_rows

LOOKS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select")


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Hears of every operator that gives the host a number, or whose size depends on one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() in LOOKS:
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device whose numbers the host has to wait for."""
    for module in (norms, clipping):
        monkeypatch.setattr(module, "host_reads_free", lambda tensor: False)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dpsgd", {}),
        ("feature", {"public_weight": 0.5}),
        ("projected", {}),
        ("projected", {"subspace.order": "project_then_clip"}),
    ],
)
def test_a_step_looks_at_no_number_until_its_sealed_facts_are_asked_for(
    method: str, changes: dict[str, Any], toy: Any, elsewhere: None
) -> None:
    rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    rows[3] = math.nan
    private = toy.source(rows, views=0.5 * rows) if "feature" in method else toy.source(rows)
    mechanism = toy.mechanism(toy.config(method, **changes), private)
    mechanism.direction(0)  # proves the way to rows, and fits the subspace
    with Watched() as watched:
        direction = mechanism.direction(1)
        assert watched.seen == []
        assert direction.sealed.mean_loss is not None
        assert watched.seen == ["aten::_local_scalar_dense"]


def test_a_weighted_sum_is_the_same_wherever_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows left out hold anything; the factor of the last has no normal float32, and its row is as long as float32 goes."""
    rows = torch.tensor([[1.0, -2.0], [math.nan, math.inf], [3.0, 0.5], [-2.1e38, 1.7e38]])
    factors = torch.tensor([0.25, 0.0, 1.0, 1.37e-39], dtype=torch.float64)
    here = weighted_rows(rows, factors)
    monkeypatch.setattr(norms, "host_reads_free", lambda tensor: False)
    there = weighted_rows(rows, factors)
    torch.testing.assert_close(there, here, rtol=1e-6, atol=0.0)
    expected = [0.25 + 3.0 - 2.1e38 * 1.37e-39, -0.5 + 0.5 + 1.7e38 * 1.37e-39]
    assert there.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip_norm", [1e-12, 1e-7, 0.37])
def test_a_clip_keeps_its_bound_where_the_host_does_not_look(clip_norm: float, elsewhere: None) -> None:
    """At C = 1e-7 a factor of few digits brought a row of the single number 1.4e38 to 1.98 C."""
    rows = torch.tensor([[1.4e38], [-3e37], [1e-3 * clip_norm], [0.0]])
    clipped: Tensor = clip_rows(rows, clip_norm).rows.to(torch.float64).squeeze(1)
    assert (clipped.abs() <= clip_norm).all()
    assert clipped.tolist() == pytest.approx([clip_norm, -clip_norm, 1e-3 * clip_norm, 0.0], rel=2e-5, abs=0.0)
