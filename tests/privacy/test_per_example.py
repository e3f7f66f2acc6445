"""Per-example gradients against a loop of single examples; pairs as one row; nothing left behind."""

from __future__ import annotations

import pytest
import torch
from gradient_networks import Small
from torch import Tensor, nn

from dpcore.errors import BadInput
from dpcore.privacy.feature_split import pair_weights
from dpcore.privacy.per_example import Batch, GradientEngine


def coordinate_loss(module: nn.Module, batch: Batch) -> Tensor:
    x, y = module(batch.inputs).chunk(2, dim=1)
    return ((x.mean(1) - batch.keypoints[:, :, 0]) ** 2).sum(1) + ((y.mean(1) - batch.keypoints[:, :, 1]) ** 2 * batch.visible).sum(1)


def random_batch(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(count, 5, generator=generator) > 0.3
    return Batch(torch.randn(count, 3, 8, 8, generator=generator), torch.randn(count, 5, 2, generator=generator), visible)


@pytest.fixture
def engine() -> GradientEngine:
    torch.manual_seed(0)
    return GradientEngine(Small(), coordinate_loss)


def one_by_one(engine: GradientEngine, batch: Batch) -> Tensor:
    """The oracle: a plain backward pass for each example alone."""
    return torch.stack([engine.sum_gradient(batch[i : i + 1]) for i in range(len(batch))])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_rows_equal_a_loop_of_single_examples(engine: GradientEngine, count: int) -> None:
    batch = random_batch(count)
    rows = engine.rows(batch)
    assert rows.shape == (count, engine.parameter_count)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, one_by_one(engine, batch), atol=1e-6, rtol=1e-5)


def test_an_empty_batch_has_no_rows(engine: GradientEngine) -> None:
    empty = random_batch(3)[0:0]
    assert engine.rows(empty).shape == (0, engine.parameter_count)
    assert engine.residual_rows(empty, empty, 0.5).shape == (0, engine.parameter_count)
    assert not engine.sum_gradient(empty).any()


@pytest.mark.parametrize("public_weight", [0.25, 1.0])
def test_a_pair_is_one_row_the_weighted_difference(engine: GradientEngine, public_weight: float) -> None:
    batch, views = random_batch(5), random_batch(5, seed=1)
    residual = engine.residual_rows(batch, views, public_weight)
    expected = one_by_one(engine, batch) - public_weight * one_by_one(engine, views)
    assert residual.shape == (5, engine.parameter_count)
    torch.testing.assert_close(residual, expected, atol=2e-6, rtol=1e-5)


def test_a_pair_with_weight_zero_is_the_plain_row_bit_for_bit(engine: GradientEngine) -> None:
    batch = random_batch(5)
    assert torch.equal(engine.residual_rows(batch, random_batch(5, seed=1), 0.0), engine.rows(batch))


def test_a_pair_whose_halves_are_equal_cancels_at_weight_one(engine: GradientEngine) -> None:
    batch = random_batch(4)
    assert engine.residual_rows(batch, batch, 1.0).abs().max() < 1e-6


def test_a_row_depends_on_its_own_example_alone(engine: GradientEngine) -> None:
    batch, others = random_batch(4), random_batch(4, seed=9)
    swapped = Batch(*(torch.cat([getattr(batch, f)[:1], getattr(others, f)[1:]]) for f in ("inputs", "keypoints", "visible")))
    torch.testing.assert_close(engine.rows(batch)[0], engine.rows(swapped)[0], atol=1e-7, rtol=1e-6)


def test_a_nan_example_spoils_its_own_row_alone(engine: GradientEngine) -> None:
    batch = random_batch(4)
    clean = engine.rows(batch)
    batch.inputs[2, 0, 0, 0] = float("nan")
    rows = engine.rows(batch)
    assert not torch.isfinite(rows[2]).all()
    torch.testing.assert_close(rows[[0, 1, 3]], clean[[0, 1, 3]])


def test_the_sum_gradient_is_the_sum_of_the_rows_and_leaves_no_rows(engine: GradientEngine) -> None:
    batch = random_batch(6)
    engine.rows(batch)
    total = engine.sum_gradient(batch)
    for parameter in engine.module.parameters():
        assert parameter.grad is None
        assert getattr(parameter, "grad_sample", None) is None
    torch.testing.assert_close(total, engine.rows(batch).sum(0), atol=6e-6, rtol=1e-5)


def test_a_public_pass_between_private_ones_adds_no_row(engine: GradientEngine) -> None:
    batch = random_batch(3)
    before = engine.rows(batch)
    engine.sum_gradient(random_batch(8, seed=2))
    engine.module(random_batch(8, seed=3).inputs)
    assert torch.equal(engine.rows(batch), before)


