"""The loss: one number per example, no coupling, safe with unlabelled joints."""

import math

import pytest
import torch

from dpcore.pose.codec import SimCCCodec
from dpcore.pose.loss import simcc_loss

CODEC = SimCCCodec(height_px=16, width_px=16, split_ratio=1.0, label_sigma_bins=1.0)


def random_batch(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_x = torch.randn(count, 3, 16, generator=generator)
    logits_y = torch.randn(count, 3, 16, generator=generator)
    keypoints = 15 * torch.rand(count, 3, 2, generator=generator)
    visible = torch.rand(count, 3, generator=generator) > 0.3
    return logits_x, logits_y, keypoints, visible


def test_each_loss_is_that_of_the_example_alone() -> None:
    x, y, keypoints, visible = random_batch(5)
    together = simcc_loss(x, y, keypoints, visible, CODEC)
    alone = torch.cat([simcc_loss(x[i : i + 1], y[i : i + 1], keypoints[i : i + 1], visible[i : i + 1], CODEC) for i in range(5)])
    assert together.shape == (5,)
    torch.testing.assert_close(together, alone)


def test_no_example_moves_another_ones_loss_or_gradient() -> None:
    x, y, keypoints, visible = random_batch(4)
    logits_x = x.clone().requires_grad_()
    simcc_loss(logits_x, y, keypoints, visible, CODEC)[1].backward()  # type: ignore[no-untyped-call]
    assert logits_x.grad is not None
    assert logits_x.grad[[0, 2, 3]].abs().max() == 0
    assert logits_x.grad[1].abs().max() > 0


def test_value_is_the_divergence_worked_by_hand() -> None:
    keypoints = torch.tensor([[[4.0, 9.0], [math.nan, math.nan]]])
    visible = torch.tensor([[True, False]])
    flat = torch.zeros(1, 2, 16)
    target_x, target_y = (t[0, 0].double() for t in CODEC.encode(keypoints))
    divergence = sum(float((t * (t.clamp(min=1e-300) * 16).log()).sum()) for t in (target_x, target_y))
    loss = simcc_loss(flat, flat, keypoints, visible, CODEC)
    # K = 2 divides although one joint alone is visible
    assert loss.item() == pytest.approx(divergence / 2, rel=1e-5)


def test_a_perfect_prediction_costs_nothing() -> None:
    keypoints = torch.tensor([[[4.0, 9.0]]])
    target_x, target_y = CODEC.encode(keypoints)
    loss = simcc_loss(target_x.log(), target_y.log(), keypoints, torch.tensor([[True]]), CODEC)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_joints_outside_the_crop_or_unlabelled_give_no_loss_and_a_finite_gradient() -> None:
    keypoints = torch.tensor([[[-3.0, 4.0], [5.0, 16.0], [math.nan, math.inf]]])
    visible = torch.tensor([[True, True, False]])
    logits = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = simcc_loss(logits, logits, keypoints, visible, CODEC)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0
