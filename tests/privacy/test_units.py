"""Units of privacy: who belongs to one, what of it takes part, and how that becomes one row."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.privacy.clipping import BoundedSum, clip_rows
from dpcore.privacy.noise import add_noise
from dpcore.privacy.randomness import NumpyStream, PrivateStreams, RandomStream, SweepKey, poisson_sample
from dpcore.privacy.units import Chosen, UnitRows, Units

SIZE = 6
IDS = np.array(["b", "a", "b", "c", "b", "a"])
METHODS = ["dpsgd", "projected", "feature", "feature_projected"]


def stream_of(name: str, seed: int = 0) -> RandomStream:
    return NumpyStream(np.random.default_rng([seed, *name.encode()]))


def values(count: int = 6, *, scale: float = 5.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def test_units_stand_in_the_order_of_their_first_example() -> None:
    units = Units.of_ids(IDS)
    assert units.names.tolist() == ["b", "a", "c"]
    chosen = units.choose(np.arange(3), 9, stream_of)
    assert chosen.examples.tolist() == [0, 2, 4, 1, 5, 3]
    assert chosen.sizes.tolist() == [3, 2, 1]
    assert chosen.unit_of.tolist() == [0, 0, 0, 1, 1, 2]


def test_ids_that_differ_make_every_example_its_own_unit() -> None:
    ids = np.array([f"z{9 - i}" for i in range(9)])
    drawn = np.array([1, 4, 8])
    for units in (Units.of_ids(ids), Units.single(9)):
        chosen = units.choose(drawn, 1, stream_of)
        assert chosen.is_single
        assert chosen.examples.tolist() == drawn.tolist()


def test_no_unit_drawn_gives_no_example() -> None:
    chosen = Units.of_ids(IDS).choose(np.zeros(0, dtype=np.int64), 1, stream_of)
    assert len(chosen.examples) == len(chosen.drawn) == len(list(chosen.slices(4))) == 0


def test_a_unit_gives_at_most_its_cap_and_what_it_gives_depends_on_no_other_unit() -> None:
    units = Units.of_ids(IDS)
    alone = {unit: set(units.choose(np.array([unit]), 2, stream_of).examples.tolist()) for unit in range(3)}
    assert [len(found) for found in alone.values()] == [2, 2, 1]
    together = units.choose(np.arange(3), 2, stream_of)
    fewer = Units.of_ids(IDS[[0, 2, 3, 4]]).choose(np.array([0]), 2, stream_of)
    assert set(together.examples[:2].tolist()) == alone[0]
    assert {[0, 2, 3, 4][row] for row in fewer.examples} == alone[0]


def test_of_many_units_above_their_cap_each_is_chosen_from_by_its_own_stream() -> None:
    ids = np.repeat(np.array(["b", "a", "c"]), 12)
    units, others = Units.of_ids(ids), Units.of_ids(np.where(ids == "b", "b", np.char.add("other-", ids)))
    chosen = units.choose(np.arange(3), 5, stream_of).examples.reshape(3, 5)
    for unit, name in enumerate("bac"):
        order = np.argsort(stream_of(name).uniform(12), kind="stable")[:5]
        assert chosen[unit].tolist() == sorted(12 * unit + order)
    assert others.choose(np.arange(3), 5, stream_of).examples[:5].tolist() == chosen[0].tolist()


def test_the_choice_is_uniform_over_the_examples_of_a_unit() -> None:
    units = Units.of_ids(np.array(["u"] * 5))
    counts = np.zeros(5)
    for seed in range(2000):
        counts[units.choose(np.array([0]), 2, partial(stream_of, seed=seed)).examples] += 1
    assert counts.sum() == 4000
    assert stats.chisquare(counts).pvalue > 1e-6
    assert stats.chisquare(counts + np.array([400, -100, -100, -100, -100])).pvalue < 1e-6


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 64])
def test_a_unit_over_several_physical_batches_is_one_mean(size: int) -> None:
    chosen, rows = Units.of_ids(IDS).choose(np.arange(3), 9, stream_of), values()[[0, 2, 4, 1, 5, 3]]
    merged = UnitRows(chosen)
    found = torch.cat([merged.complete(rows[some], some) for some in chosen.slices(size)])
    torch.testing.assert_close(found, torch.stack([rows[:3].mean(0), rows[3:5].mean(0), rows[5]]))
    assert merged.nonfinite == 0


def test_a_nan_example_counts_as_zeros_in_its_unit_and_is_counted() -> None:
    chosen, rows = Units.of_ids(IDS).choose(np.arange(3), 9, stream_of), torch.ones(6, SIZE)
    rows[1, 2], rows[5, 0] = float("nan"), float("inf")
    merged = UnitRows(chosen)
    found = torch.cat([merged.complete(rows[some], some) for some in chosen.slices(2)])
    torch.testing.assert_close(found[:, 0], torch.tensor([2 / 3, 1.0, 0.0]))
    assert merged.nonfinite == 2


def test_rows_that_are_not_those_of_the_slice_are_refused() -> None:
    chosen = Units.of_ids(IDS).choose(np.arange(3), 9, stream_of)
    with pytest.raises(BadInput, match="4 examples need as many rows, given 3"):
        UnitRows(chosen).complete(torch.zeros(3, SIZE), slice(0, 4))


@pytest.mark.parametrize("method", [*METHODS, "nonprivate"])
def test_one_example_a_unit_is_the_mechanism_without_units_bit_for_bit(toy: Any, method: str) -> None:
    noise = None if method == "nonprivate" else 1.0
    ids = np.array([f"image-{i}" for i in range(8)])
    for cap in (1, 3):
        released = []
        for given in (None, ids):
            config = toy.config(method, examples_per_unit=cap, **{"stages.private.expected_batch_size": 5})
            source = toy.source(values(8), values(8, seed=1))
            made = toy.mechanism(config, source, physical=3, noise_multiplier=noise, ids=given)
            released.append([made.direction(step).value for step in range(4)])
        assert all(torch.equal(a, b) for a, b in zip(*released, strict=True))


def test_one_example_a_unit_is_the_sum_that_was_written_before_units(toy: Any) -> None:
    """The loop over records, written out: draw, clip, add up per physical batch, noise, divide."""
    inputs, streams = values(40), PrivateStreams(key=SweepKey(bytes(range(32))), trial_id="t")
    config = toy.config("dpsgd", **{"data.nominal_examples": 40, "stages.private.expected_batch_size": 20})
    made = toy.mechanism(config, toy.source(inputs), physical=7)
    for step in range(3):
        drawn = poisson_sample(streams.stream("sampling", step), 40, 0.5)
        total = BoundedSum.empty(SIZE, 1.0)
        for start in range(0, len(drawn), 7):
            total = total.plus(clip_rows(inputs[drawn[start : start + 7]], 1.0).sum())
        released = add_noise(total, noise_multiplier=1.0, stream=streams.stream("noise", step))
        # the sum is taken without rows, so it rounds otherwise
        torch.testing.assert_close(made.direction(step).value, (released.value / 20).to(torch.float32), rtol=2e-6, atol=2e-7)


def test_the_private_sum_and_the_public_term_are_means_over_units_of_means_over_their_examples(toy: Any) -> None:
    inputs, views = values(scale=0.01), values(scale=0.01, seed=1)
    config = toy.config("feature", public_weight=0.5, clip_norm=100.0, examples_per_unit=9, public_batch_size=3)
    direction = toy.mechanism(config, toy.source(inputs, views), noise_multiplier=1e-9, ids=IDS, physical=2).direction(0)
    groups = [[0, 2, 4], [1, 5], [3]]
    public = sum(views[rows].mean(0) for rows in groups) / 3
    private = sum((inputs[rows] - 0.5 * views[rows]).mean(0) for rows in groups) / 8
    torch.testing.assert_close(direction.public_term, 0.5 * public, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(direction.value, 0.5 * public + private, atol=1e-7, rtol=1e-4)


def test_the_ceiling_weighs_units_as_the_private_sum_does(toy: Any) -> None:
    inputs = values()
    config = toy.config("nonprivate", examples_per_unit=9)
    made = toy.mechanism(config, toy.source(inputs), noise_multiplier=None, ids=IDS, physical=2)
    expected = (inputs[[0, 2, 4]].mean(0) + inputs[[1, 5]].mean(0) + inputs[3]) / 8
    torch.testing.assert_close(made.direction(0).value, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_unit_at_its_cap_counts_once(toy: Any, method: str) -> None:
    """Fifty copies of a record in one unit release what one copy does; as units of their own they would move it by 50 C."""
    one = values(1)
    released = []
    for copies in (1, 50):
        inputs, views = one.expand(copies, SIZE).contiguous(), toy.source(values(8, seed=3))
        ids, view_ids = np.array(["u"] * copies), np.arange(8).astype(str)
        config = toy.config(method, examples_per_unit=20)
        made = toy.mechanism(config, toy.source(inputs, 0.1 * inputs), physical=7, views=views, ids=ids, view_ids=view_ids)
        released.append(made.direction(0).value)
    torch.testing.assert_close(released[0], released[1], atol=1e-5, rtol=1e-4)


def test_the_order_of_examples_within_a_unit_does_not_matter(toy: Any) -> None:
    inputs, views = values(), values(seed=1)
    swapped = [4, 5, 0, 3, 2, 1]
    config = toy.config("feature", examples_per_unit=9, public_batch_size=3)
    released = [
        toy.mechanism(config, toy.source(inputs[order], views[order]), ids=IDS[order], physical=2).direction(0).value
        for order in ([0, 1, 2, 3, 4, 5], swapped)
    ]
    torch.testing.assert_close(*released, atol=1e-5, rtol=1e-5)


def test_the_choice_is_secret_and_new_at_every_step(toy: Any) -> None:
    ids = np.array(["u"] * 40)

    def chosen(key: SweepKey, seed: int = 0) -> list[list[int]]:
        made = toy.mechanism(toy.config("dpsgd", examples_per_unit=5, seed=seed), toy.source(values(40)), key=key, ids=ids)
        return [made.direction(step).sealed.examples.tolist() for step in range(3)]

    first = chosen(SweepKey(bytes(32)))
    assert first[0] != first[1] != first[2]
    assert chosen(SweepKey(bytes(32)), seed=7) == first
    assert chosen(SweepKey(bytes([1]) * 32)) != first


def test_units_are_drawn_by_poisson_sampling_whatever_they_hold(toy: Any) -> None:
    """Inclusion counts of a large and a small unit are both binomial; example-wise sampling would favour the large one."""
    ids = np.array(["large"] * 30 + [f"small-{i}" for i in range(9)])
    config = toy.config("dpsgd", **{"data.nominal_examples": 10, "stages.private.expected_batch_size": 3})
    made = toy.mechanism(config, toy.source(values(39)), key=SweepKey.fresh(), ids=ids)
    steps = 600
    counts = np.zeros(10)
    for step in range(steps):
        counts[made.direction(step).sealed.drawn] += 1
    assert min(stats.binomtest(int(count), steps, 0.3).pvalue for count in counts) > 1e-7


def test_sealed_says_what_was_drawn_and_shows_nothing(toy: Any) -> None:
    sealed = toy.mechanism(toy.config("dpsgd", examples_per_unit=2), toy.source(values()), ids=IDS).direction(0).sealed
    assert (sealed.batch_size, sealed.drawn.tolist(), len(sealed.examples)) == (3, [0, 1, 2], 5)
    assert repr(sealed) == "Sealed()"


def test_units_of_another_dataset_are_refused(toy: Any) -> None:
    with pytest.raises(BadInput, match="the units hold 6 examples, their source has 4"):
        toy.mechanism(toy.config("dpsgd"), toy.source(values(4)), ids=IDS)


def test_a_chosen_batch_without_units_has_no_weights() -> None:
    chosen = Chosen(np.arange(3), np.arange(3), np.ones(3, dtype=np.int64))
    assert chosen.weights(slice(0, 2), device=torch.device("cpu")) is None
