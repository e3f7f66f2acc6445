"""The way to rows is taken only if it is right for the network at hand: each odd network against a loop of single examples."""

from __future__ import annotations

import pytest
import torch
from gradient_networks import NETWORKS, examples, oracle, output_loss
from torch import Tensor, nn

from dpcore.privacy.per_example import Batch, GradientEngine


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_rows_of_any_network_equal_a_loop_of_single_examples(name: str) -> None:
    module, shape = NETWORKS[name].made()
    engine, batch, views = GradientEngine(module, output_loss), examples(3, shape, seed=2), examples(3, shape, seed=3)
    single, public = oracle(module, batch), oracle(module, views)
    scale = float(single.abs().max())
    torch.testing.assert_close(engine.rows(batch).double(), single, atol=1e-5 * scale, rtol=1e-4)
    torch.testing.assert_close(engine.residual_rows(batch, views, 0.7).double(), single - 0.7 * public, atol=2e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_example_of_nan_or_inf_reaches_no_other_row_of_any_network(name: str) -> None:
    module, shape = NETWORKS[name].made()
    engine, batch = GradientEngine(module, output_loss), examples(3, shape, seed=2)
    clean = engine.rows(batch)
    for value in (float("nan"), float("inf")):
        spoilt = Batch(batch.inputs.clone(), batch.keypoints, batch.visible)
        spoilt.inputs[1] = value
        assert torch.equal(engine.rows(spoilt)[[0, 2]], clean[[0, 2]])
        assert torch.equal(engine.residual_rows(batch, spoilt, 0.5)[[0, 2]], engine.residual_rows(batch, batch, 0.5)[[0, 2]])


class Sorted(nn.Module):
    """Asks a number of its input, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        scale = 2.0 if float(inputs.abs().sum().detach()) >= 0.0 else 1.0
        return scale * inputs * self.bare


def test_a_network_that_nothing_else_covers_is_looped() -> None:
    module = Sorted()
    engine, batch = GradientEngine(module, output_loss), examples(3, (4,), seed=2)
    torch.testing.assert_close(engine.rows(batch).double(), oracle(module, batch))
    assert engine.way(batch) == "looped"


def test_an_error_of_the_network_itself_is_raised_and_not_taken_for_a_way_that_does_not_fit() -> None:
    engine = GradientEngine(nn.Linear(5, 2), output_loss)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        engine.rows(examples(3, (4,), seed=2))


def test_the_proof_reads_no_number_of_the_batch_and_moves_no_weight() -> None:
    module, shape = NETWORKS["small"].made()
    before = [p.clone() for p in module.parameters()]
    spoilt = examples(3, shape, seed=2)
    spoilt.inputs[:] = float("nan")
    engine = GradientEngine(module, output_loss)
    assert engine.way(spoilt) == GradientEngine(NETWORKS["small"].made()[0], output_loss).way(examples(3, shape, seed=2))
    assert all(torch.equal(p, q) for p, q in zip(before, module.parameters(), strict=True))
