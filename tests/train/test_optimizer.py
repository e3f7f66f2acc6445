"""Optimizer steps on flat weights, against torch's own."""

import pytest
import torch

from dpcore.config import OptimizerConfig, parse_config
from dpcore.errors import BadInput, Corrupt
from dpcore.train.optimizer import OptimizerState, averaged, learning_rate_at, updated


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_equal_those_of_torch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    config = OptimizerConfig(name=name, learning_rate=0.1, momentum=0.8, schedule="constant")  # type: ignore[arg-type]
    parameter = torch.nn.Parameter(start.clone())
    if name == "sgd":
        theirs: torch.optim.Optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.8)
    else:
        theirs = torch.optim.Adam([parameter], lr=0.1, betas=(0.8, 0.999))
    weights, state = start, OptimizerState.zero(start)
    for step in range(6):
        direction = torch.randn(5, generator=generator)
        parameter.grad = direction.clone()
        theirs.step()
        weights, state = updated(config, weights, direction=direction, state=state, at=(step, 6))
    torch.testing.assert_close(weights, parameter.detach())


def test_weight_decay_is_decoupled_from_the_direction() -> None:
    config = OptimizerConfig(name="adam", learning_rate=0.1, weight_decay=0.5, schedule="constant")
    weights, _ = updated(config, torch.ones(2), direction=torch.zeros(2), state=OptimizerState.zero(torch.ones(2)), at=(0, 1))
    torch.testing.assert_close(weights, torch.full((2,), 0.95))


def test_adam_with_weight_decay_equals_torchs_adamw() -> None:
    generator = torch.Generator().manual_seed(4)
    start = torch.randn(7, generator=generator)
    config = OptimizerConfig(learning_rate=0.013, weight_decay=0.37, schedule="constant")
    parameter = torch.nn.Parameter(start.clone())
    theirs = torch.optim.AdamW([parameter], lr=0.013, weight_decay=0.37)
    weights, state = start, OptimizerState.zero(start)
    for step in range(9):
        direction = torch.randn(7, generator=generator)
        parameter.grad = direction.clone()
        theirs.step()
        weights, state = updated(config, weights, direction=direction, state=state, at=(step, 9))
    torch.testing.assert_close(weights, parameter.detach(), atol=3e-6, rtol=1e-4)


def test_the_paper_drops_its_rate_at_epoch_20_of_25() -> None:
    config, steps = OptimizerConfig(learning_rate=1e-3, schedule="step"), 17_379
    rates = [learning_rate_at(config, step, steps) for step in range(steps)]
    last = 4 * steps // 5  # 13,903 of 17,379
    assert set(rates[: last + 1]) == {1e-3}
    assert rates[last + 1 :] == [pytest.approx(1e-4)] * (steps - last - 1)


def test_where_and_how_far_the_rate_drops_is_said_for_the_step_schedule_alone() -> None:
    config = OptimizerConfig(learning_rate=0.7, schedule="step", drop_at_frac=0.31, drop_factor=0.5)
    assert [learning_rate_at(config, step, 10) for step in (3, 4)] == [0.7, 0.35]
    with pytest.raises(BadInput, match=r"optimizer\.drop_factor belongs to optimizer\.schedule step: leave it out for cosine"):
        parse_config(OptimizerConfig, {"drop_factor": 0.5})


def test_cosine_goes_from_the_learning_rate_to_almost_nothing() -> None:
    config = OptimizerConfig(learning_rate=0.4, schedule="cosine")
    rates = [learning_rate_at(config, step, 100) for step in range(100)]
    assert rates[0] == 0.4
    assert rates[50] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.001


def test_state_survives_a_checkpoint_and_a_missing_moment_is_corrupt() -> None:
    state = OptimizerState(torch.ones(2), torch.full((2,), 3.0))
    again = OptimizerState.of_tensors(state.tensors())
    assert torch.equal(again.first, state.first)
    assert torch.equal(again.second, state.second)
    with pytest.raises(Corrupt, match="second"):
        OptimizerState.of_tensors({"optimizer.first": torch.ones(2)})


def test_average_moves_by_the_rest_of_its_decay() -> None:
    torch.testing.assert_close(averaged(torch.zeros(1), torch.ones(1), 0.9), torch.tensor([0.1]))


def corrected(noise_variance: torch.Tensor | None, *, correct: bool, steps: int = 400) -> OptimizerState:
    """The moments after directions of mean 0.3 under noise of variance 4."""
    generator, config = torch.Generator().manual_seed(0), OptimizerConfig(dp_bias_correction=correct)
    weights, state = torch.zeros(2000), OptimizerState.zero(torch.zeros(2000))
    for step in range(steps):
        direction = 0.3 + 2.0 * torch.randn(2000, generator=generator)
        weights, state = updated(config, weights, direction=direction, state=state, at=(step, steps), noise_variance=noise_variance)
    return state


def test_the_corrected_second_moment_is_that_of_the_gradient_without_its_noise() -> None:
    unbiased = 1 - 0.999**400
    assert float(corrected(None, correct=False).second.mean()) / unbiased == pytest.approx(4.09, abs=0.05)
    assert float(corrected(torch.full((2000,), 4.0), correct=True).second.mean()) / unbiased == pytest.approx(0.09, abs=0.05)


def test_no_noise_to_take_off_is_adam_bit_for_bit() -> None:
    config, weights, state = OptimizerConfig(), torch.ones(3), OptimizerState.zero(torch.ones(3))
    direction = torch.tensor([1e-20, -2.0, 0.0])
    plain = updated(config, weights, direction=direction, state=state, at=(0, 2))[0]
    assert torch.equal(plain, updated(config, weights, direction=direction, state=state, at=(0, 2), noise_variance=torch.zeros(3))[0])


def test_a_second_moment_below_zero_takes_the_floor_of_its_noise() -> None:
    config = OptimizerConfig(learning_rate=1.0, schedule="constant", dp_bias_correction=True)
    start = torch.zeros(1)
    given = {"direction": torch.tensor([0.01]), "state": OptimizerState.zero(start), "at": (0, 1)}
    moved = updated(config, start, **given, noise_variance=torch.tensor([4.0]))[0]  # type: ignore[arg-type]
    assert float(moved) == pytest.approx(-0.01 / (0.1 * 4.0) ** 0.5, rel=1e-5)


def test_only_adam_has_a_second_moment_to_correct() -> None:
    with pytest.raises(ValueError, match="adam's second moment"):
        OptimizerConfig(name="sgd", dp_bias_correction=True)
