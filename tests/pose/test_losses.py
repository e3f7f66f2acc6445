"""Losses of marginals and of maps: values by hand, their bound, and that no example moves another one's loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dpcore.config.losses import LOSSES, PckMassConfig
from dpcore.errors import BadInput
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.losses import Outputs, Targets, heatmap_ce, loss_function, pck_mass, simcc

CODEC = SimCCCodec(height_px=24, width_px=32, split_ratio=0.5, label_sigma_bins=1.0)


def targets(keypoints: Any, *, visible: Any = None, heads: Any = None, **settings: float) -> Targets:
    points = torch.as_tensor(keypoints, dtype=torch.float32)
    shown = torch.ones(points.shape[:2], dtype=torch.bool) if visible is None else torch.as_tensor(visible)
    head_px = torch.full(points.shape[:1], math.nan) if heads is None else torch.as_tensor(heads, dtype=torch.float32)
    return Targets(keypoints=points, visible=shown, head_px=head_px, codec=CODEC, pck_mass=PckMassConfig(**settings))


def random_outputs(count: int, joints: int, kind: str) -> Outputs:
    generator = torch.Generator().manual_seed(3)
    if kind == "maps":
        return torch.randn(count, joints, 12, 16, generator=generator)
    return torch.randn(count, joints, 16, generator=generator), torch.randn(count, joints, 12, generator=generator)


def leaves(outputs: Outputs) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.parametrize(("name", "kind"), [(n, kind) for n in LOSSES.own for kind in sorted(LOSSES.get(n).outputs)])
def test_an_example_alone_has_the_same_loss_and_moves_no_other(name: str, kind: str) -> None:
    points = 20 * torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    heads, loss, outputs = torch.tensor([math.nan, 5.0, 9.0, 0.0]), loss_function(name), random_outputs(4, 3, kind)
    for leaf in leaves(outputs):
        leaf.requires_grad_()
    together = loss(outputs, targets(points, visible=visible, heads=heads))
    assert together.shape == (4,)
    assert bool((together >= 0).all())
    assert together[3] == 0
    for one in range(4):
        some = slice(one, one + 1)
        cut: Outputs = (outputs[0][some], outputs[1][some]) if isinstance(outputs, tuple) else outputs[some]
        torch.testing.assert_close(loss(cut, targets(points[some], visible=visible[some], heads=heads[some])), together[some])
    for leaf, gradient in zip(leaves(outputs), torch.autograd.grad(together[1], leaves(outputs)), strict=True):
        assert gradient.shape == leaf.shape
        assert float(gradient[[0, 2, 3]].abs().max()) == 0
        assert float(gradient[1].abs().max()) > 0


def test_pck_mass_counts_the_share_of_a_disc_and_of_a_square() -> None:
    """A uniform map of 12 x 16 cells of 2 px: a disc of 5 px around a corner of four cells holds π·25/4 cells, a square 5 of each axis."""
    flat, at = torch.zeros(1, 1, 12, 16), targets([[[15.5, 11.5]]], heads=[10.0])
    hit = math.exp(-float(pck_mass(flat, at))) * 1.05 - 0.05
    assert hit == pytest.approx(math.pi * 25 / 4 / 192, rel=0.03)
    both = torch.zeros(1, 1, 16), torch.zeros(1, 1, 12)
    assert float(pck_mass(both, at)) == pytest.approx(math.log(1.05 / (5 / 16 * 5 / 12 + 0.05)), rel=1e-5)


def test_a_hit_costs_nothing_and_a_mislabelled_joint_no_more_than_the_floor_allows() -> None:
    sure = torch.full((1, 1, 12, 16), -40.0)
    sure[0, 0, 3, 4] = 40.0  # its middle lies at 8.5, 6.5 px
    assert float(pck_mass(sure, targets([[[8.9, 6.1]]], heads=[6.0]))) == pytest.approx(0.0, abs=1e-6)
    for floor in (0.05, 0.31):
        wrong = sure.clone().requires_grad_()
        loss = pck_mass(wrong, targets([[[28.0, 20.0]]], heads=[6.0], floor=floor))
        assert float(loss.detach()) == pytest.approx(math.log(1 + 1 / floor), rel=1e-6)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert wrong.grad is not None
        assert float(wrong.grad.abs().max()) < 1e-6
    far = simcc(sure, targets([[[28.0, 20.0]]]))
    assert float(far) > 20 * math.log(1 + 1 / 0.05)


def test_the_radius_is_each_examples_own_head_or_a_share_of_the_crop() -> None:
    at = targets([[[3.0, 3.0]]] * 4, heads=[8.0, math.nan, 0.0, 2.0], radius_heads=0.75, radius_frac=0.125)
    assert at.radius_px().flatten().tolist() == [6.0, 4.0, 4.0, 1.5]
    flat = torch.zeros(4, 1, 12, 16)
    losses = pck_mass(flat, at)
    assert losses[1] == losses[2]
    assert losses[0] < losses[1] < losses[3]
    # finer than a cell is a cell
    assert losses[3] == pck_mass(flat[:1], targets([[[3.0, 3.0]]], heads=[0.1], radius_heads=0.75))


def test_heat_map_cross_entropy_is_the_divergence_from_the_blob() -> None:
    points = torch.tensor([[[7.3, 14.1], [25.0, 3.3]]])
    maps = random_outputs(1, 2, "maps")
    assert isinstance(maps, Tensor)
    wide = SimCCCodec(height_px=24, width_px=32, split_ratio=0.5, label_sigma_bins=1.0)
    x, y = (one.double() for one in wide.encode(points))
    blob = torch.einsum("bky,bkx->bkyx", y, x)
    log_p = torch.log_softmax(maps.double().flatten(2), -1).view_as(blob)
    by_hand = (torch.xlogy(blob, blob) - blob * log_p).sum(dim=(2, 3)).mean(dim=1)
    torch.testing.assert_close(heatmap_ce(maps, targets(points)).double(), by_hand, rtol=1e-4, atol=1e-5)
    assert float(heatmap_ce(blob.clamp(min=1e-30).log().float(), targets(points))) == pytest.approx(0.0, abs=1e-4)


def test_simcc_of_a_map_is_that_of_its_marginals() -> None:
    points, (x, y) = torch.tensor([[[7.3, 14.1], [25.0, 3.3]]]), random_outputs(1, 2, "marginals")
    product = torch.log_softmax(y, -1).unsqueeze(-1) + torch.log_softmax(x, -1).unsqueeze(-2)
    torch.testing.assert_close(simcc(product, targets(points)), simcc((x, y), targets(points)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [simcc, heatmap_ce, pck_mass])
def test_labels_that_are_no_numbers_give_no_loss_and_a_finite_gradient(loss: Any) -> None:
    maps = random_outputs(1, 3, "maps")
    assert isinstance(maps, Tensor)
    maps.requires_grad_()
    nothing = loss(maps, targets([[[math.nan, math.inf], [-4.0, 3.0], [3.0, 300.0]]], visible=[[False, True, True]]))
    nothing.sum().backward()
    assert float(nothing.detach()) == 0
    assert maps.grad is not None
    assert float(maps.grad.abs().max()) == 0


def test_a_loss_of_maps_takes_no_marginals() -> None:
    with pytest.raises(BadInput, match="loss heatmap_ce needs a head that gives maps"):
        heatmap_ce(random_outputs(1, 1, "marginals"), targets([[[3.0, 3.0]]]))
