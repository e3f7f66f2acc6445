"""Laws of a private step on the examples that break a careless one: antipodal records, pairs, bases that stretch.

The patches in tests/mutants show that each of these can fail.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dpcore.privacy import basis_fit
from dpcore.privacy.subspace import SubspaceBasis, fit_basis_in_place

SIZE = 6
CLIP_NORM = 1.0
METHODS = ["dpsgd", "projected", "feature", "feature_projected"]


def axis(*values: float) -> Tensor:
    """Records along the first axis: antipodal pairs are the worst case of a wrong clip."""
    rows = torch.zeros(len(values), SIZE)
    rows[:, 0] = torch.tensor(values)
    return rows


def largest_move(toy: Any, method: str, inputs: Tensor, views: Tensor) -> float:
    """How far the private sum moves, in clip norms, when the worst record is removed; q = 1, hardly any noise."""
    config = toy.config(method, clip_norm=CLIP_NORM)

    def private_sum(kept: list[int]) -> Tensor:
        source = toy.source(inputs[kept], views[kept])
        fixed = toy.source(torch.cat([views, torch.zeros(8, SIZE)]))
        direction = toy.mechanism(config, source, noise_multiplier=1e-6, views=fixed).direction(0)
        public = 0.0 if direction.public_term is None else direction.public_term
        return (direction.value - public) * config.stages.private.expected_batch_size

    everyone = list(range(len(inputs)))
    whole = private_sum(everyone)
    return max(float((whole - private_sum([i for i in everyone if i != gone])).norm()) for gone in everyone) / CLIP_NORM


@pytest.mark.parametrize("method", METHODS)
def test_no_antipodal_record_or_pair_moves_the_sum_by_more_than_the_clip_norm(toy: Any, method: str) -> None:
    assert largest_move(toy, method, axis(10.0, -20.0, 0.5), axis(-10.0, 20.0, -0.5)) <= 1.0 + 1e-4


def test_a_basis_that_stretches_cannot_raise_the_sensitivity(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clip in R^k is what the guarantee rests on; without it a basis of norm 2.4 would break the bound."""

    def stretched(rows: list[Tensor], rank: int) -> SubspaceBasis:
        basis = fit_basis_in_place(rows, rank)
        object.__setattr__(basis, "directions", 2.4 * torch.eye(SIZE)[:rank])
        return basis

    monkeypatch.setattr(basis_fit, "fit_basis_in_place", stretched)
    config = toy.config("projected", clip_norm=CLIP_NORM)
    direction = toy.mechanism(config, toy.source(axis(10.0)), noise_multiplier=1e-6).direction(0)
    assert float(direction.value.norm()) * config.stages.private.expected_batch_size / 2.4 <= 1.0 + 1e-4


def test_the_release_moves_in_as_many_dimensions_as_the_rank_that_was_asked(toy: Any) -> None:
    """k = 100 meant k = 4 where gradients came as means of four batches and min(rank, 4) hid it."""
    public = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(5))
    mechanism = toy.mechanism(toy.config("projected"), toy.source(torch.zeros(0, SIZE)), public=public, physical=3)
    released = torch.stack([mechanism.direction(step).value for step in range(12)]).double()
    spectrum = torch.linalg.svdvals(released)
    assert int((spectrum > 1e-4 * spectrum[0]).sum()) == 3
    basis = mechanism.basis.directions.T
    drawn = mechanism._sources.public.read
    own = torch.cat([public[rows] for rows in drawn]).double()
    leading = torch.linalg.svd(own, full_matrices=False)[2][:3]
    assert float(torch.linalg.matrix_norm(leading @ basis.double(), ord=2)) == pytest.approx(1.0, abs=1e-5)
    assert float(torch.linalg.svdvals(leading @ basis.double()).min()) == pytest.approx(1.0, abs=1e-4)


def test_no_two_steps_share_their_noise(toy: Any) -> None:
    mechanism = toy.mechanism(toy.config("dpsgd"), toy.source(torch.zeros(0, SIZE)))
    released = [mechanism.direction(step).value for step in range(4)]
    assert not any(torch.equal(a, b) for i, a in enumerate(released) for b in released[:i])
