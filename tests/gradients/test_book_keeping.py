"""Book-keeping: norms and weighted sums without rows, against rows of single examples in float64, where arithmetic is hardest."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from gradient_networks import NETWORKS, Network, Switched, examples, oracle, output_loss
from torch import Tensor, nn

from dpcore.gradients import book_keeping, shares
from dpcore.gradients.book_keeping import BookKeptRows
from dpcore.gradients.shares import Products
from dpcore.gradients.tape import TrainedLayer
from dpcore.gradients.way import TrainedModule
from dpcore.privacy.per_example import Batch, GradientEngine

CLIP_NORM = 0.37
SHARES = ("again", "kept", "products", "together")


Force = Callable[..., None]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Force:
    """Sets how every layer comes to its share of the sum, where it can, and how many records at a time."""

    def choose(share: str, at_once: int = 1) -> None:
        def suits(layer: TrainedLayer, calls: object) -> bool:
            return share == "products" and type(layer.module) is nn.Linear and "weight" in layer.names

        monkeypatch.setattr(book_keeping, "SMALL", 10**9 if share == "together" else 0)
        monkeypatch.setattr(book_keeping, "KEPT_SHARE", 0.0 if share == "again" else 1e9)
        monkeypatch.setattr(shares, "BYTES_AT_ONCE", at_once)
        monkeypatch.setattr(Products, "suit", staticmethod(suits))

    return choose


def clipped(rows: Tensor, clip_norm: float = CLIP_NORM) -> Tensor:
    return (rows * (clip_norm / rows.norm(dim=1)).clamp(max=1.0)[:, None]).sum(0)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_clipped_sum_of_any_network_is_that_of_single_examples(name: str, share: str, force: Force) -> None:
    force(share)
    module, shape = NETWORKS[name].made()
    engine, batch, views = GradientEngine(module, output_loss), examples(5, shape, seed=2), examples(5, shape, seed=3)
    single, public = oracle(module, batch), oracle(module, views)
    clip_norm = float(single.norm(dim=1).median())
    for view_batch, rows in ((None, single), (views, single - 0.7 * public)):
        bounded, losses = engine.clipped_sum(batch, view_batch, 0.7, clip_norm=clip_norm)
        torch.testing.assert_close(bounded.value, clipped(rows, clip_norm), atol=3e-5 * clip_norm, rtol=1e-4)
        assert (bounded.rows, bounded.l2_bound) == (5, clip_norm)
        torch.testing.assert_close(losses, output_loss(module, batch).detach())


@pytest.mark.parametrize("name", ["small", "windows", "linear over positions"])
def test_shares_and_chunks_change_nothing_but_rounding(name: str, force: Force) -> None:
    found = []
    for share in SHARES:
        for at_once in (1, 2**30):
            force(share, at_once)
            module, shape = NETWORKS[name].made()
            bounded, _ = GradientEngine(module, output_loss).clipped_sum(examples(6, shape, seed=2), None, 0.0, clip_norm=CLIP_NORM)
            found.append(bounded.value)
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], atol=1e-6 * CLIP_NORM, rtol=1e-5)


class Positions(nn.Module):
    """A linear map over positions whose backprops the test chooses: the loss is Σ_t ⟨b_t, W a_t⟩."""

    def __init__(self, channels: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.map = nn.Linear(channels, outputs, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, channels + outputs) hold the backprops behind the positions: (B, T)."""
        channels = self.map.in_features
        outputs: Tensor = (self.map(inputs[..., :channels]) * inputs[..., channels:]).sum(-1)
        return outputs


def hard_positions(case: str) -> tuple[Tensor, Tensor]:
    """Inputs (8, T, 24) and backprops (8, T, 16) whose inner products cancel."""
    generator = torch.Generator().manual_seed(7)
    inputs, backs = torch.randn(8, 6, 24, generator=generator), torch.randn(8, 6, 16, generator=generator)
    if case.startswith("mean"):
        inputs, backs = inputs + float(case.split()[1]), backs - backs.mean(dim=1, keepdim=True)
    elif case == "antipodal":
        inputs, backs = inputs[:, :3].repeat(1, 2, 1), torch.cat([backs[:, :3], -backs[:, :3] * (1 + 1e-5)], dim=1)
    elif case == "one huge coordinate":
        inputs[..., 5], backs = 3e4, backs - backs.mean(dim=1, keepdim=True)
    return inputs, backs


