"""A plain sum of gradients holds no more memory than its share, and is the sum all the same."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gradient_networks import NETWORKS, examples, oracle, output_loss

from dpcore.gradients import plain
from dpcore.gradients.batch import Batch
from dpcore.gradients.plain import PlainSums
from dpcore.gradients.way import TrainedModule


def copied(batch: Batch, count: int) -> Batch:
    """The first examples, in storages of their own."""
    return Batch(*(tensor[:count].clone() for tensor in batch.tensors))


@pytest.mark.parametrize("weighed", [False, True])
def test_examples_go_through_in_passes_that_hold_their_share_of_memory(weighed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module, shape = NETWORKS["tokens"].made()
    batch, given = examples(7, shape, seed=2), list[int]()
    held = [plain.held_bytes(partial(output_loss, module, some)) for some in (copied(batch, 2), copied(batch, 6))]
    of_one = (held[1] - held[0]) // 4
    assert of_one > 0
    monkeypatch.setattr(plain, "FEW", 0)
    monkeypatch.setattr(plain, "HELD_BYTES", 3 * of_one + of_one // 2)
    sums = PlainSums(TrainedModule(module, lambda m, some: given.append(len(some)) or output_loss(m, some), "fp32"))
    weights = torch.arange(7.0) if weighed else None
    total = sums.summed(batch, weights)
    assert given == [3, 2, 3, 3, 1]  # three and two, to learn the size of an example
    expected = (oracle(module, batch) * (torch.ones(7) if weights is None else weights).double()[:, None]).sum(0)
    torch.testing.assert_close(total.double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    given.clear()
    sums.summed(batch, weights)
    assert given == [3, 3, 1]


def test_pictures_go_through_channels_last_and_features_as_they_are() -> None:
    module, seen = torch.nn.Conv2d(3, 2, 3), list[bool]()

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen.append(batch.inputs.is_contiguous(memory_format=torch.channels_last) and not batch.inputs.is_contiguous())
        return network(batch.inputs).square().flatten(1).sum(1)

    batch = examples(5, (3, 8, 8), seed=2)
    total = PlainSums(TrainedModule(module, loss, "fp32")).summed(batch, None)
    assert seen == [True]
    assert batch.inputs.is_contiguous()
    expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss(module, batch).sum(), list(module.parameters()))])
    torch.testing.assert_close(total, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    other = torch.nn.Conv2d(4, 2, 3)
    PlainSums(TrainedModule(other, loss, "fp32")).summed(examples(5, (4, 8, 8), seed=2), None)
    assert seen[-1] is False


def test_a_storage_counts_once() -> None:
    weight, x = torch.randn(50, 30, requires_grad=True), torch.randn(4, 50)
    assert plain.held_bytes(lambda: (x @ weight) + (x @ weight.sin())) == 4 * (x.numel() + weight.numel())
    assert plain.held_bytes(lambda: torch.relu(x @ weight).square()) == 4 * (x.numel() + 4 * 30)
