"""Which parameters train under which policy, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpcore.config import ModelConfig, Places, TrialConfig, parse_config
from dpcore.config.freezing import FreezeRule
from dpcore.config.training import PublicStage
from dpcore.errors import BadInput
from dpcore.model.freezing import stem_length, trained_names
from dpcore.model.low_rank import LowRank, add_low_rank
from dpcore.model.network import build_network


def parts() -> dict[str, nn.Module]:
    return {
        "input": nn.Identity(),
        "stages_0": nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)),
        "stages_1": nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.GroupNorm(2, 6), nn.Linear(6, 5)),
        "head": nn.Linear(5, 2),
    }


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("freeze", "trained", "stem"),
    [
        ("backbone", set(), 3),
        ("norms", {"stages_0.1.weight", "stages_0.1.bias", "stages_1.1.weight", "stages_1.1.bias"}, 0),
        ("gains", {"stages_0.1.weight", "stages_1.1.weight"}, 0),
        ("biases", {"stages_0.0.bias", "stages_0.1.bias", "stages_1.1.bias", "stages_1.2.bias"}, 0),
        ("early", {"stages_1.0.weight", "stages_1.1.weight", "stages_1.1.bias", "stages_1.2.weight", "stages_1.2.bias"}, 2),
        ({"train": ["stages.1.2"]}, {"stages_1.2.weight", "stages_1.2.bias"}, 2),
        (
            {"train": ["bias"], "from": "stages.1.2"},
            {"stages_0.0.bias", "stages_0.1.bias", "stages_1.1.bias", "stages_1.2.bias", "stages_1.2.weight"},
            0,
        ),
        ({"train": ["*.0.weight"]}, {"stages_0.0.weight", "stages_1.0.weight"}, 0),
    ],
)
def test_a_policy_trains_exactly_its_parameters_and_the_head(freeze: object, trained: set[str], stem: int) -> None:
    config = ModelConfig(backbone="timm:any", freeze=freeze)  # type: ignore[arg-type]
    found = trained_names(parts(), config.freeze)
    assert found == trained | HEAD
    assert stem_length(parts(), found) == stem


def test_ft_is_the_last_stage_and_every_norm() -> None:
    early = trained_names(parts(), "early")
    assert trained_names(parts(), "ft") == early | {"stages_0.1.weight", "stages_0.1.bias"}
    assert trained_names(parts(), "full_ft") == trained_names(parts(), "none") == trained_names(parts(), "scratch")


def test_unused_parameters_never_train() -> None:
    unused = frozenset({"stages_1.2.weight"})
    assert trained_names(parts(), "none") - trained_names(parts(), "none", unused=unused) == unused


def test_low_rank_matrices_train_alone_and_the_network_starts_as_it_was() -> None:
    chain = parts()
    maps = torch.rand(2, 6, 4, 6)
    before = chain["stages_1"](maps[..., :6, :])
    assert add_low_rank(chain, 2, wanted=lambda name: name.startswith("stages_1")) == 2
    for module in chain["stages_1"].modules():
        if isinstance(module, LowRank):
            module.draw_weights(torch.Generator().manual_seed(1))
    torch.testing.assert_close(chain["stages_1"](maps), before)
    low_rank = {f"stages_1.{layer}.{matrix}.weight" for layer in (0, 2) for matrix in ("down", "up")}
    assert trained_names(chain, FreezeRule(lora=2)) == low_rank | HEAD
    assert not low_rank & trained_names(chain, "none")


def test_a_rank_that_is_no_low_rank_is_refused() -> None:
    with pytest.raises(BadInput, match=r"rank 5 at most"):
        add_low_rank(parts(), 6, wanted=lambda name: name.startswith("stages_1.2"))


def test_layers_that_are_not_there_are_answered_with_those_that_are() -> None:
    with pytest.raises(BadInput, match=r"no layer stages\.7; it has stages\.0, stages\.1"):
        trained_names(parts(), FreezeRule(from_="stages.7"))
    with pytest.raises(BadInput, match="no layer qkv"):
        trained_names(parts(), FreezeRule(train=("qkv",)))


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("eraly", "unknown policy eraly; did you mean early?"),
        ({}, "give at least one of train, from and lora"),
        ({"form": "stages.1"}, "unknown key"),
        ({"lora": 0}, "greater than or equal to 1"),
    ],
)
def test_a_freeze_that_says_nothing_is_refused(freeze: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_config(ModelConfig, {"backbone": "timm:any", "freeze": freeze})


@pytest.mark.parametrize("freeze", ["scratch", {"lora": 3}])
def test_stages_train_what_the_network_has(freeze: object) -> None:
    with pytest.raises(BadInput, match=r"belong to model\.freeze"):
        parse_config(PublicStage, {"freeze": freeze})


def test_a_rule_travels_as_json_and_has_a_fingerprint_of_its_own() -> None:
    data = {"private": "a", "public": "b", "validation": "c", "nominal_examples": 9}
    stages = {"private": {"steps": 1, "expected_batch_size": 1}}
    values = {"method": "public_only", "data": data, "stages": stages, "model": {"freeze": {"from": "late", "train": ["gain"]}}}
    config = parse_config(TrialConfig, values)
    assert config.model_dump(mode="json")["model"]["freeze"] == {"from": "late", "train": ["gain"], "lora": None}
    assert config.changed(seed=0) == config
    other = config.changed(**{"model.freeze": {"from": "late"}})
    assert len({config.fingerprint(), other.fingerprint(), config.changed(**{"model.freeze": "early"}).fingerprint()}) == 3


def test_rules_hold_for_dpsweeps_own_network_too(places: Places) -> None:
    config = parse_config(ModelConfig, {"freeze": {"lora": 4}})
    network = build_network(config, places, generator=torch.Generator().manual_seed(0))
    plain = build_network(ModelConfig(), places, generator=torch.Generator().manual_seed(0))
    split = network.split(config.freeze)
    trained = {name.rpartition(".")[0].rpartition(".")[2] for name, p in split.tail.named_parameters() if p.requires_grad}
    assert trained == {"down", "up", "to_maps", "to_x", "to_y"}
    images = torch.rand(2, 3, 64, 64)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(network.eval()(images), plain.eval()(images), strict=True))
