"""Predicted gains against gradients whose mean, noise and subspace are known."""

import math

import numpy as np
import pytest

from dpcore.advice.prediction import (
    Floats,
    Gradients,
    InnerProducts,
    Noise,
    Recipe,
    bare_moments,
    free_moments,
    kept_by,
    mean_cosine,
    moments_of,
    residual_ratio,
)

PEOPLE, SIZE = 400, 30
MEAN = np.zeros(SIZE)
MEAN[:2] = 0.6, 0.45
SPREAD = np.r_[np.full(5, 0.5), np.full(SIZE - 5, 0.12)]


def products(rows: Floats, views: Floats | None = None) -> InnerProducts:
    if views is None:
        return InnerProducts(dimension=rows.shape[1], plain=rows @ rows.T)
    return InnerProducts(dimension=rows.shape[1], plain=rows @ rows.T, cross=rows @ views.T, views=(views**2).sum(axis=1))


def gradients(rows: Floats, views: Floats | None = None, ranks: tuple[int, ...] = ()) -> Gradients:
    """Subspaces are those of the leading coordinates."""
    inside = {rank: products(rows[:, :rank], None if views is None else views[:, :rank]) for rank in ranks}
    return Gradients(full=products(rows, views), projected=inside)


@pytest.fixture(scope="module")
def rows() -> Floats:
    return np.asarray(np.random.default_rng(5).normal(MEAN, SPREAD, size=(PEOPLE, SIZE)))


def test_moments_are_those_of_the_law_that_the_gradients_are_drawn_from(rows: Floats) -> None:
    fisher = np.diag(SPREAD**2) + np.outer(MEAN, MEAN)
    found = bare_moments(gradients(rows))
    assert found.descent == pytest.approx(MEAN @ MEAN, rel=0.1)
    assert found.curvature == pytest.approx(MEAN @ fisher @ MEAN, rel=0.1)
    assert found.trace == pytest.approx(np.trace(fisher), rel=0.05)


def test_moments_leave_out_the_products_of_a_person_with_itself() -> None:
    """Of gradients without a mean nothing is gained; with the products of a person with itself it would look like much."""
    found = [bare_moments(gradients(np.random.default_rng(seed).normal(0, 1, size=(20, 500)))).descent for seed in range(40)]
    assert np.mean(found) == pytest.approx(0.0, abs=3 * np.std(found) / math.sqrt(40))
    assert abs(np.mean(found)) < 0.1 * 500 / 20


def test_gain_is_that_of_the_best_learning_rate_on_a_quadratic_loss(rows: Floats) -> None:
    found, noise, batch = bare_moments(gradients(rows)), 0.4, 20
    rates = np.linspace(0, 4, 4001)
    cost = found.curvature + found.sampling / batch + noise**2 * found.trace
    assert found.gain(noise, batch) == pytest.approx((rates * found.descent - rates**2 / 2 * cost).max(), rel=1e-5)


def test_what_drawing_a_batch_adds_is_measured(rows: Floats) -> None:
    """sᵀFs of a mean over B people, against many such means."""
    fisher, generator = np.diag(SPREAD**2) + np.outer(MEAN, MEAN), np.random.default_rng(8)
    means = generator.normal(MEAN, SPREAD / math.sqrt(5), size=(20_000, SIZE))
    found = bare_moments(gradients(rows))
    assert found.curvature + found.sampling / 5 == pytest.approx(np.einsum("bi,ij,bj->b", means, fisher, means).mean(), rel=0.1)


def test_the_growth_of_n_that_is_said_gives_the_gain_that_is_asked(rows: Floats) -> None:
    found, noise, batch = bare_moments(gradients(rows)), 2.0, 20
    asked = 2 * found.gain(noise, batch)
    growth = found.growth_for(asked, noise, batch)
    assert growth > 1
    assert found.gain(noise / growth, batch * growth) == pytest.approx(asked)
    assert found.growth_for(0.5 * found.gain(noise, batch), noise, batch) < 1
    assert found.growth_for(found.descent**2 / (2 * found.curvature), noise, batch) is None


