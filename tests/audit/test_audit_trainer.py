"""The audit of the training loop: what it trains, what it hears, what it counts. Small sizes: the benchmark has the large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dpcore.audit.bounds import Guesses, one_run_epsilon
from dpcore.audit.canaries import Eavesdropper, Target, coins
from dpcore.audit.tradeoff import epsilon_at
from dpcore.audit.trainer import RARER, audit_trainer, best_guess_count, correct_guesses, trainer_problem
from dpcore.audit.training import ORDINARY, attacked_training, train
from dpcore.privacy.randomness import SweepKey

METHODS = ("dpsgd", "projected", "feature", "feature_projected")
STEPS = 8


def problem_and_target(claims: Any, method: str, *, canaries: int = 200, **changes: Any) -> tuple[Any, Target]:
    config = claims.config(method, **changes)
    problem = trainer_problem(config, canaries=canaries, steps=STEPS)
    return problem, claims.target(problem.config(config))


def refuted(claims: Any, method: str, *, runs: int = 1, **changes: Any) -> tuple[float, float]:
    problem, target = problem_and_target(claims, method, **changes)
    shares: list[float] = []
    bound = audit_trainer(problem, target, runs=runs, significance=1e-4, progress=shares.append)
    assert shares[-1] == 1.0
    return bound, target.plan.epsilon_planned


@pytest.mark.parametrize("method", METHODS)
def test_our_trainer_stands_and_hardly_any_noise_is_caught(claims: Any, method: str, scale_noise: Callable[[float], None]) -> None:
    bound, claimed = refuted(claims, method, epsilon=1.0)
    assert bound <= claimed
    scale_noise(0.02)
    bound, claimed = refuted(claims, method, epsilon=1.0, **{"stages.private.expected_batch_size": 1000})
    assert bound > claimed


def test_runs_add_up_to_one_attack(claims: Any) -> None:
    bound, claimed = refuted(claims, "projected", runs=2, canaries=60)
    assert bound <= claimed


@pytest.mark.parametrize("method", METHODS)
def test_canary_and_ordinary_gradients_never_meet(claims: Any, method: str) -> None:
    """A canary's row is Dirac in its own weight; an ordinary row is zero in every canary's weight and not elsewhere."""
    problem, target = problem_and_target(claims, method, canaries=20)
    attacked = attacked_training(problem, target, np.arange(20) % 2 == 0)
    rows = attacked.engine.rows(attacked.records.records)
    assert len(rows) == 10 + ORDINARY
    nonzero = [row.nonzero().flatten().tolist() for row in rows[:10]]
    assert nonzero == [[2 * i] for i in range(10)]
    assert not rows[10:, :20].any()
    assert rows[10:, 20:].norm(dim=1).min() > 0


def test_a_replaced_canary_is_there_to_the_other_side(claims: Any) -> None:
    problem, target = problem_and_target(claims, "feature", canaries=4, relation="replace", public_weight=1.0)
    attacked = attacked_training(problem, target, np.asarray([True, False, True, False]))
    records = attacked.records
    views = records.view_batch(np.arange(4), None)
    residuals = attacked.engine.residual_rows(records.batch(np.arange(4), None), views, 1.0)[:, :4]
    assert residuals.diagonal().sign().tolist() == [1.0, -1.0, 1.0, -1.0]
    assert residuals.diagonal().abs().min() >= target.clip_norm


def test_training_moves_the_network_and_not_only_the_canaries(claims: Any) -> None:
    problem, target = problem_and_target(claims, "dpsgd", canaries=20)
    attacked = attacked_training(problem, target, np.ones(20, dtype=bool))
    before = attacked.engine.flat_weights()
    after = train(attacked, attacked.mechanism(SweepKey.fresh(), 0))
    assert after.shape == before.shape
    assert (after - before)[20:].norm() > 0


def test_a_bystander_knows_the_public_term(claims: Any) -> None:
    """With the public term taken off, what is heard of a canary that is out is noise alone: at hardly any noise, nothing."""
    problem, target = problem_and_target(claims, "feature", canaries=20)
    quiet = replace(target, plan=replace(target.plan, noise_multiplier=1e-3))
    attacked = attacked_training(problem, quiet, np.zeros(20, dtype=bool))
    mechanism = attacked.mechanism(SweepKey.fresh(), 0)
    listener = Eavesdropper(replace(attacked, target=quiet), 20)
    direction = mechanism.direction(0)
    assert direction.public_term is not None
    assert direction.public_term[:20].abs().max() > 0
    listener.hear(0, direction)
    assert listener.scores == pytest.approx(np.log(0.75), abs=1e-6)


def test_coins_are_fair_and_differ_between_keys_and_runs() -> None:
    key = SweepKey.fresh()
    first = coins(key, 0, 10_000)
    assert abs(first.mean() - 0.5) < 0.02
    assert (first == coins(key, 0, 10_000)).all()
    for other in (coins(key, 1, 10_000), coins(SweepKey.fresh(), 0, 10_000)):
        assert 0.4 < (first == other).mean() < 0.6


def test_surest_guesses_are_counted() -> None:
    scores, inside = np.asarray([5.0, -4.0, 3.0, -0.1]), np.asarray([True, True, True, True])
    assert [correct_guesses(scores, inside, made) for made in (1, 2, 3, 4)] == [1, 1, 2, 2]


def test_number_of_guesses_is_fixed_by_the_claim_and_could_refute_it(claims: Any) -> None:
    for epsilon in (0.8, 4.0):
        plan = claims.target(claims.config("dpsgd", epsilon)).plan
        made = best_guess_count(plan, 5000, significance=1e-4)
        assert made == best_guess_count(plan, 5000, significance=1e-4)
        shown = one_run_epsilon(Guesses(made, made, 5000), delta=RARER * plan.delta, significance=1e-4)
        assert shown > epsilon_at(plan.spending, RARER * plan.delta)
    assert best_guess_count(plan, 100, significance=1e-4) == 100


def test_heads_losses_and_subspaces_that_canaries_do_not_have_give_way_to_those_that_they_have(claims: Any) -> None:
    folded = {
        "backbone": "folded",
        "weights": "x",
        "feature_layers": ["heat.out"],
        "head": "fpn2d",
        "head_start": "heatmap",
        "freeze": "none",
    }
    changes = {"model": folded, "loss": "pck_mass", "pck_mass.floor": 0.07, "subspace.gradients": "residual", "optimizer.scale": "relative"}
    problem, target = problem_and_target(claims, "feature_projected", canaries=8, **changes)
    assert (target.config.loss, target.config.subspace.gradients) == ("simcc", "plain")
    assert target.config.model == problem.model
    assert target.config.clip_norm == claims.config("feature_projected").clip_norm
