"""A folded network cut before its first trained layer, its gains, and the head fpn2d on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcore.config import ModelConfig, Places, parse_config
from dpcore.errors import BadInput
from dpcore.model.folded import FoldedFeatures
from dpcore.model.fpn import FreshPyramid, LinearMaps, MixedMaps
from dpcore.model.maps.pyramid import Pyramid
from dpcore.model.network import PoseNetwork, assemble_network, build_backbone, build_network

LAYERS: list[dict[str, Any]] = [
    {"name": "stem", "op": "conv", "inputs": ["input"], "shape": [4, 3, 3, 3], "stride": 2, "act": "relu6"},
    {"name": "b0.dw", "op": "dwconv", "inputs": ["stem"], "shape": [4, 1, 3, 3], "stride": 2, "act": "relu6"},
    {"name": "b1.dw", "op": "dwconv", "inputs": ["b0.dw"], "shape": [4, 1, 3, 3], "stride": 2, "act": None},
    {"name": "lat4", "op": "conv", "inputs": ["b0.dw"], "shape": [3, 4, 1, 1], "stride": 1, "act": None},
    {"name": "lat8", "op": "conv", "inputs": ["b1.dw"], "shape": [3, 4, 1, 1], "stride": 1, "act": None},
    {"name": "up4", "op": "upsample2x_bilinear", "inputs": ["lat8"]},
    {"name": "add4", "op": "add", "inputs": ["up4", "lat4"]},
    {"name": "fpn4.pw", "op": "conv", "inputs": ["add4"], "shape": [5, 3, 1, 1], "stride": 1, "act": "relu"},
    {"name": "heat.out", "op": "conv", "inputs": ["fpn4.pw"], "shape": [17, 5, 1, 1], "stride": 1, "act": None},
]
"""MoveNet's names on four small layers and a pyramid of two levels."""
FPN = {"head": "fpn2d", "head_start": "heatmap", "feature_layers": ["heat.out"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("folded")
    (folder / "models").mkdir()
    generator, tensors = np.random.default_rng(0), {}
    for layer in LAYERS:
        if "shape" in layer:
            tensors[f"{layer['name']}.weight"] = generator.normal(size=layer["shape"]) * 0.5
            tensors[f"{layer['name']}.bias"] = generator.normal(size=layer["shape"][0])
    np.savez(folder / "models" / "tiny_fp32.npz", **{name: values.astype(np.float32) for name, values in tensors.items()})
    (folder / "models" / "tiny_layers.json").write_text(json.dumps({"model": "tiny", "input": "x/127.5-1", "layers": LAYERS}))
    return Places(data_dir=folder, cache_dir=folder / "cache")


def network(made: Places, **changes: Any) -> tuple[PoseNetwork, ModelConfig]:
    values = {"backbone": "folded", "weights": "models/tiny", "input_height_px": 32, "input_width_px": 32, "freeze": "backbone", **changes}
    config = parse_config(ModelConfig, values)
    return build_network(config, made, generator=torch.Generator().manual_seed(0)), config


def images(height: int = 32, width: int = 32) -> torch.Tensor:
    return 2 * torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1)) - 1


def trained(module: torch.nn.Module) -> set[str]:
    return {name.partition("layers.")[2] or name for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("freeze", "wanted", "taps"),
    [
        ("backbone", {"fpn4_pw", "heat_out"}, 3 * 1),
        ({"train": ["lat8"]}, {"lat8", "fpn4_pw", "heat_out"}, 4 + 4 * 3),
        ({"train": ["*.dw"]}, {"b0_dw", "b1_dw", "fpn4_pw", "heat_out"}, 4),
        ({"from": "b1.dw"}, {"b1_dw", "lat4", "lat8", "fpn4_pw", "heat_out"}, 4),
        ({"train": ["early.convolutions.lat4"]}, {"lat4", "fpn4_pw", "heat_out"}, 4 + 3),
    ],
)
def test_what_lies_before_the_first_trained_layer_is_the_stem_and_the_rest_goes_on_from_it(
    made: Places, freeze: Any, wanted: set[str], taps: int
) -> None:
    whole, config = network(made, freeze=freeze, **FPN)
    split = whole.split(config.freeze)
    assert not split.stem_is_empty
    assert not trained(split.stem)
    assert {name.partition(".")[0] for name in trained(split.tail) if "to_maps" not in name} == wanted
    for size in ((32, 32), (64, 32)):
        with torch.no_grad():
            packed = split.stem(images(*size))
            assert packed.shape[1] == taps
            assert torch.equal(split.tail(packed), whole(images(*size)))