def test_a_direction_that_leads_up_gains_nothing(rows: Floats) -> None:
    found = moments_of(gradients(rows, -rows), Recipe(public_weight=1.0, rank=None, clip_norm=1e-9))
    assert found.descent < 0
    assert found.gain(0.0, 20) == 0
    assert found.growth_for(1e-9, 0.1, 20) is None


def test_a_view_that_hides_nothing_leaves_no_residual_and_gains_all_that_is_free(rows: Floats) -> None:
    both = gradients(rows, rows)
    assert residual_ratio(both.full, 1.0) == pytest.approx(0.0, abs=1e-6)
    assert mean_cosine(both.full) == pytest.approx(1.0)
    feature = moments_of(both, Recipe(public_weight=1.0, rank=None, clip_norm=1e-3))
    plain = moments_of(both, Recipe(public_weight=None, rank=None, clip_norm=1.0))
    noise = Noise(noise_multiplier=3.0, sampling_prob=0.05, examples=60)
    of_feature = feature.gain(noise.stddev(Recipe(public_weight=1.0, rank=None, clip_norm=1e-3)), noise.batch)
    of_plain = plain.gain(noise.stddev(Recipe(public_weight=None, rank=None, clip_norm=1.0)), noise.batch)
    free = free_moments(both, 64)
    assert free is not None
    assert of_feature == pytest.approx(free.gain(0.0, noise.batch), rel=1e-3)
    assert free.gain(0.0, noise.batch) == pytest.approx(bare_moments(both).gain(0.0, 64))
    assert of_plain < 0.5 * of_feature


def test_a_view_without_relation_saves_no_noise(rows: Floats) -> None:
    views = np.random.default_rng(6).normal(0, 0.3, size=rows.shape)
    full = products(rows, views)
    assert min(residual_ratio(full, weight) for weight in (0.0, 0.25, 0.5, 0.75, 1.0)) == pytest.approx(1.0, abs=0.02)
    assert residual_ratio(full, 1.0) > 1.1


def test_a_weight_of_zero_is_the_method_without_views(rows: Floats) -> None:
    both = gradients(rows, np.random.default_rng(6).normal(0, 0.3, size=rows.shape))
    assert moments_of(both, Recipe(public_weight=0.0, rank=None, clip_norm=0.7)) == moments_of(
        gradients(rows), Recipe(public_weight=None, rank=None, clip_norm=0.7)
    )


def test_a_subspace_that_holds_the_mean_and_little_noise_pays(rows: Floats) -> None:
    found = gradients(rows, ranks=(2, SIZE))
    kept = kept_by(found, 2)
    assert kept.signal == pytest.approx(1.0, abs=0.02)
    assert kept.fisher == pytest.approx((2 * 0.25 + MEAN @ MEAN) / (np.sum(SPREAD**2) + MEAN @ MEAN), rel=0.1)
    noise = Noise(noise_multiplier=8.0, sampling_prob=0.05, examples=300)
    gains = {}
    for rank in (None, 2):
        recipe = Recipe(public_weight=None, rank=rank, clip_norm=1.0)
        gains[rank] = moments_of(found, recipe).gain(noise.stddev(recipe), noise.batch)
    assert gains[2] > 1.2 * gains[None]
    whole = Recipe(public_weight=None, rank=SIZE, clip_norm=1.0)
    assert moments_of(found, whole).gain(noise.stddev(whole), noise.batch) == pytest.approx(gains[None])


def test_a_clip_in_the_subspace_sees_the_projected_norm(rows: Floats) -> None:
    found = gradients(rows, ranks=(2,))
    before, after = (moments_of(found, Recipe(public_weight=None, rank=2, clip_norm=0.4, clips_after=late)) for late in (False, True))
    scale = np.minimum(1, 0.4 / np.linalg.norm(rows[:, :2], axis=1))
    mean = (scale[:, None] * rows[:, :2]).mean(axis=0)
    assert after.descent == pytest.approx(mean @ rows[:, :2].mean(axis=0), rel=0.02)
    assert before.descent < 0.8 * after.descent
