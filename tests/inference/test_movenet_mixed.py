"""The head `movenet_mixed` starts as the head `movenet`, learns mixtures, and applies them once, after views are fused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpcore.config import EvaluationConfig, ModelConfig
from dpcore.gradients.scales import relative_scales
from dpcore.inference.movenet import MOVENET_LAYERS, movenet_readout
from dpcore.inference.movenet_mixed import REACH, MixedHead, logits_for_loss, mixed_readout
from dpcore.inference.reading import PoseReading
from dpcore.model.head import HeadShape
from dpcore.model.network import codec_of
from dpcore.pose.skeleton import COCO_17, MPII_16
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.evaluator import loss_of

SIDE_PX = 96
CELLS = 24
LAYOUT: dict[str, Any] = {
    "backbone": "folded",
    "weights": "models/any",
    "feature_layers": tuple(MOVENET_LAYERS),
    "feature_stride_px": 4,
    "freeze": "backbone",
    "input_height_px": SIDE_PX,
    "input_width_px": SIDE_PX,
}
MODEL = ModelConfig(head="movenet_mixed", **LAYOUT)
PLAIN = ModelConfig(head="movenet", **LAYOUT)
VIEWS = EvaluationConfig(rotations_deg=(0, 90), flip=True, fuse="maps")
OWN = [name in COCO_17.index for name in MPII_16.joints]


def head(seed: int | None = None) -> MixedHead:
    """At its start, or with arbitrary numbers, by which shares move by about 0.3."""
    made = MixedHead(
        HeadShape(channels=86, grid_height=CELLS, grid_width=CELLS, height_px=SIDE_PX, width_px=SIDE_PX, bins_x=192, bins_y=192)
    )
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(0.3 / REACH * torch.randn(parameter.shape, generator=generator))
    return made


def outputs(count: int = 3, seed: int = 11) -> Tensor:
    """Maps as noisy as no network gives them."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, 86, CELLS, CELLS, generator=generator)
    maps[:, 18:52] *= 5
    return maps


@pytest.mark.parametrize("size", [0.001, 20.0])
def test_one_step_moves_shares_alike_whatever_trains_beside_them(size: float) -> None:
    network = nn.ModuleList([nn.Linear(4, 4), head()])
    for parameter in network[0].parameters():
        nn.init.constant_(parameter, size)
    assert relative_scales(network)[2:] == (0.5, 0.5)


def test_it_starts_as_movenets_own_decode() -> None:
    said = [outputs(seed=view) for view in range(4)]
    with torch.no_grad():
        points, confidence = PoseReading.of(MODEL, VIEWS, MPII_16).points([head()(maps) for maps in said])
        wanted, wanted_confidence = PoseReading.of(PLAIN, VIEWS, MPII_16).points(said)
    torch.testing.assert_close(points, wanted)
    torch.testing.assert_close(confidence, wanted_confidence)


def test_fused_keypoints_are_mixed_by_what_the_head_learned() -> None:
    learned = head(seed=1)
    with torch.no_grad():
        said = [learned(outputs(seed=view)) for view in range(4)]
        reading = PoseReading.of(MODEL, VIEWS, MPII_16)
        keypoints, _ = reading.readout.points(reading.fused(said))
        points, _ = reading.points(said)
        torch.testing.assert_close(points, learned.shares.shares() @ keypoints)
        assert float((points - head().shares.shares() @ keypoints).abs().max()) > 1.0


def test_a_single_view_is_mixed_too() -> None:
    learned = head(seed=1)
    with torch.no_grad():
        reading = PoseReading.of(MODEL, EvaluationConfig(), MPII_16)
        said = learned(outputs())
        keypoints, _ = reading.readout.points(reading.fused([said]))
        torch.testing.assert_close(reading.points([said])[0], learned.shares.shares() @ keypoints)