def test_an_error_in_a_pass_leaves_the_engine_usable() -> None:
    torch.manual_seed(0)
    fail = [True]

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        losses = coordinate_loss(module, batch)
        if fail[0]:
            raise ValueError("stop in the middle of a pass")
        return losses

    engine = GradientEngine(Small(), loss)
    batch = random_batch(3)
    with pytest.raises(ValueError, match="in the middle"):
        engine.rows(batch)
    fail[0] = False
    torch.testing.assert_close(engine.rows(batch), one_by_one(engine, batch), atol=1e-6, rtol=1e-5)


def test_losses_come_with_the_rows_and_belong_to_the_private_halves(engine: GradientEngine) -> None:
    batch = random_batch(4)
    expected = coordinate_loss(engine.module, batch).detach()
    torch.testing.assert_close(engine.rows_and_losses(batch).losses, expected)
    both = engine.residual_rows_and_losses(batch, random_batch(4, seed=1), 0.5)
    torch.testing.assert_close(both.losses, expected)


def test_frozen_parameters_have_no_columns() -> None:
    module = Small()
    module.conv.requires_grad_(False)
    engine = GradientEngine(module, coordinate_loss)
    assert engine.parameter_count == sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in module.conv.parameters())
    assert engine.rows(random_batch(2)).shape == (2, engine.parameter_count)


def test_flat_weights_round_trip(engine: GradientEngine) -> None:
    weights = engine.flat_weights()
    engine.set_flat_weights(weights * 2)
    assert torch.equal(engine.flat_weights(), weights * 2)
    with pytest.raises(BadInput, match="weights"):
        engine.set_flat_weights(weights[1:])


def test_columns_follow_the_flat_weights(engine: GradientEngine) -> None:
    batch, weights = random_batch(1), engine.flat_weights()
    row = engine.rows(batch)[0]
    step = 1e-3 * row / row.norm()
    losses = []
    for sign in (1, -1):
        engine.set_flat_weights(weights + sign * step)
        losses.append(float(coordinate_loss(engine.module, batch).detach()))
    assert losses[0] - losses[1] == pytest.approx(2e-3 * float(row.norm()), rel=1e-2)


def test_a_mean_loss_is_refused() -> None:
    engine = GradientEngine(Small(), lambda m, b: coordinate_loss(m, b).mean())
    with pytest.raises(BadInput, match="one value an example"):
        engine.rows(random_batch(3))


class BypassedLayer(nn.Module):
    """Reads the weight without the layer's own forward, which the hooks cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.seen(inputs) @ self.unseen.weight.T


def test_a_weight_that_is_used_outside_its_layer_is_in_the_rows() -> None:
    torch.manual_seed(0)
    engine = GradientEngine(BypassedLayer(), lambda m, b: m(b.inputs)[:, 0])
    batch = Batch(torch.randn(2, 4), torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(engine.rows(batch), one_by_one(engine, batch))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "BatchNorm2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.1)), "Dropout"),
        (nn.Conv2d(3, 4, 3).requires_grad_(False), "no trainable parameter"),
    ],
)
def test_layers_that_couple_examples_or_draw_by_themselves_are_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        GradientEngine(module, coordinate_loss)


def test_frozen_batch_norm_is_refused_too() -> None:
    # in train mode it would absorb private statistics whether or not its weights are trained
    module = nn.Sequential(nn.BatchNorm1d(4).requires_grad_(False), nn.Linear(4, 1))
    with pytest.raises(BadInput, match="BatchNorm1d"):
        GradientEngine(module, coordinate_loss)


def test_a_closed_engine_frees_its_module() -> None:
    module = Small()
    GradientEngine(module, coordinate_loss).close()
    assert GradientEngine(module, coordinate_loss).rows(random_batch(2)).shape[0] == 2


def test_batches_have_one_length_and_slice_whole() -> None:
    batch = random_batch(5)
    assert [len(part) for part in batch.chunks(2)] == [2, 2, 1]
    assert len(batch.followed_by(batch[1:3])) == 7
    with pytest.raises(BadInput, match="one length"):
        Batch(batch.inputs, batch.keypoints[1:], batch.visible)


def test_pair_halves_must_match(engine: GradientEngine) -> None:
    with pytest.raises(BadInput, match="3 examples and 2 views"):
        engine.residual_rows(random_batch(3), random_batch(2), 0.5)
    with pytest.raises(BadInput, match="public_weight"):
        engine.residual_rows(random_batch(3), random_batch(3), 1.5)
    assert pair_weights(0.25) == (1.0, -0.25)
