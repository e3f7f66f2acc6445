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


class Convolution(torch.nn.Conv2d):
    reads_channels_last = True


@pytest.mark.parametrize(("says_so", "channels", "expected"), [(True, 3, True), (True, 4, False), (False, 3, False)])
def test_only_a_network_that_says_so_is_given_channels_last_and_only_pictures(says_so: bool, channels: int, expected: bool) -> None:
    kind = Convolution if says_so else torch.nn.Conv2d
    module, seen = torch.nn.Sequential(kind(channels, 2, 3)), list[bool]()

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen.append(not batch.inputs.is_contiguous())
        outputs: torch.Tensor = network(batch.inputs)
        return outputs.square().flatten(1).sum(1)

    batch = examples(5, (channels, 8, 8), seed=2)
    total = PlainSums(TrainedModule(module, loss, "fp32")).summed(batch, None)
    assert seen == [expected]
    assert batch.inputs.is_contiguous()
    plain = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss(module, batch).sum(), list(module.parameters()))])
    torch.testing.assert_close(total, plain, atol=1e-5 * float(plain.abs().max()), rtol=1e-4)


def test_a_storage_counts_once() -> None:
    weight, x = torch.randn(50, 30, requires_grad=True), torch.randn(4, 50)
    assert plain.held_bytes(lambda: (x @ weight) + (x @ weight.sin())) == 4 * (x.numel() + weight.numel())
    assert plain.held_bytes(lambda: torch.relu(x @ weight).square()) == 4 * (x.numel() + 4 * 30)
