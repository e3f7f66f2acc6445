"""The noise has the scale that the bound of the sum implies, and the check can tell another scale."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from scipy import stats

from dpcore.errors import BadInput
from dpcore.privacy.clipping import BoundedSum, clip_rows
from dpcore.privacy.noise import add_noise
from dpcore.privacy.randomness import PrivateStreams, SweepKey

ALPHA = 1e-6


def has_stddev(noise: np.ndarray, stddev: float) -> bool:
    """Two-sided χ² test of the variance, and Kolmogorov-Smirnov of the shape."""
    total = float(np.sum(noise**2)) / stddev**2
    tails = stats.chi2.sf(total, noise.size), stats.chi2.cdf(total, noise.size)
    return bool(min(*tails, stats.kstest(noise / stddev, "norm").pvalue) > ALPHA)


@pytest.fixture
def noise() -> np.ndarray:
    """20,000 noise values at multiplier 2.5 on a bound of 0.4: standard deviation 1."""
    stream = PrivateStreams(key=SweepKey.fresh(), trial_id="t").stream("noise", 0)
    bounded = BoundedSum(value=torch.full((20_000,), 3.0, dtype=torch.float64), l2_bound=0.4)
    return (add_noise(bounded, noise_multiplier=2.5, stream=stream).value - 3.0).numpy()


def test_noise_has_the_stated_scale(noise: np.ndarray) -> None:
    assert has_stddev(noise, 1.0)


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.8, 0.9, 1.1, 1.5])
def test_noise_of_another_scale_is_rejected(noise: np.ndarray, factor: float) -> None:
    assert not has_stddev(noise * factor, 1.0)


def test_noise_takes_its_scale_from_the_sum_alone() -> None:
    assert set(inspect.signature(add_noise).parameters) == {"bounded", "noise_multiplier", "stream"}


def test_an_empty_sum_is_noised_like_any_other() -> None:
    stream = PrivateStreams(key=SweepKey.fresh(), trial_id="t").stream("noise", 0)
    noised = add_noise(BoundedSum.empty(1000, 2.0), noise_multiplier=1.5, stream=stream)
    assert noised.noise_stddev == 3.0
    assert noised.value.dtype == torch.float64
    assert has_stddev(noised.value.numpy(), 3.0)


@pytest.mark.parametrize("noise_multiplier", [0.0, -1.0, math.nan, math.inf])
def test_a_release_without_noise_cannot_be_asked_for(noise_multiplier: float) -> None:
    stream = PrivateStreams(key=SweepKey.fresh(), trial_id="t").stream("noise", 0)
    with pytest.raises(BadInput, match="noise_multiplier"):
        add_noise(BoundedSum.empty(3, 1.0), noise_multiplier=noise_multiplier, stream=stream)


@pytest.mark.parametrize("noise_multiplier", [0.8437, 1.0449219, 17.351])
def test_the_noise_is_the_streams_normals_at_the_very_multiplier_and_bound(noise_multiplier: float) -> None:
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="t")
    bounded = BoundedSum(value=torch.linspace(-3.0, 5.0, 1000, dtype=torch.float64), l2_bound=0.0371)
    released = add_noise(bounded, noise_multiplier=noise_multiplier, stream=streams.stream("noise", 0))
    normals = torch.from_numpy(streams.stream("noise", 0).normal(1000))
    assert released.noise_stddev == noise_multiplier * 0.0371
    torch.testing.assert_close(released.value, bounded.value + noise_multiplier * 0.0371 * normals, rtol=1e-14, atol=1e-15)


def test_sum_and_noise_meet_in_float64() -> None:
    """In float32 the gaps between numbers, wide at a large sum, would tell the sum."""
    rows = [torch.full((1, 64), value) for value in (1.0, 1e-6, 1e-7)]
    total = BoundedSum.empty(64, 100.0)
    for one in rows:
        total = total.plus(clip_rows(one, 100.0).sum())
    assert total.value[0].item() == pytest.approx(1.0 + 1.1e-6, abs=1e-13)
    released = add_noise(total, noise_multiplier=1.0, stream=PrivateStreams(key=SweepKey.fresh(), trial_id="t").stream("noise", 0)).value
    assert released.dtype == torch.float64
    assert bool((released != released.to(torch.float32)).all())


def test_noise_keeps_the_resolution_of_float32() -> None:
    """In half precision 20,000 normals fall on a few hundred values, whatever the model's precision: the gaps tell the sum."""
    empty = BoundedSum(value=torch.zeros(20_000, dtype=torch.float64), l2_bound=1.0)
    released = add_noise(empty, noise_multiplier=1.0, stream=PrivateStreams(key=SweepKey.fresh(), trial_id="t").stream("noise", 0)).value
    assert len(torch.unique(released.to(torch.float32))) > 19_900
