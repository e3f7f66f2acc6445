"""The prior of joint positions: from public labels or pools, the same for maps and marginals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpcore.data.pose_pool import read_pool
from dpcore.errors import BadInput
from dpcore.model.maps.prior import GRID, UNIFORM_FRAC, PositionPrior
from dpcore.pose.skeleton import MPII_16


def fitted() -> PositionPrior:
    """Joint 0 lies right below, joint 1 nowhere."""
    prior = PositionPrior(2)
    places = np.full((5, 2, 2), 0.0)
    places[:, 0] = [0.75, 0.6]
    prior.fit(places, np.array([[True, False]] * 5))
    return prior


def test_a_uniform_head_predicts_where_public_joints_are() -> None:
    prior = fitted()
    maps = torch.softmax(prior(torch.zeros(1, 2, 48, 48)).flatten(2), -1).view(1, 2, 48, 48)
    row, column = divmod(int(maps[0, 0].argmax()), 48)
    assert (abs(column - 36), abs(row - 28.8)) <= (1, 1.5)
    torch.testing.assert_close(maps[0, 1], torch.full((48, 48), 1 / 48**2))
    assert float(maps[0, 0].min()) == pytest.approx(UNIFORM_FRAC / 48**2, rel=0.3)
    x, y = prior((torch.zeros(1, 2, 96), torch.zeros(1, 2, 64)))
    assert abs(int(x[0, 0].argmax()) - 72) <= 2
    assert abs(int(y[0, 0].argmax()) - 38) <= 2
    assert float(x[0, 1].std()) == pytest.approx(0.0, abs=1e-6)


def test_nothing_of_it_trains_and_it_starts_uniform() -> None:
    prior, maps = PositionPrior(3), torch.randn(2, 3, 8, 8)
    assert not list(prior.parameters())
    assert torch.equal(prior(maps), maps)
    assert prior.log_prior.shape == (3, GRID, GRID)


def test_a_pool_is_cut_as_an_importer_cuts_and_mirrored(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    joints, labelled = generator.uniform(10, 90, size=(4, 16, 2)), np.ones((4, 16), dtype=bool)
    labelled[3, 2:] = False  # too few to know a box
    np.savez(tmp_path / "pool.npz", joints=joints, labelled=labelled)
    places, shown = read_pool(tmp_path / "pool.npz", MPII_16)
    assert places.shape == (6, 16, 2)
    assert bool(shown.all())
    spans = places.max(axis=1) - places.min(axis=1)
    np.testing.assert_allclose(spans.max(axis=1), 1 / 1.5)
    np.testing.assert_allclose((places.max(axis=1) + places.min(axis=1)) / 2, 0.5)
    np.testing.assert_allclose(places[3:, :, 0], 1 - places[:3][:, list(MPII_16.mirrored), 0])


def test_what_is_no_pool_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", joints=np.zeros((2, 3, 2)), labelled=np.ones((2, 3), dtype=bool))
    with pytest.raises(BadInput, match="mpii_16 has 16 joints"):
        read_pool(tmp_path / "other.npz", MPII_16)
    with pytest.raises(BadInput, match="is no pool of poses"):
        read_pool(tmp_path / "nothing.npz", MPII_16)
