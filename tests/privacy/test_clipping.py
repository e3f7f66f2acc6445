"""Clipping bounds every row, whatever it holds; bounded sums add up and keep their bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dpcore.errors import BadInput
from dpcore.privacy.clipping import BoundedSum, clip_rows


@settings(max_examples=200, deadline=None)
@given(
    rows=nps.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 40)), elements=st.floats(width=32)),
    clip_norm=st.sampled_from([1e-12, 1e-7, 1e-6, 1e-3, 0.1, 1.0, 37.5, 1e6, 1e12]),
)
def test_no_row_is_longer_than_the_clip_norm(rows: np.ndarray, clip_norm: float) -> None:
    clipped = clip_rows(torch.from_numpy(rows), clip_norm).rows
    assert torch.isfinite(clipped).all()
    assert (clipped.double().norm(dim=1) <= clip_norm).all()


@pytest.mark.parametrize("clip_norm", [1e-12, 1e-7, 1.3e-5])
@pytest.mark.parametrize("length", [3.4e38, 1.4e38, 7.2e37, 9.9e30, 8.6e25, 1.3e20])
def test_the_longest_rows_keep_the_bound_where_float32_has_no_factor_for_them(clip_norm: float, length: float) -> None:
    rows = torch.tensor([[length], [3e-13], [-length]])  # in rows of several numbers the squares overflow first
    clipped = clip_rows(rows, clip_norm).rows.double()
    norms = clipped[[0, 2]].norm(dim=1)
    assert (norms <= clip_norm).all()
    assert (norms >= clip_norm * (1 - 3e-5)).all()
    assert torch.equal(clipped[0], -clipped[2])
    assert torch.equal(clipped[1], rows[1].double())


@pytest.mark.parametrize("size", [3, 1000, 300_000])
def test_clipped_norm_is_at_most_c_in_float64_and_close_to_it(size: int) -> None:
    rows = torch.randn(8, size, generator=torch.Generator().manual_seed(0)) * 50
    norms = clip_rows(rows, 0.7).rows.double().norm(dim=1)
    assert (norms <= 0.7).all()
    assert (norms >= 0.7 * (1 - 3e-5)).all()


@pytest.mark.parametrize("number", [0.1, 1.2345e-3, 7.7])
@pytest.mark.parametrize("size", [511, 300_001, 2_400_000])
def test_many_equal_numbers_keep_the_bound(size: int, number: float) -> None:
    """One float32 accumulator is off by 1e-4 over 300,000 equal numbers, by 4e-3 over 5.5 million: a row came out longer than C."""
    rows = torch.full((2, size), number)
    norms = clip_rows(rows, 1e-3).rows.double().norm(dim=1)
    assert (norms <= 1e-3).all()
    assert (norms >= 1e-3 * (1 - 3e-5)).all()


def test_short_rows_pass_unchanged_and_long_ones_keep_their_direction() -> None:
    rows = torch.tensor([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0]])
    clipped = clip_rows(rows, 1.0)
    assert torch.equal(clipped.rows[0], rows[0])
    assert torch.allclose(clipped.rows[1], torch.tensor([0.6, 0.8]), atol=2e-5)
    assert torch.equal(clipped.rows[2], rows[2])
    assert clipped.clipped.tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_a_row_that_is_not_finite_becomes_zero_and_leaves_the_others_alone(bad: float) -> None:
    rows = torch.tensor([[0.3, 0.4], [bad, 1.0], [0.1, 0.0]])
    total = clip_rows(rows, 1.0).sum()
    assert torch.allclose(total.value, torch.tensor([0.4, 0.4], dtype=torch.float64))
    assert (total.rows, total.nonfinite, total.clipped) == (3, 1, 0)


def test_no_rows_sum_to_zero() -> None:
    total = clip_rows(torch.zeros(0, 5), 1.0).sum()
    assert torch.equal(total.value, BoundedSum.empty(5, 1.0).value)
    assert total.rows == 0


def test_sums_over_parts_make_the_sum_over_all() -> None:
    rows = torch.randn(10, 7, generator=torch.Generator().manual_seed(3))
    parts = BoundedSum.empty(7, 1.0)
    for start in range(0, 10, 3):
        parts = parts.plus(clip_rows(rows[start : start + 3], 1.0).sum())
    whole = clip_rows(rows, 1.0).sum()
    assert torch.allclose(parts.value, whole.value, atol=1e-6)
    assert (parts.rows, parts.clipped, parts.l2_bound) == (whole.rows, whole.clipped, 1.0)


def test_sums_with_different_bounds_do_not_add() -> None:
    with pytest.raises(BadInput, match=r"bounds 1.0 and 2.0"):
        BoundedSum.empty(3, 1.0).plus(BoundedSum.empty(3, 2.0))
    with pytest.raises(BadInput, match="shapes"):
        BoundedSum.empty(3, 1.0).plus(BoundedSum.empty(4, 1.0))


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, 1e-13, 1e13])
def test_clip_norms_that_cannot_act_are_refused(clip_norm: float) -> None:
    with pytest.raises(BadInput, match="clip_norm"):
        clip_rows(torch.ones(1, 2), clip_norm)


def test_sealed_counts_do_not_print() -> None:
    text = repr(clip_rows(torch.full((3, 2), math.nan), 1.0).sum())
    assert "nonfinite" not in text
    assert "clipped" not in text