HARD = ["mean 100", "mean 1000", "antipodal", "one huge coordinate"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("case", HARD)
def test_no_norm_is_too_small_where_inner_products_cancel(case: str, share: str, bias: bool, force: Force) -> None:
    """A float32 Gram norm is wrong by 8e-5 at mean 100 and 1.5e-3 at mean 1000, where the margin is 1e-5."""
    force(share)
    inputs, backs = hard_positions(case)
    batch = Batch(torch.cat([inputs, backs], dim=2), torch.zeros(8, 1, 2), torch.ones(8, 1, dtype=torch.bool))
    module = Positions(24, 16, bias=bias)
    way = BookKeptRows(TrainedModule(module, lambda m, b: m(b.inputs).sum(1), "fp32"))
    told: list[Tensor] = []

    def alone(record: int) -> Tensor:
        def factors_of(norms: Tensor) -> Tensor:
            told.append(norms)
            return (CLIP_NORM * (1 - 1e-5) / norms) * (torch.arange(8) == record)

        return way.summed([batch], (1.0,), factors_of).total

    added = torch.stack([alone(record) for record in range(8)])
    assert bool((added.norm(dim=1) <= CLIP_NORM).all())
    if share == "products":
        rows = torch.einsum("bto,bti->boi", backs.double(), inputs.double()).flatten(1)
        rows = torch.cat([rows, backs.double().sum(1)], dim=1) if bias else rows
        assert bool((told[0] >= rows.norm(dim=1) * (1 - 1e-9)).all())
        assert bool((told[0] <= rows.norm(dim=1) * (1 + 1e-2)).all())


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["small", "windows", "linear over positions"])
def test_a_record_that_is_not_finite_adds_nothing_to_the_sum(name: str, share: str, force: Force) -> None:
    force(share, 2**30)
    module, shape = NETWORKS[name].made()
    engine, batch = GradientEngine(module, output_loss), examples(4, shape, seed=2)
    kept = [0, 1, 3]
    expected = clipped(oracle(module, Batch(batch.inputs[kept], batch.keypoints[kept], batch.visible[kept])))
    for value in (float("nan"), float("inf")):
        batch.inputs[2] = value
        bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM)
        assert (bounded.rows, bounded.nonfinite) == (4, 1)
        torch.testing.assert_close(bounded.value, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("share", SHARES)
def test_a_pass_leaves_nothing_for_the_next_one(share: str, force: Force) -> None:
    """Buffers are used again, by batches of other sizes and by pairs."""
    force(share, 2**30)
    module, shape = NETWORKS["small"].made()
    engine = GradientEngine(module, output_loss)
    for count, seed in ((7, 2), (3, 4), (5, 6), (5, 8)):
        batch, views = examples(count, shape, seed=seed), examples(count, shape, seed=seed + 1)
        for view_batch in (views, None):
            again = GradientEngine(NETWORKS["small"].made()[0], output_loss)
            expected, _ = again.clipped_sum(batch, view_batch, 0.5, clip_norm=CLIP_NORM)
            assert torch.equal(engine.clipped_sum(batch, view_batch, 0.5, clip_norm=CLIP_NORM)[0].value, expected.value)
        assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert engine.way(batch) == "book-keeping"


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("clip_norm", [1e-12, 1e-7])
def test_the_longest_rows_keep_the_bound_where_float32_has_no_factor_for_them(clip_norm: float, share: str, force: Force) -> None:
    force(share)
    engine = GradientEngine(nn.Linear(3, 1, bias=False), lambda m, b: m(b.inputs)[:, 0])
    engine.set_flat_weights(torch.zeros(3))
    for length in (1.3e20, 8.6e25, 9.9e30):
        inputs = torch.tensor([[0.6 * length, 0.0, -0.8 * length]])
        inputs = inputs if length < 1e19 else torch.tensor([[length, 0.0, 0.0]])
        batch = Batch(inputs, torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))
        bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=clip_norm)
        assert float(bounded.value.norm()) <= clip_norm
        assert bounded.nonfinite or float(bounded.value.norm()) >= clip_norm * (1 - 3e-5)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["small", "windows", "tokens", "tied"])