def test_a_loss_sees_the_maps_of_cocos_joints_where_nothing_is_mixed() -> None:
    with torch.no_grad():
        logits = mixed_readout(MODEL, MPII_16).trained_logits(head()(outputs()))
        heat_maps = movenet_readout(PLAIN, MPII_16).joint_logits(outputs())
    torch.testing.assert_close(logits[:, OWN], heat_maps[:, OWN], atol=1e-3, rtol=1e-3)


def test_a_loss_sees_each_joint_where_the_mixture_puts_it() -> None:
    """One sharp peak per map, so that a map's peak moves by what the mixture adds."""
    maps = torch.full((1, 86, CELLS, CELLS), -6.0)
    maps[:, 17:] = 0.0
    for joint in range(17):
        maps[0, joint, 6 + joint % 5, 8 + joint % 7] = 6.0
    learned, readout = head(), mixed_readout(MODEL, MPII_16)
    with torch.no_grad():
        learned.shares.sided[:, 1:] = 0.1 / REACH
        learned.shares.middle[:] = 0.1 / REACH
        said = learned(maps)
        keypoints, _ = readout.points(readout.maps(said).probabilities())
        wanted = learned.shares.shares() @ keypoints
        logits = readout.trained_logits(said)
        # sharper, so that the rest of a map does not pull the mean
        points, _ = readout.points(torch.softmax(4 * logits.flatten(2), dim=-1).view_as(logits))
        unmixed = head().shares.shares() @ keypoints
    cell_px = SIDE_PX / CELLS
    assert float((wanted - unmixed).abs().max()) > cell_px
    torch.testing.assert_close(points, wanted, atol=cell_px / 2, rtol=0)


def test_a_loss_moves_no_map_through_a_joint_that_is_a_mixture_and_every_mixture() -> None:
    maps, made = outputs(2).requires_grad_(), head(seed=2)
    logits = mixed_readout(MODEL, MPII_16).trained_logits(made(maps))
    (through_mixtures,) = torch.autograd.grad(logits[:, [not one for one in OWN]].sum(), maps, retain_graph=True)
    through_own, sided, middle = torch.autograd.grad(
        logits.square().sum(), [maps, made.shares.sided, made.shares.middle], retain_graph=False
    )
    assert not through_mixtures.any()
    assert through_own.any()
    assert bool(sided.any(dim=1).all())
    assert bool(middle.any(dim=1).all())


def test_in_bfloat16_places_are_as_in_float32() -> None:
    """An autocast network hands over maps in which a cell of 64 has no neighbour of 64.25."""
    made, maps = head(seed=1), outputs().bfloat16()
    with torch.no_grad():
        reading = PoseReading.of(MODEL, VIEWS, MPII_16)
        points, _ = reading.points([made(maps)] * 4)
        wanted, _ = reading.points([made(maps.float())] * 4)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, wanted, atol=1.0, rtol=0)


class Network(torch.nn.Module):
    """Something to train before the head: a bias of its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.before = torch.nn.Conv2d(86, 86, 1, groups=86)
        self.head = head(seed=1)
        with torch.no_grad():
            self.before.weight.fill_(1.0)
            self.before.bias.zero_()

    def forward(self, maps: Tensor) -> Any:
        return self.head(self.before(maps))


@pytest.mark.parametrize("loss", ["pck_mass", "heatmap_ce", "simcc"])
def test_rows_are_those_of_single_examples(loss: str) -> None:
    engine = GradientEngine(Network(), loss_of(codec_of(MODEL), loss, read=logits_for_loss(MODEL, MPII_16)))
    keypoints = 96 * torch.rand(3, 16, 2, generator=torch.Generator().manual_seed(4))
    batch = Batch(outputs(), keypoints, torch.ones(3, 16, dtype=torch.bool), torch.full((3,), 12.0))
    single = torch.stack([engine.sum_gradient(batch[i : i + 1]) for i in range(3)])
    assert float(single.norm()) > 0.01
    torch.testing.assert_close(engine.rows(batch), single, atol=1e-5, rtol=1e-3)
    assert engine.way(batch).startswith("book-keeping")
