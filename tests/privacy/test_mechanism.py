"""The mechanism on Dirac examples: its order, its laws, what it reads, what it refuses.

A Dirac example's gradient is the example itself (see conftest), so a private sum can be written down. With a tiny noise
multiplier and one key, two runs share their noise and their difference is the difference of the private sums.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dpcore.errors import BadInput, Refused
from dpcore.privacy import mechanism as mechanism_module
from dpcore.privacy.mechanism import Mechanism, Randomness, Sources
from dpcore.privacy.randomness import Indices, PrivateStreams, PublicStreams, RandomStream, SweepKey, poisson_sample
from dpcore.privacy.subspace import SubspaceBasis

SIZE = 6
TINY_NOISE = 1e-6
METHODS = ["dpsgd", "projected", "feature", "feature_projected"]
ORDERS = ["clip_then_project", "project_then_clip"]


def records(count: int = 8, *, scale: float = 5.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def with_order(method: str, order: str, **changes: Any) -> dict[str, Any]:
    return changes | ({"subspace.order": order} if "projected" in method else {})


def private_sum(toy: Any, config: Any, inputs: Tensor, views: Tensor, *, physical: int = 64, public_views: Tensor | None = None) -> Tensor:
    """α·(noised sum) of step 0 without its public term, at q = 1 and hardly any noise."""
    source = toy.source(inputs, views)
    fixed_views = toy.source(views if public_views is None else public_views)
    mechanism = toy.mechanism(config, source, noise_multiplier=TINY_NOISE, physical=physical, views=fixed_views)
    direction = mechanism.direction(0)
    public = 0.0 if direction.public_term is None else direction.public_term
    return (direction.value - public) * config.stages.private.expected_batch_size


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("physical", [1, 3, 64])
@pytest.mark.parametrize("method", METHODS)
def test_sum_moves_at_most_the_clip_norm_when_one_record_is_removed(toy: Any, method: str, physical: int, order: str) -> None:
    config = toy.config(method, **with_order(method, order, clip_norm=0.7))
    inputs, views = records(), records(seed=1)
    whole = private_sum(toy, config, inputs, views, physical=physical)
    moved = []
    for gone in range(len(inputs)):
        left = [i for i in range(len(inputs)) if i != gone]
        neighbour = private_sum(toy, config, inputs[left], views[left], physical=physical, public_views=views)
        moved.append(float((whole - neighbour).double().norm()))
    assert max(moved) <= 0.7 + 1e-4
    # every record is longer than the bound, so outside a projection that follows the clip the bound is reached
    if "projected" not in method or order == "project_then_clip":
        assert min(moved) >= 0.7 - 1e-3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_hybrid_without_projection_keeps_the_bound_at_both_ends_of_its_public_weight(toy: Any, weight: float, order: str) -> None:
    changes = {"subspace.rank": "full", "subspace.order": order, "public_weight": weight, "clip_norm": 0.7}
    config, inputs, views = toy.config("feature_projected", **changes), records(), records(seed=1)
    whole = private_sum(toy, config, inputs, views)
    moved = []
    for gone in range(len(inputs)):
        left = [i for i in range(len(inputs)) if i != gone]
        moved.append(float((whole - private_sum(toy, config, inputs[left], views[left], public_views=views)).double().norm()))
    assert 0.7 - 1e-3 <= min(moved) <= max(moved) <= 0.7 + 1e-4


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_physical_batch_size_changes_nothing(toy: Any, method: str, order: str) -> None:
    config = toy.config(method, **with_order(method, order))
    sums = [private_sum(toy, config, records(), records(seed=1), physical=physical) for physical in (1, 2, 5, 8, 64)]
    for other in sums[1:]:
        torch.testing.assert_close(other, sums[0], atol=1e-5, rtol=1e-5)


def test_the_sum_is_the_hand_made_one(toy: Any) -> None:
    inputs = torch.zeros(2, SIZE)
    inputs[0, 0], inputs[1, 1] = 0.5, 10.0
    views = torch.zeros(2, SIZE)
    views[0, 2], views[1, 1] = 0.25, 2.0
    plain = private_sum(toy, toy.config("dpsgd"), inputs, views)
    assert plain.tolist() == pytest.approx([0.5, 1, 0, 0, 0, 0], abs=1e-4)
    residual = private_sum(toy, toy.config("feature", public_weight=1.0, public_batch_size=2), inputs, views)
    assert residual.tolist() == pytest.approx([0.5, 1, -0.25, 0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("method", "changes", "equal_to"),
    [
        ("feature", {"public_weight": 0.0}, "dpsgd"),
        ("projected", {"subspace.rank": "full"}, "dpsgd"),
        ("feature_projected", {"subspace.rank": "full"}, "feature"),
        ("feature_projected", {"public_weight": 0.0}, "projected"),
        ("feature_projected", {"public_weight": 0.0, "subspace.rank": "full"}, "dpsgd"),
    ],
)
def test_the_hybrid_equals_its_parts_bit_for_bit(toy: Any, method: str, changes: dict[str, Any], equal_to: str, order: str) -> None:
    values = []
    for name, extra in ((method, changes), (equal_to, {})):
        config = toy.config(name, **with_order(name, order, **extra), **{"stages.private.expected_batch_size": 5})
        mechanism = toy.mechanism(config, toy.source(records(), records(seed=1)), physical=3)
        values.append([mechanism.direction(step).value for step in range(4)])
    for mine, part in zip(*values, strict=True):
        assert torch.equal(mine, part)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_still_adds_noise_and_counts(toy: Any, method: str, order: str) -> None:
    config = toy.config(method, **with_order(method, order))
    empty = toy.source(torch.zeros(0, SIZE), torch.zeros(0, SIZE))
    mechanism = toy.mechanism(config, empty, views=toy.source(records(seed=1)))
    direction = mechanism.direction(0)
    public = 0.0 if direction.public_term is None else direction.public_term
    assert (direction.value - public).abs().max() > 0
    assert direction.sealed is not None
    assert direction.sealed.batch_size == 0
    assert direction.event == "subsampled_gaussian"
    assert mechanism.executed is not None
    assert mechanism.executed.steps == 1


def released_noise(toy: Any, config: Any, *, steps: int, noise_multiplier: float) -> np.ndarray:
    """What an empty private set releases: the noise alone, divided by B, a row a step."""
    empty = toy.source(torch.zeros(0, SIZE), torch.zeros(0, SIZE))
    views = toy.source(torch.zeros(8, SIZE))
    mechanism = toy.mechanism(config, empty, key=SweepKey.fresh(), noise_multiplier=noise_multiplier, views=views)
    return np.stack([mechanism.direction(step).value.double().numpy() for step in range(steps)])


def has_stddev(noise: np.ndarray, stddev: float) -> bool:
    total = float(np.sum(noise**2)) / stddev**2
    return min(stats.chi2.sf(total, noise.size), stats.chi2.cdf(total, noise.size)) > 1e-6


@pytest.mark.parametrize("method", ["dpsgd", "feature"])
def test_noise_of_a_direction_is_multiplier_times_clip_norm_over_the_expected_batch(toy: Any, method: str) -> None:
    noise = released_noise(toy, toy.config(method, clip_norm=0.5), steps=800, noise_multiplier=3.0)
    stddev = 3.0 * 0.5 / 8
    assert has_stddev(noise, stddev)
    for factor in (0.5, 2 / 3, 0.8, 1.5):
        assert not has_stddev(noise * factor, stddev)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", ["projected", "feature_projected"])
def test_projected_noise_lies_in_the_subspace_with_the_same_scale(toy: Any, method: str, order: str) -> None:
    config = toy.config(method, **with_order(method, order))
    noise = released_noise(toy, config, steps=900, noise_multiplier=2.0)
    spectrum = np.linalg.svd(noise, compute_uv=False)
    assert int(np.sum(spectrum > 1e-4 * spectrum[0])) == 3
    coordinates = noise @ np.linalg.svd(noise, full_matrices=False)[2][:3].T
    assert has_stddev(coordinates, 2.0 / 8)
    assert not has_stddev(coordinates * 0.8, 2.0 / 8)


def test_noise_variance_says_what_the_noise_does(toy: Any) -> None:
    config = toy.config("feature_projected", private_weight=0.5, clip_norm=0.5)
    mechanism = toy.mechanism(config, toy.source(records(), records(seed=1)), noise_multiplier=2.0)
    mechanism.direction(0)
    assert mechanism.basis is not None
    assert mechanism.basis.directions is not None
    dense = mechanism.basis.directions.double().T @ mechanism.basis.directions.double()
    torch.testing.assert_close(mechanism.noise_variance(), (0.5 * 2.0 * 0.5 / 8) ** 2 * torch.diagonal(dense), rtol=1e-5, atol=1e-12)


def test_expected_update_is_the_full_gradient_for_every_public_weight(toy: Any) -> None:
    inputs, views = records(scale=0.01), records(scale=0.01, seed=1)
    for public_weight in (0.0, 0.3, 1.0):
        config = toy.config("feature", public_weight=public_weight, clip_norm=100.0, public_batch_size=8)
        direction = toy.mechanism(config, toy.source(inputs, views), noise_multiplier=1e-9).direction(0)
        torch.testing.assert_close(direction.value, inputs.mean(0), atol=1e-6, rtol=1e-4)


def test_private_weight_scales_the_private_term_alone(toy: Any) -> None:
    source = toy.source(records(), records(seed=1))
    full, half = (toy.mechanism(toy.config("feature", private_weight=weight), source).direction(0) for weight in (1.0, 0.5))
    assert torch.equal(full.public_term, half.public_term)
    torch.testing.assert_close(half.value - half.public_term, 0.5 * (full.value - full.public_term), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["feature", "feature_projected"])
def test_a_control_is_the_public_term_and_has_nothing_private_to_touch(toy: Any, method: str) -> None:
    views = toy.source(records(seed=1))
    control = toy.config(method, private_weight=0.0, epsilon=None, delta=None, clip_norm=None)
    mechanism = toy.mechanism(control, None, noise_multiplier=None, views=views)
    direction = mechanism.direction(0)
    assert direction.event is None
    assert direction.sealed is None
    assert mechanism.executed is None
    torch.testing.assert_close(direction.value, views.inputs[views.read[0]].mean(0))
    with pytest.raises(BadInput, match="touches no private data"):
        toy.mechanism(control, toy.source(records(), records()), noise_multiplier=None)


def test_public_term_does_not_move_when_private_part_or_key_change(toy: Any) -> None:
    views = records(seed=1)
    terms = []
    for inputs, key in ((records(), SweepKey.fresh()), (records(seed=7), SweepKey.fresh()), (records(count=3), SweepKey.fresh())):
        config = toy.config("feature", **{"stages.private.expected_batch_size": 4})
        source = toy.source(inputs, views[: len(inputs)])
        mechanism = toy.mechanism(config, source, key=key, views=toy.source(views))
        terms.append(torch.stack([mechanism.direction(step).public_term for step in range(5)]))
    assert torch.equal(terms[0], terms[1])
    assert torch.equal(terms[0], terms[2])


def test_subspace_does_not_move_when_private_part_or_key_change(toy: Any) -> None:
    bases = []
    for seed in (0, 3):
        mechanism = toy.mechanism(toy.config("projected"), toy.source(records(seed=seed)), key=SweepKey.fresh())
        mechanism.direction(0)
        bases.append(mechanism.basis.directions)
    assert torch.equal(bases[0], bases[1])


def test_private_batches_follow_the_key_and_not_the_seed(toy: Any) -> None:
    read = []
    for seed, key in ((0, bytes(32)), (1, bytes(32)), (0, bytes([1]) * 32)):
        source = toy.source(records(200))
        config = toy.config("dpsgd", seed=seed, **{"data.nominal_examples": 16})
        toy.mechanism(config, source, key=SweepKey(key), physical=500).direction(0)
        read.append(source.read[0])
    assert read[0] == read[1]
    assert read[0] != read[2]


def test_private_public_and_subspace_batches_are_unrelated(toy: Any) -> None:
    """Over many steps the private and the public batch share no more examples than chance."""
    source, views = toy.source(records(100), records(100, seed=1)), toy.source(records(100, seed=1))
    config = toy.config(
        "feature",
        public_batch_size=50,
        **{"data.nominal_examples": 100, "stages.private.expected_batch_size": 50, "stages.private.steps": 300},
    )
    mechanism = toy.mechanism(config, source, key=SweepKey.fresh(), views=views, physical=200)
    for step in range(300):
        mechanism.direction(step)
    shared = sum(len(set(mine) & set(theirs)) for mine, theirs in zip(source.read, views.read, strict=True))
    assert abs(shared - 300 * 25) < 6 * np.sqrt(300 * 100 * 0.25 * 0.75)


def test_what_is_sampled_is_what_the_accountant_is_told(toy: Any) -> None:
    config = toy.config("dpsgd", **{"data.nominal_examples": 40, "stages.private.expected_batch_size": 10})
    source, key = toy.source(records(40)), SweepKey.fresh()
    mechanism = toy.mechanism(config, source, key=key, physical=100, noise_multiplier=1.25)
    sizes = [mechanism.direction(step).sealed.batch_size for step in range(20)]
    streams = PrivateStreams(key=key, trial_id="t")
    assert sizes == [len(poisson_sample(streams.stream("sampling", step), 40, 0.25)) for step in range(20)]
    executed = mechanism.executed
    assert executed is not None
    assert (executed.sampling_prob, executed.noise_multiplier, executed.steps) == (0.25, 1.25, 20)


@pytest.mark.parametrize("method", [*METHODS, "nonprivate"])
def test_units_are_drawn_with_the_very_probability_of_the_config(toy: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To all its digits: a quarter hides what rounding does."""
    asked = []

    def listening(stream: RandomStream, count: int, sampling_prob: float) -> Indices:
        asked.append((count, sampling_prob))
        return poisson_sample(stream, count, sampling_prob)

    monkeypatch.setattr(mechanism_module, "poisson_sample", listening)
    config = toy.config(method, **{"data.nominal_examples": 4129, "stages.private.expected_batch_size": 37})
    source = toy.source(records(40), records(40, seed=1))
    toy.mechanism(config, source, noise_multiplier=None if method == "nonprivate" else 1.25).direction(0)
    assert asked == [(40, 37 / 4129)]


