"""The subspace is orthonormal, holds the leading public directions, and is never clamped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.privacy.subspace import SubspaceBasis, fit_basis, fit_basis_in_place, orthonormality_error, room_for_rows


def random_rows(count: int, size: int, *, decay: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = decay ** torch.arange(count, dtype=torch.float64)
    left = torch.linalg.qr(torch.randn(count, count, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(size, count, generator=generator, dtype=torch.float64))[0]
    return (left * scales) @ right.T


@pytest.mark.parametrize("decay", [1.0, 0.8, 0.3])
def test_columns_are_orthonormal_on_any_spectrum(decay: float) -> None:
    basis = fit_basis(random_rows(40, 900, decay=decay).float(), 40)
    assert basis.directions is not None
    assert basis.directions.dtype == torch.float32
    assert orthonormality_error(basis.directions) <= 1e-5


def test_a_gram_basis_without_qr_is_refused() -> None:
    # mutant: V = Gᵀ U Λ^(-1/2) in float32, not orthonormal where the spectrum decays
    rows = random_rows(40, 900, decay=0.5).float()
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    directions = (rows.T @ vectors / values.abs().sqrt().clamp_min(1e-12)).T
    assert orthonormality_error(directions) > 1e-2
    with pytest.raises(BadInput, match=r"‖VᵀV − I‖ is"):
        SubspaceBasis(directions=directions, parameter_count=900)


def test_the_basis_spans_the_leading_directions() -> None:
    rows = random_rows(30, 200, decay=0.5)
    basis = fit_basis(rows.float(), 6)
    leading = torch.linalg.svd(rows, full_matrices=False)[2][:6]
    assert basis.directions is not None
    overlap = torch.linalg.svdvals(leading @ basis.directions.double().T)
    torch.testing.assert_close(overlap, torch.ones(6, dtype=torch.float64), atol=1e-4, rtol=0)


def test_projection_agrees_with_a_dense_one_and_raises_no_norm() -> None:
    basis = fit_basis(random_rows(20, 100).float(), 7)
    rows = torch.randn(9, 100, generator=torch.Generator().manual_seed(1))
    assert basis.directions is not None
    dense = rows @ (basis.directions.T @ basis.directions)
    coordinates = basis.project(rows)
    assert coordinates.shape == (9, 7)
    torch.testing.assert_close(torch.stack([basis.lift(row) for row in coordinates]), dense, atol=1e-5, rtol=1e-5)
    assert (coordinates.norm(dim=1) <= rows.norm(dim=1) * (1 + 1e-5)).all()
    torch.testing.assert_close(basis.diagonal(), torch.diagonal(basis.directions.T @ basis.directions))


@pytest.mark.parametrize(("count", "size"), [(40, 900), (30, 20), (150, 400)])
def test_a_smaller_basis_is_bit_for_bit_the_leading_part_of_a_larger_one(count: int, size: int) -> None:
    rows = torch.randn(count, size, generator=torch.Generator().manual_seed(3))
    rows[-1] = rows[0]  # the last direction is missing, and made up
    largest = fit_basis(rows, min(count, size))
    for rank in (1, 5, 20, *((64, 65, 149) if count == 150 else ())):
        part, own = largest.leading(rank, device=rows.device), fit_basis(rows, rank)
        assert part.directions is not None
        assert torch.equal(part.directions, own.directions)
        assert torch.equal(part.project(rows), own.project(rows))
        assert part.parameter_count == size
    with pytest.raises(BadInput, match="0 directions asked"):
        largest.leading(0, device=rows.device)


@pytest.mark.parametrize("decay", [1.0, 0.97, 0.9, 0.5])
def test_the_basis_captures_as_much_energy_as_an_exact_one(decay: float) -> None:
    """A flat spectrum has no leading directions to compare, and a steep one ends below float32: the energy is what counts."""
    rows = random_rows(150, 900, decay=decay).float()
    exact = torch.linalg.svd(rows.double(), full_matrices=False)[2]
    for rank in (16, 100):
        basis = fit_basis(rows, rank)
        assert basis.directions is not None
        ours, best = (float((rows.double() @ some.double().T).square().sum()) for some in (basis.directions, exact[:rank]))
        assert ours == pytest.approx(best, rel=1e-6)


def test_strongest_directions_come_first_and_each_is_the_exact_one_where_the_spectrum_is_separated() -> None:
    rows = random_rows(80, 700, decay=0.8).float()
    exact = torch.linalg.svd(rows.double(), full_matrices=False)[2]
    basis = fit_basis(rows, 30)
    assert basis.directions is not None
    torch.testing.assert_close((basis.directions.double() * exact[:30]).sum(dim=1).abs(), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize("rank", [3, 64, 70, 100])
def test_a_fit_in_place_writes_over_its_rows_and_gives_the_same_bits(rank: int) -> None:
    rows = random_rows(100, 40_000, decay=0.7).float()
    blocks = room_for_rows(100, 40_000, rank, device=rows.device)
    for block, part in zip(blocks, torch.split(rows, [len(block) for block in blocks]), strict=True):
        block.copy_(part)
    before = rows.clone()
    own = fit_basis(rows, rank)
    basis = fit_basis_in_place(blocks, rank)
    assert basis.directions is not None
    assert own.directions is not None
    assert basis.directions.data_ptr() == blocks[0].data_ptr()
    assert torch.equal(basis.directions, own.directions)
    assert torch.equal(rows, before)
    with pytest.raises(BadInput, match=r"rank 101 .* 100 gradients"):
        room_for_rows(100, 40_000, 101, device=rows.device)


@pytest.mark.parametrize("missing", ["equal rows", "zero rows", "as many parameters as directions"])
def test_missing_directions_are_orthonormal_too(missing: str) -> None:
    rows = torch.randn(90, 80 if missing.startswith("as") else 300, generator=torch.Generator().manual_seed(4))
    rows[20:] = 0.0 if missing == "zero rows" else rows[:70].clone() if missing.startswith("as") else rows[0]
    basis = fit_basis(rows, 80)
    assert basis.directions is not None
    assert orthonormality_error(basis.directions) <= 1e-5
    torch.testing.assert_close(basis.project(rows).norm(dim=1), rows.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_rank_above_the_number_of_gradients_names_both() -> None:
    with pytest.raises(BadInput, match=r"rank 8 .* 4 gradients of 100 parameters"):
        fit_basis(torch.randn(4, 100), 8)
    with pytest.raises(BadInput, match=r"rank 5 .* 3 parameters"):
        fit_basis(torch.randn(9, 3), 5)
    with pytest.raises(BadInput, match="rank 0"):
        fit_basis(torch.randn(4, 100), 0)


def test_missing_directions_are_completed_not_clamped() -> None:
    rows = torch.randn(1, 50, generator=torch.Generator().manual_seed(2)).expand(6, 50)
    basis = fit_basis(rows, 4)
    assert basis.rank == 4
    assert float(basis.project(rows[:1]).norm()) == pytest.approx(float(rows[0].norm()), rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_public_gradients_must_be_finite_and_not_all_zero(bad: float) -> None:
    with pytest.raises(BadInput, match="zero"):
        fit_basis(torch.zeros(4, 10), 2)
    rows = torch.ones(4, 10)
    rows[1, 3] = bad
    with pytest.raises(BadInput, match="not finite"):
        fit_basis(rows, 2)


def test_the_full_space_is_the_identity_bit_for_bit() -> None:
    basis, rows = SubspaceBasis.full(5), torch.randn(3, 5)
    assert basis.rank == 5
    assert basis.project(rows) is rows
    assert basis.lift(rows[0]).equal(rows[0])
    assert basis.diagonal().tolist() == [1.0] * 5


def test_a_basis_of_another_size_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\(R, 6\)"):
        SubspaceBasis(directions=torch.eye(5), parameter_count=6)
