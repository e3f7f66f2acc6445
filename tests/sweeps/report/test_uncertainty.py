"""A verdict holds against the luck of people and seeds: what a bootstrap over both says, and when it says nothing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sweeps.records.results import TrialRecord
from sweeps.report.comparison import Comparison, with_errors
from sweeps.report.details.answers import EpsilonAnswer
from sweeps.report.uncertainty import Counts, gain_over, mean_stderr, score_stderr

PEOPLE, JOINTS = 256, 14
PRICE = "ε = 4.370 (composed)"


def people(score: float, *, skill: np.ndarray | None = None, seed: int = 0) -> Counts:
    """Counts of a model of about that score; `skill` (N,) makes some people easier for every model that shares it."""
    generator = np.random.default_rng(seed)
    chance = np.clip(score + (0.0 if skill is None else skill), 0.0, 1.0)
    return np.stack([generator.binomial(JOINTS, chance, PEOPLE), np.full(PEOPLE, JOINTS)], axis=1)


def of_score(share: float) -> Counts:
    """Counts of a model whose score is exactly `share` of the joints, the same for every tenth of the people."""
    each, rest = divmod(round(PEOPLE * JOINTS * share), PEOPLE)
    hits = np.full(PEOPLE, each)
    hits[:rest] += 1
    return np.stack([hits, np.full(PEOPLE, JOINTS)], axis=1)


def test_the_error_of_a_score_is_that_of_people_drawn_anew() -> None:
    counts = people(0.6, skill=np.random.default_rng(3).normal(0, 0.2, PEOPLE))
    shares = counts[:, 0] / JOINTS
    assert score_stderr(counts) == pytest.approx(shares.std(ddof=1) / np.sqrt(PEOPLE), rel=0.08)


def test_what_all_models_find_hard_cancels_in_their_difference() -> None:
    skill = np.random.default_rng(5).normal(0, 0.3, PEOPLE)
    bar, *seeds = (people(0.6, skill=skill, seed=seed) for seed in range(4))
    gain = gain_over(bar, seeds)
    assert gain is not None
    assert gain.stderr < 0.7 * score_stderr(bar)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 200 sweeps without any true gain, in which both people and seeds vary, about 5 % are called clear: not the third that a
    spread of three seeds let pass."""
    generator = np.random.default_rng(11)
    clear = 0
    for number in range(200):
        skill = generator.normal(0, 0.15, PEOPLE)
        bar, *seeds = (people(0.6 + generator.normal(0, 0.01) * (one > 0), skill=skill, seed=1000 * number + one) for one in range(4))
        gain = gain_over(bar, seeds)
        assert gain is not None
        clear += not gain.low <= 0 <= gain.high
    assert clear <= 0.09 * 200


def test_one_seed_has_no_interval() -> None:
    assert gain_over(people(0.5), [people(0.6)]) is None
    assert mean_stderr([people(0.6)]) is None


def record(trial_id: str, role: str) -> TrialRecord:
    return TrialRecord(trial_id=trial_id, role=role, number=0, config=None, state="done", pckh_50=0.5)


def verdict(bar: Counts, *seeds: Counts) -> str:
    counts = {"floor": bar, **{f"seed-{number}": one for number, one in enumerate(seeds)}}
    runs = tuple(replace(record(name, "seed"), pckh_50=0.6) for name in counts if name != "floor")
    one = Comparison(
        epsilon=0.8,
        winner=record("w", "search"),
        seeds=runs,
        floor_run=record("floor", "floor"),
        ceiling_run=None,
        control_run=None,
        by_method={},
    )
    return EpsilonAnswer(comparison=with_errors(one, counts), price=PRICE, total="ε = 4.370 in all", metric="PCKh@0.5").line()


def raised(counts: Counts, joints: int) -> Counts:
    """The same with so many hits more, one a person."""
    better = counts.copy()
    better[np.flatnonzero(counts[:, 0] < JOINTS)[:joints], 0] += 1
    return better


def test_three_tenths_of_a_point_within_their_error_are_not_worth_a_price() -> None:
    bar = people(0.6, skill=np.random.default_rng(7).normal(0, 0.2, PEOPLE))
    said = verdict(bar, *(raised(bar, joints) for joints in (24, 4, 4)))
    assert said.startswith("ε = 0.8: +0.3 ± 0.2 points against the higher of floor and control (95 %: -0.")
    assert said.endswith(f"at a price of {PRICE}: within noise, so not clear whether worth its price")


@pytest.mark.parametrize(("gain", "worth"), [(0.10, ": worth its price"), (-0.10, ": not worth its price")])
def test_ten_points_are_clear_either_way(gain: float, worth: str) -> None:
    said = verdict(people(0.6), *(people(0.6 + gain, seed=seed) for seed in (1, 2, 3)))
    assert said.endswith(f"at a price of {PRICE}{worth}")


def test_the_gain_is_that_of_the_scores() -> None:
    gain = gain_over(of_score(0.6), [of_score(0.7), of_score(0.8)])
    assert gain is not None
    assert gain.mean == pytest.approx(0.15, abs=1e-3)


def test_two_methods_are_held_against_each_other_over_people_and_both_their_seeds() -> None:
    skill = np.random.default_rng(7).normal(0, 0.2, PEOPLE)
    first, second = ([people(score, skill=skill, seed=seed + place) for seed in (1, 2, 3)] for place, score in ((0, 0.6), (10, 0.6)))
    alone, both = gain_over(second[0], first), gain_over(second, first)
    assert alone is not None
    assert both is not None
    assert not both.is_clear
    assert both.mean == pytest.approx(
        np.mean([one[:, 0].sum() for one in first]) / (14 * PEOPLE) - np.mean([one[:, 0].sum() for one in second]) / (14 * PEOPLE)
    )
    better = [raised(raised(one, PEOPLE // 2), PEOPLE // 2) for one in first]
    clear = gain_over(second, better)
    assert clear is not None
    assert clear.is_clear
    assert gain_over(second[:1], first) is None


def test_a_method_table_says_how_many_trials_each_method_had_and_when_a_difference_is_noise() -> None:
    def run(name: str, method: str, role: str = "search") -> TrialRecord:
        return replace(record(name, role), config=SimpleNamespace(method=method))

    skill = np.random.default_rng(7).normal(0, 0.2, PEOPLE)
    names = {"a": 0.62, "b": 0.6, "sa1": 0.62, "sa2": 0.62, "sb1": 0.6, "sb2": 0.6}
    counts = {name: people(score, skill=skill, seed=place) for place, (name, score) in enumerate(names.items())}
    searched = (run("a", "dpsgd"), run("b", "feature"), run("c", "feature"))
    one = Comparison(
        epsilon=0.8,
        winner=searched[0],
        seeds=(run("sa1", "dpsgd", "seed"), run("sa2", "dpsgd", "seed")),
        floor_run=None,
        ceiling_run=None,
        control_run=None,
        by_method={"dpsgd": searched[0], "feature": searched[1]},
        searched=searched,
        method_seeds={
            method: tuple(run(f"s{key}{n}", method, "seed") for n in (1, 2)) for method, key in (("dpsgd", "a"), ("feature", "b"))
        },
        is_divided=True,
    )
    found = with_errors(one, counts)
    assert (found.trials_of("dpsgd"), found.trials_of("feature")) == (1, 2)
    assert set(found.method_errors) == {"dpsgd", "feature"}
    (pair,) = found.method_gains
    assert pair.gain is not None
    assert found.winner_score == pytest.approx(counts["a"][:, 0].sum() / (JOINTS * PEOPLE))