def test_the_divisor_is_the_expected_batch_size_whatever_was_drawn(toy: Any) -> None:
    few, many = records(2), torch.cat([records(2), torch.zeros(6, SIZE)])
    values = [toy.mechanism(toy.config("dpsgd"), toy.source(inputs)).direction(0).value for inputs in (few, many)]
    assert torch.equal(values[0], values[1])


def test_a_nan_record_contributes_nothing_and_is_counted_under_seal(toy: Any) -> None:
    clean = records()
    spoilt = clean.clone()
    spoilt[3] = float("nan")
    without = torch.cat([clean[:3], clean[4:]])
    results = [
        toy.mechanism(toy.config("dpsgd"), toy.source(inputs), noise_multiplier=TINY_NOISE).direction(0) for inputs in (spoilt, without)
    ]
    torch.testing.assert_close(results[0].value, results[1].value, atol=1e-6, rtol=1e-5)
    assert results[0].sealed.nonfinite == 1
    assert repr(results[0].sealed) == "Sealed()"


def test_steps_run_once_in_order_and_not_beyond_the_plan(toy: Any) -> None:
    mechanism = toy.mechanism(toy.config("dpsgd", **{"stages.private.steps": 2}), toy.source(records()))
    with pytest.raises(Refused, match="step 1 asked, step 0 is next"):
        mechanism.direction(1)
    mechanism.direction(0)
    with pytest.raises(Refused, match="a new attempt"):
        mechanism.direction(0)
    mechanism.direction(1)
    with pytest.raises(Refused, match="beyond the 2 steps"):
        mechanism.direction(2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("refresh", [None, 2])
def test_resume_from_every_step_replays_bit_for_bit(toy: Any, method: str, refresh: int | None) -> None:
    changes = {"subspace.refresh_steps": refresh} if "projected" in method else {}
    config = toy.config(method, **changes, **{"stages.private.expected_batch_size": 4, "stages.private.steps": 6})

    def run(mechanism: Mechanism, engine: Any, first: int, states: dict[int, Any] | None) -> list[Tensor]:
        values = []
        for step in range(first, 6):
            if states is not None:
                states[step] = (engine.flat_weights(), mechanism.state())
            values.append(mechanism.direction(step).value)
            engine.set_flat_weights(engine.flat_weights() - values[-1])
        return values

    states: dict[int, Any] = {}
    engine = toy.engine(SIZE)
    whole = run(toy.mechanism(config, toy.source(records(), records(seed=1)), engine=engine), engine, 0, states)
    for first in range(6):
        engine = toy.engine(SIZE)
        weights, state = states[first]
        engine.set_flat_weights(weights)
        mechanism = toy.mechanism(config, toy.source(records(), records(seed=1)), engine=engine)
        mechanism.resume(first, state)
        assert all(torch.equal(a, b) for a, b in zip(run(mechanism, engine, first, None), whole[first:], strict=True))
        assert mechanism.executed.steps == 6
        with pytest.raises(Refused, match="fresh mechanism"):
            mechanism.resume(0, {})


def test_resume_without_its_subspace_is_refused(toy: Any) -> None:
    mechanism = toy.mechanism(toy.config("projected"), toy.source(records()))
    with pytest.raises(BadInput, match=r"subspace\.directions"):
        mechanism.resume(3, {})


@pytest.mark.parametrize("refresh", [None, 3])
def test_the_basis_of_the_start_serves_as_one_fitted_in_step_0_and_no_checkpoint_holds_it(toy: Any, refresh: int | None) -> None:
    config = toy.config("projected", **{"subspace.refresh_steps": refresh})

    def mechanism(start: SubspaceBasis | None) -> Mechanism:
        made = toy.mechanism(config, toy.source(records()))
        made._sources = replace(made._sources, start_basis=start)
        return made

    fitted = mechanism(None)
    whole = [fitted.direction(step).value for step in range(5)]
    first = mechanism(None)
    first.direction(0)
    for begin in range(1, 5):
        shared = mechanism(first.basis)
        for step in range(begin):
            assert torch.equal(shared.direction(step).value, whole[step])
        assert (shared.state() == {}) == (refresh is None or begin <= refresh)
        resumed = mechanism(first.basis)
        resumed.resume(begin, shared.state())
        assert all(torch.equal(resumed.direction(step).value, whole[step]) for step in range(begin, 5))


def test_a_basis_of_the_start_of_another_rank_or_network_is_refused(toy: Any) -> None:
    config = toy.config("projected")
    for directions in (torch.eye(SIZE)[:2], torch.eye(SIZE + 1)[:3]):
        start = SubspaceBasis(directions=directions, parameter_count=directions.shape[1])
        with pytest.raises(BadInput, match="the basis of the start has rank"):
            Mechanism(
                config,
                toy.engine(SIZE),
                sources=Sources(private=toy.source(records()), public=toy.source(records()), start_basis=start),
                randomness=Randomness(private=PrivateStreams(key=SweepKey.fresh(), trial_id="t"), public=PublicStreams(0)),
                noise_multiplier=1.0,
                physical_batch_size=8,
            )


def test_refresh_steps_fit_a_new_subspace(toy: Any) -> None:
    mechanism = toy.mechanism(toy.config("projected", **{"subspace.refresh_steps": 2}), toy.source(records()))
    bases = []
    for step in range(4):
        mechanism.direction(step)
        bases.append(mechanism.basis.directions)
    assert torch.equal(bases[0], bases[1])
    assert not torch.equal(bases[1], bases[2])
    assert torch.equal(bases[2], bases[3])


def test_nonprivate_is_the_plain_gradient_and_says_that_it_is_not_private(toy: Any) -> None:
    mechanism = toy.mechanism(toy.config("nonprivate"), toy.source(records(scale=100.0)), noise_multiplier=None, physical=3)
    direction = mechanism.direction(0)
    torch.testing.assert_close(direction.value, records(scale=100.0).mean(0))
    assert direction.event == "non_private"
    assert mechanism.executed is None


class DrawingSource:
    """Adds its draw to the examples, to see which draw meets which record."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs
        self.pairs: list[tuple[list[int], list[float]]] = []
        self.view_pairs: list[tuple[list[int], list[float]]] = []

    def __len__(self) -> int:
        return len(self.inputs)

    def draw_geometry(self, stream: Any, count: int) -> np.ndarray:
        return stream.uniform(count)

    def batch(self, indices: np.ndarray, draw: np.ndarray) -> Any:
        self.pairs.append((indices.tolist(), draw.tolist()))
        return self.make(self.inputs[indices] + torch.from_numpy(draw)[:, None].float())

    def view_batch(self, indices: np.ndarray, draw: np.ndarray) -> Any:
        self.view_pairs.append((indices.tolist(), draw.tolist()))
        return self.make(self.inputs[indices])

    make: Any = None


def test_a_pair_shares_one_secret_draw_that_no_physical_batch_size_moves(toy: Any) -> None:
    drawn = []
    for physical in (1, 3, 64):
        source = DrawingSource(records())
        source.make = toy.batch_of
        mechanism = toy.mechanism(toy.config("feature"), source, physical=physical, views=toy.source(records()))
        mechanism.direction(0)
        assert source.pairs == source.view_pairs
        drawn.append(([i for part in source.pairs for i in part[0]], [u for part in source.pairs for u in part[1]]))
    assert drawn[0] == drawn[1] == drawn[2]
    expected = PrivateStreams(key=SweepKey(bytes(range(32))), trial_id="t").stream("augmentation", 0).uniform(8)
    assert drawn[0][1] == expected.tolist()


def test_what_is_missing_is_said_before_the_first_step(toy: Any) -> None:
    source = toy.source(records(), records(seed=1))
    with pytest.raises(BadInput, match="needs a noise multiplier"):
        toy.mechanism(toy.config("dpsgd"), source, noise_multiplier=None)
    with pytest.raises(BadInput, match="takes no noise multiplier"):
        toy.mechanism(toy.config("nonprivate"), source, noise_multiplier=1.0)
    with pytest.raises(BadInput, match="the private dataset and the sweep key"):
        toy.mechanism(toy.config("dpsgd"), None)
    with pytest.raises(BadInput, match="public_batch_size 9 is more than the 8"):
        toy.mechanism(toy.config("feature", public_batch_size=9), source)
    with pytest.raises(BadInput, match=r"subspace\.examples 21 is more than the 20"):
        toy.mechanism(toy.config("projected", **{"subspace.examples": 21}), source)
    with pytest.raises(BadInput, match=r"subspace\.rank 7 is more than the 6 trainable"):
        toy.mechanism(toy.config("projected", **{"subspace.examples": 10, "subspace.rank": 7}), source)
    floor = toy.config("nonprivate").changed(method="public_only")
    with pytest.raises(BadInput, match="takes no private steps"):
        toy.mechanism(floor, source, noise_multiplier=None)
