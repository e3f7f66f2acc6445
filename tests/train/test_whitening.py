"""`model.input_whitening: public`: fixed before the first stage, by PUBLIC pictures alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.synthetic import synth
from dpcore.errors import BadInput
from dpcore.model.freezing import WHITENING
from dpcore.model.maps.pyramid import Pyramid
from dpcore.model.maps.whitening import Whitening
from dpcore.privacy.randomness import SweepKey
from dpcore.train.stages import public_network
from dpcore.train.trainer import run_trial
from dpcore.train.trial_data import open_trial_data

Make = Callable[..., TrialConfig]
WHITE = {"model__input_whitening": "public", "model__freeze": "backbone", "stages__public__freeze": "backbone"}


def mixed(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) * torch.logspace(-0.3, 0.3, channels)[:, None]
    return torch.einsum("dc,bchw->bdhw", mixing, torch.randn(count, channels, 8, 8, generator=generator)) + 3.0


def covariance(maps: torch.Tensor) -> torch.Tensor:
    return torch.cov(maps.transpose(0, 1).flatten(1))


def test_every_direction_of_whitened_features_varies_alike() -> None:
    whitening, features = Whitening(6, None), mixed(20, 6)
    assert torch.equal(whitening(features), features)
    whitening.fit(torch.split(features, 7))
    found = whitening(features)
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.zeros(6), atol=1e-3, rtol=0)
    variances = covariance(found)
    torch.testing.assert_close(variances, torch.diag(variances.diagonal()), atol=1e-3, rtol=0)
    assert 0.2 < float(variances.diagonal().min()) <= float(variances.diagonal().max()) < 1.01


def test_the_maps_of_a_pyramid_are_whitened_level_by_level() -> None:
    pyramid = Pyramid(channels=(3, 4), strides_px=(4, 8))
    fine, coarse = mixed(12, 3, seed=1), mixed(12, 4, seed=2)[:, :, ::2, ::2]
    whitening = Whitening(pyramid.packed_channels, pyramid)
    whitening.fit([pyramid.pack([fine, coarse])])
    for one, other in zip(pyramid.unpack(whitening(pyramid.pack([fine, coarse]))), (fine, coarse), strict=True):
        alone = Whitening(other.shape[1], None)
        alone.fit([other])
        torch.testing.assert_close(one, alone(other))


def test_what_does_not_vary_is_refused() -> None:
    with pytest.raises(BadInput, match="do not vary at all"):
        Whitening(3, None).fit([torch.ones(4, 3, 2, 2)])
    with pytest.raises(BadInput, match="4 cells of public features do not give 9 variances"):
        Whitening(9, None).fit([torch.ones(1, 9, 2, 2)])


def test_no_private_record_moves_the_whitening_and_public_ones_do(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    places = train_places
    for name, domain, role in (("others", "private", "PRIVATE"), ("more", "public", "PUBLIC")):
        if not (places.data_dir / name).exists():
            synth(places.data_dir / name, domain, count=64, seed=9, role=role, name=name)

    def whitening(**data: Any) -> dict[str, torch.Tensor]:
        config = make_config("public_only", **WHITE, **data)
        opened = open_trial_data(config, places, runtime)
        return public_network(config, opened.public, places=places, runtime=runtime).parts[WHITENING].state_dict()

    ours, theirs, elsewhere = whitening(), whitening(data__private="others"), whitening(data__public="more")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(ours["axes_0"], elsewhere["axes_0"])
    assert not torch.equal(ours["axes_0"], torch.eye(len(ours["axes_0"])))


def test_a_private_trial_runs_on_whitened_features_and_its_stem_holds_them(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    config = make_config("dpsgd", **WHITE)
    network = public_network(config, open_trial_data(config, train_places, runtime).public, places=train_places, runtime=runtime)
    split = network.split("backbone")
    assert [name for name, _ in split.tail.named_parameters()] == [f"0.{name}" for name, _ in network.parts["head"].named_parameters()]
    assert not list(network.parts[WHITENING].parameters())
    reports = list(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=None)))
    assert reports[-1].done


def test_a_head_with_a_start_of_its_own_is_not_whitened(make_config: Make) -> None:
    folded = {
        "model__backbone": "folded",
        "model__weights": "models/x",
        "model__feature_layers": ["heat.out"],
        "model__head_start": "heatmap",
    }
    with pytest.raises(BadInput, match="input_whitening is for heads that start at random"):
        make_config("public_only", **folded, **WHITE)
