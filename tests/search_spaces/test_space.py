"""Draws stay in their space, also where parameters are conditional."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcore.errors import BadInput
from search_spaces.loader import load_space
from search_spaces.presets import preset_names
from search_spaces.space import FloatRange, IntRange

SPACES = {name: load_space(name) for name in preset_names()}


@given(name=st.sampled_from(sorted(SPACES)), seed=st.integers(0, 10_000))
def test_every_draw_is_in_its_space(name: str, seed: int) -> None:
    space = SPACES[name]
    for epsilon in space.sweep.epsilons:
        assert space.contains(epsilon, space.draw(epsilon, random.Random(seed)))


@given(low=st.integers(1, 50), width=st.integers(0, 50), fraction=st.floats(0, 1, exclude_max=True), log=st.booleans())
def test_values_of_ranges_lie_within_their_bounds(low: int, width: int, fraction: float, log: bool) -> None:
    whole, real = IntRange(bounds=(low, low + width), log=log), FloatRange(bounds=(low, low + width), log=log)
    assert whole.contains(whole.value_at(fraction))
    assert real.contains(real.value_at(fraction))


def test_an_inactive_parameter_is_absent_and_its_field_none() -> None:
    space = SPACES["quick"]
    draw = space.draw(0.8, random.Random(0), forced={"method": "dpsgd"})
    assert not {"split", "start", "public_weight", "subspace.rank"} & draw.keys()
    config = space.trial_config(0.8, draw)
    assert config.split is None
    assert config.public_weight is None
    assert (config.epsilon, config.delta) == (0.8, 1e-5)


def test_a_draw_outside_its_space_is_recognised() -> None:
    space = SPACES["quick"]
    draw = space.draw(0.8, random.Random(0), forced={"method": "dpsgd"})
    assert not space.contains(0.8, {**draw, "clip_norm": 1e9})
    assert not space.contains(0.8, {**draw, "subspace.rank": 16})
    assert not space.contains(0.8, {k: v for k, v in draw.items() if k != "clip_norm"})


def test_the_default_delta_is_a_tenth_of_one_over_n() -> None:
    assert load_space("quick", assignments=["sweep.delta=null"]).delta == 1 / 40_000


def test_a_grid_of_choices_has_each_admissible_draw_once() -> None:
    grid = [
        "sweep.sampler=grid",
        "sweep.trials_per_epsilon=null",
        "sweep.method_shares=free",
        "clip_norm=0.1",
        "optimizer.learning_rate=0.001",
        "public_weight=1.0",
    ]
    space = load_space("quick", assignments=[*grid, "subspace.rank=16"])
    draws = list(space.grid(0.8))
    assert len(draws) == len({tuple(sorted(draw.items(), key=str)) for draw in draws}) == 4
    with pytest.raises(BadInput, match="sampler grid needs choices"):
        load_space("quick", assignments=["sweep.sampler=grid", "sweep.method_shares=free"])
    with pytest.raises(BadInput, match="admissible points"):
        load_space("quick", assignments=[*grid, "subspace.rank=16"], trials=100)


def test_the_largest_rank_of_a_space_bounds_every_draw_and_is_reached() -> None:
    ranks = {name: space.largest_rank for name, space in SPACES.items()}
    assert (ranks["quick"], ranks["hybrid"], ranks["dpsgd"]) == (128, 256, None)
    quick = SPACES["quick"]
    at_one = quick.model_copy(update={"search_at": {8.0: {"subspace.rank": IntRange(bounds=(1, 300))}}})
    assert at_one.largest_rank == 300
    assert at_one.model_copy(update={"sweep": quick.sweep.model_copy(update={"epsilons": (0.8,)})}).largest_rank == 128
    fixed = quick.model_copy(update={"search": {}, "search_at": {}, "trial": {**quick.trial, "subspace": {"rank": 12}}})
    assert fixed.largest_rank == 12
