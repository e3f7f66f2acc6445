"""The budget calculator behind `dpsweep epsilon`: one run, and the price of releasing many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dpcore.config import Relation
from dpcore.errors import BadInput

LARGEST_NOISE = 1e6
NOISE_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class BudgetQuestion:
    """A question to the calculator.

    Attributes:
        sampling_prob, steps, delta: parameters of one run.
        noise_multiplier: the noise, or None to find the noise for `target_epsilon`.
        accountant: accountant of one run and of a composition. Private selection always uses RDP.
        composed: number of such runs that are released, or None.
        mean_trials, shape: law of the number of runs when only the best is released, or None.
        relation: relation of neighbouring datasets. Only PLD can price replacement.
    """

    sampling_prob: float
    steps: int
    delta: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    accountant: Literal["pld", "rdp"] = "pld"
    composed: int | None = None
    mean_trials: float | None = None
    shape: float | None = None
    relation: Relation = "add_remove"


def answer_budget(question: BudgetQuestion) -> dict[str, float | None]:
    """The numbers of `dpsweep epsilon --json`. `sweep_epsilon` is None if the question is about one run.

    Guarantees: with a target, the printed ε never exceeds it, because the same accountant chose the noise.

    Raises:
        BadInput: the target cannot be reached. Refused: RDP or private selection is asked for a claim of replacement.
    """
    from dpcore.privacy.accounting import Spending, epsilon_of, private_selection_epsilon

    noise = question.noise_multiplier if question.noise_multiplier is not None else _noise_for_target(question)
    spending = Spending(question.sampling_prob, noise, question.steps, question.relation)
    sweep_epsilon: float | None = None
    if question.composed is not None:
        # N runs of T equal steps are N·T steps, for either accountant.
        together = replace(spending, steps=question.steps * question.composed)
        sweep_epsilon = epsilon_of(together, question.delta, accountant=question.accountant)
    elif question.mean_trials is not None and question.shape is not None:
        sweep_epsilon = private_selection_epsilon(spending, question.delta, mean_trials=question.mean_trials, shape=question.shape)
    return {
        "epsilon": epsilon_of(spending, question.delta, accountant=question.accountant),
        "delta": question.delta,
        "noise_multiplier": noise,
        "sweep_epsilon": sweep_epsilon,
    }


def _noise_for_target(question: BudgetQuestion) -> float:
    if question.target_epsilon is None:
        raise BadInput("give either a noise multiplier or a target epsilon")
    if question.accountant == "rdp":
        return _calibrate_rdp(question, question.target_epsilon)
    from dpcore.privacy.accounting import calibrate

    return calibrate(
        question.sampling_prob, question.steps, delta=question.delta, epsilon=question.target_epsilon, relation=question.relation
    )


def _calibrate_rdp(question: BudgetQuestion, target: float) -> float:
    """The smallest noise whose RDP ε stays within `target`, to a relative precision of 1e-5 on the private side."""
    from dpcore.privacy.accounting import Spending, epsilon_of

    def is_private(noise: float) -> bool:
        run = Spending(question.sampling_prob, noise, question.steps, question.relation)
        return epsilon_of(run, question.delta, accountant="rdp") <= target

    high = 1.0
    while not is_private(high):
        high *= 2
        if high > LARGEST_NOISE:
            raise BadInput(f"no noise multiplier up to {LARGEST_NOISE:g} reaches ε = {target:g} by RDP at δ = {question.delta:g}; use pld")
    low = high / 2
    while is_private(low):
        high, low = low, low / 2
    while high / low - 1 > NOISE_TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_private(middle) else (middle, high)
    return high
