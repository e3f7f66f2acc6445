"""What must never train under differential privacy."""

import pytest
import torch
from torch import nn

from dpcore.config import ModelConfig, Places
from dpcore.errors import Refused
from dpcore.model.freezing import freeze_module
from dpcore.model.network import build_network
from dpcore.model.safety.dp_safe import require_dp_safe


def _stem() -> nn.Module:
    return freeze_module(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))


@pytest.mark.parametrize("freeze", ["none", "early", "backbone"])
@pytest.mark.parametrize("head", ["marginal", "flat"])
def test_our_own_networks_pass_under_every_policy(places: Places, freeze: str, head: str) -> None:
    network = build_network(ModelConfig(head=head), places, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    split = network.split(freeze)  # type: ignore[arg-type]
    require_dp_safe(split.stem, split.tail)


def test_frozen_batch_norm_in_evaluation_mode_is_allowed() -> None:
    require_dp_safe(_stem(), nn.Linear(4, 2))


def test_frozen_batch_norm_in_train_mode_is_refused() -> None:
    with pytest.raises(Refused, match="reads batch statistics"):
        require_dp_safe(_stem().train(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm2d(4), "couples examples"),
        (nn.ReLU(inplace=True), "inplace"),
    ],
)
def test_trainable_layers_without_sound_per_example_gradients_are_refused(layer: nn.Module, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        require_dp_safe(_stem(), nn.Sequential(nn.Conv2d(4, 4, 1), layer))


def test_a_stem_that_still_trains_is_refused() -> None:
    with pytest.raises(Refused, match="requires a gradient"):
        require_dp_safe(nn.Conv2d(3, 4, 1).eval(), nn.Linear(4, 2))
