"""Audit (c): many tiny independent runs. The attacker sees only their final weights.

One canary takes part in every other run. Each run has its own key. The attacker reads the canary's weight in the released model and
guesses "in" above a threshold that other runs chose. Clopper-Pearson bounds both error rates, and (ε, δ)-DP bounds their ratio. This
assumes nothing about the noise, the loop or the optimizer, so it holds without a model of the release. It is weak: n runs cannot
show an ε much above log(n).
"""

from __future__ import annotations

import numpy as np

from dpcore.audit.bounds import rates_epsilon
from dpcore.audit.canaries import Mask, Target
from dpcore.audit.mechanism import OnProgress
from dpcore.audit.tradeoff import Floats, Rule
from dpcore.audit.training import SmallProblem, attacked_training, train
from dpcore.config import ModelConfig
from dpcore.privacy.randomness import SweepKey

STEPS = 8
PROBLEM = SmallProblem(
    model=ModelConfig(backbone="small", freeze="backbone", input_height_px=16, input_width_px=16), canaries=1, steps=STEPS
)


def audit_repeated(target: Target, *, runs: int, significance: float, progress: OnProgress, problem: SmallProblem = PROBLEM) -> float:
    """The largest ε that `runs` released models refute at the claim's δ. Half of them choose the threshold."""
    scores, inside = released_scores(target, runs=runs, progress=progress, problem=problem)
    chosen, delta = runs // 2, target.plan.delta
    rule = _best_rule(scores[:chosen], inside[:chosen], delta=delta, significance=significance)
    return rates_epsilon(rule.errors(scores[chosen:], inside[chosen:]), delta=delta, significance=significance)


def released_scores(target: Target, *, runs: int, progress: OnProgress, problem: SmallProblem) -> tuple[Floats, Mask]:
    """How far each run (n,) moved its canary's weight against the gradient, and whether the canary was in.

    It is in every other run. Runs are independent, and a half with only one kind of run would show nothing.
    """
    key = SweepKey.fresh()
    inside = np.arange(runs) % 2 == 0
    scores = np.zeros(runs)
    for run in range(runs):
        attacked = attacked_training(problem, target, inside[run : run + 1])
        scores[run] = -float(train(attacked, attacked.mechanism(key, run))[0])
        progress((run + 1) / runs)
    return scores, inside


def _best_rule(scores: Floats, inside: Mask, *, delta: float, significance: float) -> Rule:
    """The rule, in either direction, that refutes the most. If none refutes anything, the rule with the lowest error sum."""
    ranked = np.unique(scores)
    between = (ranked[1:] + ranked[:-1]) / 2.0  # the middle of a gap, so that a canary of the other half falls on the right side
    rules = [Rule(sign, float(sign * at)) for sign in (1, -1) for at in between]

    def worth(rule: Rule) -> tuple[float, float]:
        errors = rule.errors(scores, inside)
        return rates_epsilon(errors, delta=delta, significance=significance), -sum(errors.upper_rates(significance))

    return max(rules, key=worth)