def test_gradients_behind_the_cut_are_those_of_the_whole(made: Places) -> None:
    whole, config = network(made, freeze={"train": ["lat8"]}, **FPN)
    split = whole.split(config.freeze)
    names = [name for name, p in whole.named_parameters() if p.requires_grad]
    behind = torch.autograd.grad(split.tail(split.stem(images())).square().sum(), [p for p in split.tail.parameters() if p.requires_grad])
    direct = torch.autograd.grad(whole(images()).square().sum(), [p for p in whole.parameters() if p.requires_grad])
    assert len(names) == len(behind) == len(direct)
    sizes = [sorted(float(one.norm()) for one in gradients) for gradients in (behind, direct)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_nothing_is_cut_where_the_first_layer_trains(made: Places) -> None:
    for freeze in ("biases", "none", {"from": "stem"}):
        whole, config = network(made, freeze=freeze, **FPN)
        assert whole.split(config.freeze).stem_is_empty


def test_stems_of_other_cuts_have_other_states(made: Places) -> None:
    first, second = (
        network(made, freeze=freeze, **FPN)[0].split(parse_config(ModelConfig, {"freeze": freeze}).freeze)
        for freeze in ({"train": ["fpn4.pw"]}, {"train": ["heat.out"]})
    )
    assert first.stem.state_dict().keys() == second.stem.state_dict().keys()  # the head's layers train anyway
    third, config = network(made, freeze={"train": ["lat8"]}, **FPN)
    sums = [stem.state_dict()["0.cut_sum"].tolist() for stem in (first.stem, second.stem, third.split(config.freeze).stem)]
    assert sums[0] == sums[1] != sums[2]


def test_gains_start_at_one_and_train_as_a_kind(made: Places) -> None:
    plain, _ = network(made, **FPN)
    whole, config = network(made, freeze={"train": ["gain", "bias"]}, **FPN)
    with torch.no_grad():
        torch.testing.assert_close(whole(images()), plain(images()))
    names = trained(whole.split(config.freeze).tail)
    assert {name for name in names if "b0_dw" in name} == {
        name for name in names if name.endswith(("b0_dw.affine.weight", "b0_dw.affine.bias"))
    }
    assert sum("affine.weight" in name for name in names) == 7
    again = assemble_network(config, build_backbone(config, None, whole.document))
    again.load_state_dict(whole.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(images()), whole(images()))


def test_fpn2d_starts_from_the_networks_own_heat_maps_and_multiplies_its_logits(made: Places) -> None:
    whole, _ = network(made, **FPN)
    sharp, _ = network(made, marginal_sharpness=3.0, **FPN)
    backbone, head = whole.parts["early"], whole.parts["head"]
    assert isinstance(backbone, FoldedFeatures)
    assert isinstance(head, MixedMaps)
    with torch.no_grad():
        heat = backbone.maps(images())["heat.out"]
        maps = whole(images())
        assert maps.shape == (3, 16, 8, 8)
        torch.testing.assert_close(maps[:, 0], heat[:, 16])  # MPII's right ankle is COCO's last joint
        torch.testing.assert_close(sharp(images()), 3.0 * maps)


def test_fpn2d_makes_a_pyramid_of_its_own_where_the_network_brings_none(made: Places) -> None:
    whole, config = network(made, head="fpn2d", feature_layers=["b1.dw", "stem", "b0.dw"], pyramid_channels=6)
    head = whole.parts["head"]
    assert isinstance(head, FreshPyramid)
    split = whole.split(config.freeze)
    with torch.no_grad():
        assert split.stem(images()).shape == (3, 4 * (1 + 16 + 4), 4, 4)
        assert whole(images()).shape == (3, 16, 16, 16)
        assert whole(images(64, 32)).shape == (3, 16, 32, 16)


def test_linear2d_starts_at_zero_and_adds_up_a_linear_map_of_every_level(made: Places) -> None:
    whole, config = network(made, head="linear2d", feature_layers=["b1.dw", "stem", "b0.dw"], marginal_sharpness=2.0)
    backbone, head, split = whole.parts["early"], whole.parts["head"], whole.split(config.freeze)
    assert isinstance(backbone, FoldedFeatures)
    assert isinstance(head, LinearMaps)
    assert trained(split.tail) == {f"0.levels.{level}.weight" for level in range(3)}
    assert sum(p.numel() for p in split.tail.parameters()) == 3 * 4 * 16
    generator, shown = torch.Generator().manual_seed(2), images(64, 32)
    with torch.no_grad():
        assert torch.equal(whole(shown), torch.zeros(3, 16, 32, 16))
        expected = torch.zeros(3, 16, 32, 16)
        for weight, maps in zip(head.levels.parameters(), backbone.maps(shown).values(), strict=True):
            weight.normal_(generator=generator)
            part = torch.einsum("kc,bchw->bkhw", weight[..., 0, 0], maps)
            expected += torch.nn.functional.interpolate(part, size=(32, 16), mode="bilinear", align_corners=False)
        torch.testing.assert_close(whole(shown), 2.0 * expected, rtol=1e-4, atol=1e-5)


def test_a_pyramid_is_packed_and_unpacked_bit_for_bit() -> None:
    pyramid = Pyramid(channels=(3, 5), strides_px=(4, 8))
    maps = [torch.randn(2, 3, 6, 4), torch.randn(2, 5, 3, 2)]
    packed = pyramid.pack(maps)
    assert packed.shape == (2, pyramid.packed_channels, 3, 2)
    assert all(torch.equal(one, other) for one, other in zip(pyramid.unpack(packed), maps, strict=True))
    with pytest.raises(BadInput, match="multiples of 8 px"):
        pyramid.pack([torch.randn(2, 3, 5, 4), maps[1]])
    with pytest.raises(BadInput, match="each must divide the coarsest"):
        Pyramid(channels=(1, 1), strides_px=(2, 3))


def test_what_does_not_fit_fpn2d_is_refused(made: Places) -> None:
    with pytest.raises(BadInput, match=r"give feature_layers \[heat.out\]"):
        network(made, head="fpn2d", head_start="heatmap", feature_layers=["heat.out", "lat4"])


def test_lightnings_trunk_is_cut_at_three_taps_and_counts_as_documented(shared_data: Path) -> None:
    places = Places(data_dir=shared_data, cache_dir=shared_data)
    sizes = {}
    for name, freeze in (("fpn", "backbone"), ("gains", {"train": ["bias", "gain"]}), ("upper", {"train": ["bias", "b1[0-6].project"]})):
        values = {"weights": "models/movenet_lightning", "freeze": freeze, "input_height_px": 64, "input_width_px": 64, **FPN}
        config = parse_config(ModelConfig, {"backbone": "folded", **values})
        whole = build_network(config, places, generator=torch.Generator().manual_seed(0))
        split = whole.split(config.freeze)
        sizes[name] = sum(p.numel() for p in split.tail.parameters() if p.requires_grad)
        if name == "fpn":
            with torch.no_grad():
                packed = split.stem(images(64, 64))
                assert packed.shape == (3, 64 + 4 * 32 + 16 * 24, 4, 4)
                assert torch.equal(split.tail(packed), whole(images(64, 64)))
    assert sizes["fpn"] == 9249
    assert sizes["gains"] == 44066
