"""The chain of parts: splitting, starting, saving."""

import pytest
import torch

from dpcore.config import ModelConfig, Places
from dpcore.errors import BadInput, Corrupt
from dpcore.model.backbones import SmallPyramid
from dpcore.model.network import PoseNetwork, build_network, load_weights, weights_digest


def _small(places: Places, *, seed: int = 0, **settings: object) -> PoseNetwork:
    return build_network(ModelConfig(**settings), places, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def test_small_network_gives_logits_over_the_bins_of_both_axes(places: Places) -> None:
    network = _small(places, input_height_px=64, input_width_px=48, split_ratio=2.0)
    logits_x, logits_y = network(torch.zeros(2, 3, 64, 48))
    assert logits_x.shape == (2, 16, 96)
    assert logits_y.shape == (2, 16, 128)


def test_small_network_has_a_laptop_size(places: Places) -> None:
    count = sum(p.numel() for p in _small(places).parameters())
    assert 60_000 < count < 300_000


def test_equal_seeds_give_equal_networks_and_other_seeds_others(places: Places) -> None:
    first, again, other = _small(places, seed=3), _small(places, seed=3), _small(places, seed=4)
    assert weights_digest(first.state_dict()) == weights_digest(again.state_dict())
    assert weights_digest(first.state_dict()) != weights_digest(other.state_dict())


def test_building_a_network_leaves_no_example_coupled_to_another(places: Places) -> None:
    network = _small(places).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    alone = network(images[:1])[0]
    together = network(images)[0][:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("freeze", "trained"), [("none", {"early", "late", "head"}), ("early", {"late", "head"}), ("backbone", {"head"})])
def test_freezing_policy_trains_exactly_its_parts(places: Places, freeze: str, trained: set[str]) -> None:
    network = _small(places)
    split = network.split(freeze)  # type: ignore[arg-type]
    requiring = {name.split(".")[1] for name, p in network.named_parameters() if p.requires_grad}
    assert requiring == trained
    assert split.stem_is_empty == (freeze == "none")
    assert not split.stem.training


def test_stem_then_tail_is_the_whole_network(places: Places) -> None:
    network = _small(places)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for freeze in ("none", "early", "backbone"):
        split = network.split(freeze)  # type: ignore[arg-type]
        outputs = split.tail(split.stem(images))
        assert all(torch.equal(a, b) for a, b in zip(outputs, network(images), strict=True))


def test_image_sides_that_the_pyramid_cannot_halve_are_refused(places: Places) -> None:
    with pytest.raises(BadInput, match="multiples of 16"):
        _small(places, input_height_px=60)


def test_load_weights_drops_nothing_and_leaves_nothing_over(places: Places) -> None:
    network = _small(places)
    state = dict(network.state_dict())
    surplus = {**state, "extra": torch.zeros(1)}
    state.pop(next(iter(state)))
    for wrong in (state, surplus):
        with pytest.raises(Corrupt, match="do not fit"):
            load_weights(network, wrong, where="here")


def test_pyramid_keeps_stride_four() -> None:
    assert SmallPyramid()(torch.zeros(1, 3, 64, 96)).shape == (1, 32, 16, 24)
