"""Mechanisms that are broken on purpose: each law holds for ours and fails for its mutant, or the law would prove nothing.

The mutants are the ways in which published code broke its guarantee and the usual slips of the pen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.privacy import mechanism as mechanism_module
from dpcore.privacy import per_example
from dpcore.privacy.accounting import Spending, calibrate, epsilon_of
from dpcore.privacy.clipping import BoundedSum, ClippedRows, clip_rows
from dpcore.privacy.mechanism import Mechanism
from dpcore.privacy.noise import NoisedSum
from dpcore.privacy.per_example import GradientEngine, RowsAndLosses
from dpcore.privacy.randomness import PrivateStreams, SweepKey, poisson_sample
from dpcore.privacy.subspace import SubspaceBasis, fit_basis

SIZE = 6
CLIP_NORM = 1.0
Patch = pytest.MonkeyPatch


def axis(*values: float) -> Tensor:
    """Records along the first axis: antipodal pairs are the worst case of a wrong clip."""
    rows = torch.zeros(len(values), SIZE)
    rows[:, 0] = torch.tensor(values)
    return rows


def largest_move(toy: Any, method: str, inputs: Tensor, views: Tensor, **changes: Any) -> float:
    """How far the private sum moves, in clip norms, when the worst record is removed; q = 1, hardly any noise."""
    config = toy.config(method, clip_norm=CLIP_NORM, **changes)

    def private_sum(kept: list[int]) -> Tensor:
        source = toy.source(inputs[kept], views[kept])
        fixed = toy.source(torch.cat([views, torch.zeros(8, SIZE)]))
        direction = toy.mechanism(config, source, noise_multiplier=1e-6, views=fixed).direction(0)
        public = 0.0 if direction.public_term is None else direction.public_term
        return (direction.value - public) * config.stages.private.expected_batch_size

    everyone = list(range(len(inputs)))
    whole = private_sum(everyone)
    return max(float((whole - private_sum([i for i in everyone if i != gone])).norm()) for gone in everyone) / CLIP_NORM


def bounded(toy: Any, method: str, **changes: Any) -> bool:
    """The law of sensitivity on antipodal records and pairs."""
    inputs, views = axis(10.0, -20.0, 0.5), axis(-10.0, 20.0, -0.5)
    return largest_move(toy, method, inputs, views, **changes) <= 1.0 + 1e-4


@pytest.mark.parametrize("method", ["dpsgd", "projected", "feature", "feature_projected"])
def test_our_sum_is_bounded(toy: Any, method: str) -> None:
    assert bounded(toy, method)


def test_no_clip_is_caught(toy: Any, monkeypatch: Patch) -> None:
    def no_clip(rows: Tensor, clip_norm: float) -> ClippedRows:
        never = torch.zeros(len(rows), dtype=torch.bool)
        return ClippedRows(rows=rows, l2_bound=clip_norm, clipped=never, nonfinite=never)

    monkeypatch.setattr(mechanism_module, "clip_rows", no_clip)
    assert not bounded(toy, "dpsgd")


def test_clip_after_the_sum_is_caught(toy: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr(mechanism_module, "clip_rows", lambda rows, clip_norm: clip_rows(rows.sum(0, keepdim=True), clip_norm))
    assert not bounded(toy, "dpsgd")


def test_two_rows_a_record_are_caught(toy: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr(per_example, "merge_pair_rows", lambda rows: rows)
    assert not bounded(toy, "feature")


def test_hooks_on_in_the_public_pass_are_caught(toy: Any, monkeypatch: Patch) -> None:
    """The public rows land in the private sum."""

    def leaky(self: GradientEngine, batch: Any, views: Any, public_weight: float) -> RowsAndLosses:
        own = self.rows_and_losses(batch)
        return RowsAndLosses(torch.cat([own.rows, -public_weight * self.rows(views)]), own.losses)

    monkeypatch.setattr(GradientEngine, "residual_rows_and_losses", leaky)
    assert not bounded(toy, "feature")


def test_a_basis_that_stretches_cannot_raise_the_sensitivity(toy: Any, monkeypatch: Patch) -> None:
    """The clip in R^k is what the guarantee rests on; without it a basis of norm 2.4 would break the bound."""

    def stretched(rows: Tensor, rank: int) -> SubspaceBasis:
        basis = fit_basis(rows, rank)
        assert basis.matrix is not None
        object.__setattr__(basis, "matrix", 2.4 * torch.eye(SIZE)[:, :rank])
        return basis

    def clip_once(self: Mechanism, rows: Tensor, basis: SubspaceBasis, clip_norm: float) -> BoundedSum:
        projected = basis.project(clip_rows(rows, clip_norm).rows)
        return BoundedSum(value=projected.sum(0).double(), l2_bound=clip_norm)

    def summed_norm() -> float:
        config = toy.config("projected", clip_norm=CLIP_NORM)
        direction = toy.mechanism(config, toy.source(axis(10.0)), noise_multiplier=1e-6).direction(0)
        return float(direction.value.norm()) * config.stages.private.expected_batch_size / 2.4

    monkeypatch.setattr(mechanism_module, "fit_basis", stretched)
    assert summed_norm() <= 1.0 + 1e-4
    monkeypatch.setattr(Mechanism, "_bounded", clip_once)
    assert summed_norm() > 2.3


def noise_rank(toy: Any) -> int:
    """The dimension of the space in which a projected mechanism of rank 3 moves, from what it releases."""
    mechanism = toy.mechanism(toy.config("projected"), toy.source(torch.zeros(0, SIZE)))
    spectrum = torch.linalg.svdvals(torch.stack([mechanism.direction(step).value for step in range(12)]).double())
    return int((spectrum > 1e-4 * spectrum[0]).sum())


def test_a_clamped_rank_is_caught(toy: Any, monkeypatch: Patch) -> None:
    """k = 100 meant k = 4, hidden by min(rank, 4)."""
    assert noise_rank(toy) == 3
    monkeypatch.setattr(mechanism_module, "fit_basis", lambda rows, rank: fit_basis(rows[:2], min(rank, 2)))
    assert noise_rank(toy) == 2


def test_a_basis_without_qr_is_caught(toy: Any, monkeypatch: Patch) -> None:
    def gram_only(rows: Tensor, rank: int) -> SubspaceBasis:
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        return SubspaceBasis(matrix=rows.T @ vectors[:, -rank:] / values[-rank:].abs().sqrt(), parameter_count=rows.shape[1])

    decaying = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(0)) * 1e-3 ** torch.arange(SIZE)
    config = toy.config("projected")
    toy.mechanism(config, toy.source(axis(1.0)), public=decaying).direction(0)
    monkeypatch.setattr(mechanism_module, "fit_basis", gram_only)
    with pytest.raises(BadInput, match="VᵀV"):
        toy.mechanism(config, toy.source(axis(1.0)), public=decaying).direction(0)


def public_terms(toy: Any, key: SweepKey) -> Tensor:
    inputs = torch.randn(8, SIZE, generator=torch.Generator().manual_seed(1))
    config = toy.config("feature", **{"stages.private.expected_batch_size": 4})
    mechanism = toy.mechanism(config, toy.source(inputs, inputs), key=key)
    return torch.stack([mechanism.direction(step).public_term for step in range(4)])


def test_a_public_term_on_the_private_batch_is_caught(toy: Any, monkeypatch: Patch) -> None:
    """The noise-free gradient came from the batch that was to be amplified by its secrecy."""
    keys = SweepKey(bytes(32)), SweepKey(bytes([1]) * 32)
    assert torch.equal(public_terms(toy, keys[0]), public_terms(toy, keys[1]))

    def on_the_private_batch(self: Mechanism, step: int) -> Tensor:
        streams = self._randomness.private
        assert streams is not None
        indices = poisson_sample(streams.stream("sampling", step), 8, self._config.sampling_prob)
        return self._sources.views.batch(indices, None).inputs.sum(0)  # type: ignore[union-attr]

    monkeypatch.setattr(Mechanism, "_public_term", on_the_private_batch)
    assert not torch.equal(public_terms(toy, keys[0]), public_terms(toy, keys[1]))


def basis_of(toy: Any, private: Tensor) -> Tensor:
    mechanism = toy.mechanism(toy.config("projected"), toy.source(private))
    mechanism.direction(0)
    assert mechanism.basis is not None
    assert mechanism.basis.matrix is not None
    return mechanism.basis.matrix


def test_a_basis_from_private_data_is_caught(toy: Any, monkeypatch: Patch) -> None:
    """The first 100 private images served as the public subspace set."""
    first, second = (torch.randn(8, SIZE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(basis_of(toy, first), basis_of(toy, second))

    def from_private(self: Mechanism, step: int) -> SubspaceBasis:
        assert self._sources.private is not None
        return fit_basis(self._engine.rows(self._sources.private.batch(np.arange(6), None)), 3)

    monkeypatch.setattr(Mechanism, "_fit", from_private)
    assert not torch.equal(basis_of(toy, first), basis_of(toy, second))


def noise_passes(toy: Any) -> bool:
    """Whether the released noise has the claimed scale, within 8 %: six standard errors of 4,800 numbers are 6 %."""
    mechanism = toy.mechanism(toy.config("dpsgd"), toy.source(torch.zeros(0, SIZE)), key=SweepKey.fresh(), noise_multiplier=2.0)
    released = torch.stack([mechanism.direction(step).value for step in range(800)]).double()
    return abs(float(released.std()) / (2.0 * CLIP_NORM / 8) - 1.0) < 0.08


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.8, 1.5])
def test_noise_of_another_scale_is_caught(toy: Any, monkeypatch: Patch, factor: float) -> None:
    assert noise_passes(toy)
    honest: Callable[..., NoisedSum] = mechanism_module.add_noise
    monkeypatch.setattr(
        mechanism_module,
        "add_noise",
        lambda b, noise_multiplier, stream: honest(b, noise_multiplier=factor * noise_multiplier, stream=stream),
    )
    assert not noise_passes(toy)


def test_noise_that_repeats_from_step_to_step_is_caught(toy: Any, monkeypatch: Patch) -> None:
    def two_steps() -> bool:
        mechanism = toy.mechanism(toy.config("dpsgd"), toy.source(torch.zeros(0, SIZE)))
        return torch.equal(mechanism.direction(0).value, mechanism.direction(1).value)

    assert not two_steps()
    original = PrivateStreams.stream
    monkeypatch.setattr(PrivateStreams, "stream", lambda self, name, step: original(self, name, 0))
    assert two_steps()


def test_an_accountant_told_half_the_steps_is_caught() -> None:
    """Noise for half the steps overspends the whole, by far more than calibration is off."""
    noise = calibrate(0.05, 50, delta=1e-5, epsilon=1.0)
    assert epsilon_of(Spending(0.05, noise, 50), 1e-5) <= 1.0
    assert epsilon_of(Spending(0.05, noise, 100), 1e-5) > 1.2