def test_pairs_one_after_the_other_and_few_at_a_time_give_the_sum_of_pairs_side_by_side(
    name: str, share: str, force: Force, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large maps go through the network apart, where the memory of two would cost more than the work on them."""
    force(share)
    module, shape = NETWORKS[name].made()
    batch, views = examples(5, shape, seed=2), examples(5, shape, seed=3)
    engine, found = GradientEngine(module, output_loss), []
    whole = book_keeping.MAP_BYTES // BookKeptRows(TrainedModule(copy.deepcopy(module), output_loss, "fp32")).records_at_once(batch)
    for records in (100, 6, 2, 1):
        monkeypatch.setattr(book_keeping, "MAP_BYTES", records * whole)
        bounded, losses = engine.clipped_sum(batch, views, 0.7, clip_norm=CLIP_NORM)
        assert (bounded.rows, len(losses)) == (5, 5)
        found.append(bounded.value)
    for one in found:
        torch.testing.assert_close(one, clipped(oracle(module, batch) - 0.7 * oracle(module, views)), atol=3e-5 * CLIP_NORM, rtol=1e-4)


def test_a_pass_holds_no_more_than_its_share_of_memory_however_many_records_come(monkeypatch: pytest.MonkeyPatch) -> None:
    module, shape = NETWORKS["tokens"].made()
    batch, trained = examples(7, shape, seed=2), TrainedModule(copy.deepcopy(module), output_loss, "fp32")
    rows = BookKeptRows(trained)
    monkeypatch.setattr(book_keeping, "MAP_BYTES", sys.maxsize)
    monkeypatch.setattr(book_keeping, "HELD_BYTES", 10**9)
    of_one = 10**9 // rows.records_at_once(batch)
    assert of_one >= 4 * sum(p.numel() for p in module.parameters())  # rows are a part of it
    monkeypatch.setattr(book_keeping, "HELD_BYTES", 3 * of_one + of_one // 2)
    engine = GradientEngine(module, output_loss)
    engine.way(batch)  # the choice of a way makes sums of its own
    given: list[int] = []
    summed = BookKeptRows.summed
    monkeypatch.setattr(BookKeptRows, "summed", lambda self, entries, *rest: given.append(len(entries[0])) or summed(self, entries, *rest))
    bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM)
    assert given == [3, 3, 1]
    torch.testing.assert_close(bounded.value, clipped(oracle(module, batch)), atol=3e-5 * CLIP_NORM, rtol=1e-4)


@pytest.mark.parametrize("share", SHARES)
def test_a_layer_that_a_pass_does_not_use_adds_nothing_of_the_pass_before(share: str, force: Force) -> None:
    force(share)
    module, _ = Network(Switched, (4,)).made()
    assert isinstance(module, Switched)
    engine, batch = GradientEngine(module, output_loss), examples(3, (4,), seed=2)
    for module.uses_both in (True, False, True):
        bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM)
        torch.testing.assert_close(bounded.value, clipped(oracle(module, batch)), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "way"), [("layer scale", "book-keeping"), ("standardised convolution", "book-keeping of exact types")])
def test_a_layer_takes_its_base_class_rule_only_where_that_is_right(name: str, way: str) -> None:
    module, shape = NETWORKS[name].made()
    assert GradientEngine(module, output_loss).way(examples(3, shape, seed=2)) == way


class Skipping(nn.Module):
    """One layer's output is used by nothing, another layer not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.unused = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        self.idle(inputs)
        outputs: Tensor = self.used(inputs)
        return outputs


def test_layers_without_a_part_in_the_loss_have_rows_of_zeros() -> None:
    module, _ = Network(Skipping, (4,)).made()
    engine, batch = GradientEngine(module, output_loss), examples(3, (4,), seed=2)
    assert engine.way(batch) == "book-keeping"
    torch.testing.assert_close(engine.rows(batch).double(), oracle(module, batch), atol=1e-5, rtol=1e-4)
    bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM)
    torch.testing.assert_close(bounded.value, clipped(oracle(module, batch)), atol=1e-6, rtol=1e-4)


def test_only_what_trains_is_computed_and_frozen_layers_pass_gradients_on() -> None:
    module, shape = NETWORKS["small"].made()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    engine, batch = GradientEngine(module, output_loss), examples(3, shape, seed=2)
    assert engine.way(batch) == "book-keeping"
    torch.testing.assert_close(engine.rows(batch).double(), oracle(module, batch), atol=1e-5, rtol=1e-4)
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["conv.bias", "norm.bias", "depthwise.bias", "shared.bias"]


def test_rows_and_clipped_sum_equal_those_of_opacus() -> None:
    """Opacus as a peer, on layers that it knows."""
    from opacus.grad_sample import GradSampleModule

    module, shape = NETWORKS["small"].made()
    peer, batch = GradSampleModule(NETWORKS["small"].made()[0], loss_reduction="sum"), examples(6, shape, seed=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        output_loss(peer, batch).sum().backward()  # type: ignore[no-untyped-call]
    rows = torch.cat([p.grad_sample.flatten(1) for p in peer.parameters()], dim=1)  # type: ignore[attr-defined]
    engine = GradientEngine(module, output_loss)
    torch.testing.assert_close(engine.rows(batch), rows, atol=1e-5, rtol=1e-4)
    bounded, _ = engine.clipped_sum(batch, None, 0.0, clip_norm=CLIP_NORM)
    torch.testing.assert_close(bounded.value, clipped(rows.double()), atol=1e-5, rtol=1e-4)
