"""Audit (b): the trainer, with all canaries in one run, against the bound for one run.

Thousands of canaries are extra private records in a real training loop (mechanism, optimizer, average, several hundred steps). The
attacker reads each released direction and scores a canary by its coordinate. The bound is that of Steinke, Nasr, Jagielski 2023
(arXiv:2305.08846). It assumes no law of the noise and no independence of the canaries.

The bound is applied at a smaller δ than the claim's. It cannot separate a significance below about 2δ(1 + e^ε) from the δ that the claim
allows: with δ = 1e-5 and ε = 4, not even 5,000 right guesses refute anything at 1 − 1e-4. A claim is a curve. So the refutation at
the smaller δ is reported as the ε, at the claim's δ, of the noisiest claim that is not refuted.

A subspace holds at most as many canaries as its rank. So projected methods take several runs, each with its own canaries. Together they are
one mechanism in which each canary takes part in one run, so they cost no more than one run.
"""

from __future__ import annotations

import functools

import numpy as np

from dpcore.audit.bounds import Guesses, one_run_epsilon, one_run_p_value
from dpcore.audit.canaries import Eavesdropper, Mask, Target, coins
from dpcore.audit.mechanism import OnProgress
from dpcore.audit.tradeoff import Floats, epsilon_at, noisiest_epsilon, step_scores
from dpcore.audit.training import Listener, Overheard, SmallProblem, attacked_training, train
from dpcore.config import ModelConfig, TrialConfig
from dpcore.privacy.accounting import Spending
from dpcore.privacy.mechanism import Direction
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.randomness import PublicStreams, SweepKey

STEPS = 300
RARER = 1e-3
"""The δ at which the bound is applied, as a fraction of the claim's δ."""

_PROJECTED_CANARIES = 500
_MODEL = ModelConfig(backbone="small", freeze="early", input_height_px=16, input_width_px=16)
_SIMULATED = 20_000


def trainer_problem(config: TrialConfig, *, canaries: int, steps: int | None = None) -> SmallProblem:
    """The training problem of one run, with as many canaries as fit."""
    fitting = min(canaries, _PROJECTED_CANARIES) if config.traits.projects else canaries
    return SmallProblem(model=_MODEL, canaries=fitting, steps=STEPS if steps is None else steps)


def audit_trainer(problem: SmallProblem, target: Target, *, runs: int, significance: float, progress: OnProgress) -> float:
    """The largest ε that the guesses of `runs` runs together refute at the claim's δ, with the config of the problem."""
    plan, total = target.plan, runs * problem.canaries
    made = best_guess_count(plan, total, significance=significance)
    key = SweepKey.fresh()
    scores, inside = [], []
    for run in range(runs):
        is_in = coins(key, run, problem.canaries)
        attacked = attacked_training(problem, target, is_in)
        listener = Eavesdropper(attacked, problem.canaries)
        loud = _heard(listener, total=runs * problem.steps, done=run * problem.steps, progress=progress)
        train(attacked, attacked.mechanism(key, run, functools.partial(Overheard, loud)))
        scores.append(listener.scores)
        inside.append(is_in)
    correct = correct_guesses(np.concatenate(scores), np.concatenate(inside), made)
    shown = one_run_epsilon(Guesses(correct, made, total), delta=RARER * plan.delta, significance=significance)
    return noisiest_epsilon(plan.spending, delta=plan.delta, refuted=lambda other: epsilon_at(other, RARER * plan.delta) < shown)


def _heard(listener: Eavesdropper, *, total: int, done: int, progress: OnProgress) -> Listener:
    def hear(step: int, direction: Direction) -> None:
        listener.hear(step, direction)
        progress((done + step + 1) / total)

    return hear


def correct_guesses(scores: Floats, inside: Mask, made: int) -> int:
    """How many of the `made` surest guesses are right. A guess is the sign of a score (n,); the surest lie farthest from 0."""
    surest = np.argsort(-np.abs(scores), kind="stable")[:made]
    return int(np.sum((scores[surest] > 0.0) == inside[surest]))


def best_guess_count(plan: PrivacyPlan, canaries: int, *, significance: float) -> int:
    """How many guesses to make: chosen before any run, from the claim alone.

    Few guesses are surer, many count for more. Consider the numbers with which an always correct attack would refute the claim. The best of
    them makes half the claimed ε least likely against an honest mechanism. If there are too few canaries for any refutation
    (e^ε/(1 + e^ε) to the power of their number exceeds the significance), all are guessed.
    """
    scores, inside = _honest_scores(plan.spending)
    claimed = epsilon_at(plan.spending, RARER * plan.delta)

    def p_value(made: int, *, accuracy: float, epsilon: float) -> float:
        return one_run_p_value(Guesses(round(accuracy * made), made, canaries), epsilon=epsilon, delta=RARER * plan.delta)

    def honest(made: int) -> float:
        simulated = max(1, round(made / canaries * _SIMULATED))
        accuracy = correct_guesses(scores, inside, simulated) / simulated
        return p_value(made, accuracy=accuracy, epsilon=claimed / 2.0)

    counts = sorted({max(1, round(canaries * share)) for share in np.geomspace(0.01, 1.0, 24)})
    telling = [made for made in counts if p_value(made, accuracy=1.0, epsilon=claimed) < significance]
    return int(min(telling, key=honest, default=canaries))


def _honest_scores(claim: Spending) -> tuple[Floats, Mask]:
    """Scores and coins of many canaries under the law of the claim, from public randomness."""
    generator = PublicStreams(0).generator("audit_guess_count")
    inside = generator.random(_SIMULATED) < 0.5
    scores = np.zeros(_SIMULATED)
    for _ in range(claim.steps):
        drawn = generator.random(_SIMULATED) < claim.sampling_prob
        sides = np.where(inside, 1.0, 0.0 if claim.relation == "add_remove" else -1.0)
        scores += step_scores(drawn * sides + claim.noise_multiplier * generator.standard_normal(_SIMULATED), claim)
    return scores, inside
