"""Weights in units of their tensor's scale: rows, norms and sums are those of the scaled gradients, on every way."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from gradient_networks import NETWORKS, examples, oracle, output_loss
from torch import nn

from dpcore.errors import BadInput
from dpcore.gradients import book_keeping
from dpcore.gradients.book_keeping import BookKeptRows, Products
from dpcore.gradients.functional import VectorisedRows
from dpcore.gradients.scales import relative_scales
from dpcore.gradients.way import TrainedModule
from dpcore.privacy.per_example import GradientEngine


def some_scales(module: nn.Module) -> tuple[float, ...]:
    """Another one for each tensor, from a thirty-second to 4."""
    return tuple(2.0 ** (place % 8 - 5) for place, p in enumerate(module.parameters()) if p.requires_grad)


def columns_of(module: nn.Module) -> torch.Tensor:
    sizes = torch.tensor([p.numel() for p in module.parameters() if p.requires_grad])
    return torch.tensor(some_scales(module), dtype=torch.float64).repeat_interleave(sizes)


@pytest.mark.parametrize("share", ["kept", "again", "products"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_rows_and_clipped_sums_are_those_of_scaled_gradients(name: str, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_keeping, "KEPT_SHARE", 0.0 if share == "again" else 1e9)
    linear = share == "products"
    monkeypatch.setattr(
        Products, "suit", staticmethod(lambda layer, calls: linear and type(layer.module) is nn.Linear and "weight" in layer.names)
    )
    module, shape = NETWORKS[name].made()
    engine = GradientEngine(module, output_loss, scales=some_scales(module))
    batch, views, columns = examples(4, shape, seed=2), examples(4, shape, seed=3), columns_of(module)
    single, public = oracle(module, batch) * columns, oracle(module, views) * columns
    expected = single - 0.7 * public
    clip_norm = float(expected.norm(dim=1).median())
    clipped = (expected * (clip_norm / expected.norm(dim=1)).clamp(max=1.0)[:, None]).sum(0)
    bounded, _ = engine.clipped_sum(batch, views, 0.7, clip_norm=clip_norm)
    torch.testing.assert_close(bounded.value, clipped, atol=3e-5 * clip_norm, rtol=1e-4)
    largest = float(expected.abs().max())
    torch.testing.assert_close(engine.residual_rows(batch, views, 0.7).double(), expected, atol=1e-5 * largest, rtol=1e-4)
    torch.testing.assert_close(engine.sum_gradient(batch).double(), single.sum(0), atol=1e-5 * largest, rtol=1e-4)


@pytest.mark.parametrize("way", [BookKeptRows, VectorisedRows])
def test_scaled_rows_are_the_plain_ones_times_a_power_of_two_bit_for_bit(way: type[BookKeptRows] | type[VectorisedRows]) -> None:
    module, shape = NETWORKS["small"].made()
    batch = examples(3, shape, seed=4)
    plain = way(TrainedModule(module, output_loss, "fp32")).rows(batch, (1.0,)).rows
    scaled = way(TrainedModule(module, output_loss, "fp32", some_scales(module))).rows(batch, (1.0,)).rows
    assert torch.equal(scaled, plain * columns_of(module).to(plain.dtype))


def test_flat_weights_are_in_units_of_the_scales_and_come_back_without_loss() -> None:
    module, _ = NETWORKS["small"].made()
    before = copy.deepcopy(module.state_dict())
    engine = GradientEngine(module, output_loss, scales=some_scales(module))
    weights = engine.flat_weights()
    plain = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(weights * columns_of(module).float(), plain)
    engine.set_flat_weights(weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_scale_is_the_tensors_rms_to_a_factor_of_root_two() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [size * torch.randn(500, generator=generator) for size in (0.00137, 0.03, 0.71, 1.1)]
    for tensor, scale in zip(tensors, relative_scales(nn.ParameterList(tensors)), strict=True):
        assert math.log2(scale).is_integer()
        assert 2**-0.5 <= scale / float(tensor.square().mean().sqrt()) <= 2**0.5


def test_a_tensor_of_zeros_takes_the_size_of_all_numbers() -> None:
    assert relative_scales(nn.ParameterList([torch.zeros(3), torch.full((9,), 0.5)])) == (0.5, 0.5)
    assert relative_scales(nn.ParameterList([torch.zeros(3)])) == (1.0,)


class Mixing(nn.Module):
    relative_size = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = nn.Parameter(torch.zeros(3)), nn.Linear(2, 2)


def test_a_module_that_knows_the_size_of_its_tensors_keeps_it_whatever_else_trains() -> None:
    module = Mixing()
    nn.init.constant_(module.other.weight, 8.0)
    nn.init.constant_(module.other.bias, 2.0)
    assert relative_scales(module) == (0.25, 8.0, 2.0)
    module.other.requires_grad_(False)
    assert relative_scales(module) == (0.25,)


def test_scales_are_as_many_as_trained_tensors() -> None:
    with pytest.raises(BadInput, match="10 tensors train, given 2 scales"):
        GradientEngine(nn.Sequential(*(nn.Linear(2, 2) for _ in range(5))), output_loss, scales=(1.0, 2.0))
