"""A network whose rows are wrong does not begin its first private step."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hooked_peer import HookedRows, inputs_need_no_gradient
from torch import Tensor, nn
from torch.nn import functional

from dpcore.errors import Refused
from dpcore.gradients import choice
from dpcore.privacy import row_check
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.row_check import require_right_rows, row_errors


def loss(module: nn.Module, batch: Batch) -> Tensor:
    outputs: Tensor = module(batch.inputs).flatten(1).pow(2).sum(1)
    return outputs


def batch_of(*shape: int, count: int = 3) -> Batch:
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(4))
    return Batch(inputs, torch.zeros(count, 16, 2), torch.ones(count, 16, dtype=torch.bool))


class BesideItsLayer(nn.Module):
    """Uses one weight in its layer and once more beside it, where no hook sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.mix(x) + functional.linear(x * 2, self.mix.weight)
        return outputs


class Coupled(nn.Module):
    """Centres by the mean of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.mix(x)
        return outputs - 0.5 * outputs.mean(0)


class BehindAZero(nn.Module):
    """A wrong weight whose gradient is hidden by a gain that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gain = BesideItsLayer(), nn.GroupNorm(1, 6)
        nn.init.zeros_(self.gain.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.gain(self.inner(x)) + x
        return outputs


def hooked_without_proof(module: nn.Module) -> GradientEngine:
    """An engine that takes the hooks' rows as they are."""
    engine = GradientEngine(module, loss)
    engine._way = ("hooked", HookedRows(engine._trained))
    return engine


@pytest.mark.parametrize(
    ("module", "shape", "name"),
    [
        (BesideItsLayer(), (6,), "mix.weight"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")), (3, 8, 8), "0.weight"),
        (BehindAZero(), (6,), "inner.mix.weight"),
    ],
)
def test_wrong_rows_are_refused_with_the_parameter_and_its_error(module: nn.Module, shape: tuple[int, ...], name: str) -> None:
    unproven = hooked_without_proof(module)
    with inputs_need_no_gradient(), pytest.raises(Refused, match=rf"{re.escape(name)} \(\d\.?\d*"):
        require_right_rows(unproven, batch_of(*shape), precision="fp32")
    unproven.close()
    require_right_rows(GradientEngine(module, loss), batch_of(*shape), precision="fp32")


def test_examples_that_lean_on_each_other_are_refused_by_the_sum() -> None:
    """Row by row no engine can see it: alone, each example is its own mean."""
    engine = GradientEngine(Coupled(), loss)
    with pytest.raises(Refused, match=r"mix\.weight"):
        require_right_rows(engine, batch_of(6), precision="fp32")
    errors = row_errors(engine, batch_of(6))
    assert errors.rows["mix.weight"] < 1e-5
    assert errors.total["mix.weight"] > 0.1


def test_right_rows_pass_and_leave_the_weights_as_they_were() -> None:
    module = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.GroupNorm(1, 7), nn.Linear(7, 2))
    nn.init.zeros_(module[2].weight)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    engine = GradientEngine(module, loss)
    require_right_rows(engine, batch_of(6), precision="fp32")
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    errors = row_errors(engine, batch_of(6))
    assert set(errors.rows) == set(before) == set(errors.total) == set(errors.clipped)
    assert errors.largest < 2e-5  # the clip's own margin is 1e-5


def test_a_network_that_ends_in_nan_is_refused() -> None:
    module = nn.Linear(6, 2)
    nn.init.constant_(module.weight, float("inf"))
    with pytest.raises(Refused, match="weight"):
        require_right_rows(GradientEngine(module, loss), batch_of(6), precision="fp32")


class _ForgetsTheBiases:
    """A way whose rows are right, and whose clipped sums leave out every bias."""

    def __init__(self, honest: GradientEngine, batch: Batch) -> None:
        self._way = honest._way_for(batch)[1]
        self._weights = honest.parameter_count - 2

    def rows(self, batch: Batch, entry_weights: tuple[float, ...]) -> Any:
        return self._way.rows(batch, entry_weights)

    def summed(self, entries: Any, entry_weights: tuple[float, ...], factors_of: Any) -> Any:
        found = self._way.summed(entries, entry_weights, factors_of)
        found.total[self._weights :] = 0.0
        return found

    def records_at_once(self, batch: Batch) -> int:
        return self._way.records_at_once(batch)

    def close(self) -> None:
        self._way.close()


def test_a_clipped_sum_that_is_not_that_of_the_rows_is_refused() -> None:
    engine, batch = GradientEngine(nn.Linear(6, 2), loss), batch_of(6)
    engine._way = ("book-keeping", _ForgetsTheBiases(engine, batch))
    errors = row_errors(engine, batch)
    assert max(*errors.rows.values(), *errors.total.values()) < 1e-5
    assert errors.clipped["weight"] < 2e-5
    with pytest.raises(Refused, match=r"bias \(1\)"):
        require_right_rows(engine, batch, precision="fp32")


def test_a_network_without_gradient_has_no_error() -> None:
    module = nn.Linear(6, 2)
    module.requires_grad_(True)
    engine = GradientEngine(module, lambda network, batch: 0.0 * network(batch.inputs).sum(1))
    assert row_errors(engine, batch_of(6)).largest == 0.0


def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hears of each comparison and of each proof that is really made."""
    made: list[str] = []
    compared, proved = row_check.row_errors, choice._first_right_way
    monkeypatch.setattr(row_check, "row_errors", lambda *given: made.append("rows") or compared(*given))
    monkeypatch.setattr(choice, "_first_right_way", lambda *given: made.append("way") or proved(*given))
    return made


def test_engines_of_one_name_are_checked_once_and_every_other_difference_is_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made, module, batch = passes(monkeypatch), nn.Linear(6, 2), batch_of(6)

    def checked(name: str | None, examples: Batch = batch) -> list[str]:
        made.clear()
        engine = GradientEngine(module, loss, name=name)
        require_right_rows(engine, examples, precision="fp32")
        assert engine.way(examples) == "book-keeping"
        engine.close()
        return list(made)

    assert checked("a trial") == ["rows", "way"]
    assert checked("a trial") == []
    assert checked("another loss") == ["rows", "way"]
    assert checked("a trial", Batch(batch.inputs + 1.0, *batch.tensors[1:])) == ["rows"]  # shapes alone decide the way
    assert checked(None) == checked(None) == ["rows", "way"]
    with torch.no_grad():
        module.weight[0, 0] += 1e-3
    assert checked("a trial") == ["rows"]


def test_an_engine_whose_rows_are_wrong_is_refused_whoever_passed_before() -> None:
    module, batch = nn.Linear(6, 2), batch_of(6)
    require_right_rows(GradientEngine(module, loss, name="wrong elsewhere"), batch, precision="fp32")
    nn.init.constant_(module.weight, float("inf"))
    for _ in range(2):  # and what was refused is refused again
        with pytest.raises(Refused, match="weight"):
            require_right_rows(GradientEngine(module, loss, name="wrong elsewhere"), batch, precision="fp32")
