"""The budget calculator behind `dpsweep epsilon`: one run, and the price of releasing many."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from dpcore.config import Relation
from dpcore.errors import BadInput

if TYPE_CHECKING:
    from dpcore.privacy.accounting import AccountantName

LARGEST_NOISE = 1e6
NOISE_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class BudgetQuestion:
    """What is asked.

    Attributes:
        sampling_prob, steps, delta: of one run.
        noise_multiplier: given, or None to find the noise for `target_epsilon`.
        accountant: of one run and of a composition; None is pld. A private selection is priced by RDP, and the run beside it too, or with
            `profile` by its privacy profile, and the run by PLD.
        composed: how many such runs are released, or None.
        mean_trials, shape: the law of the number of runs of which the best is released, or None.
        relation: of neighbouring datasets; replacement is priced by PLD alone.
    """

    sampling_prob: float
    steps: int
    delta: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    accountant: AccountantName | Literal["profile"] | None = None
    composed: int | None = None
    mean_trials: float | None = None
    shape: float | None = None
    relation: Relation = "add_remove"

    def __post_init__(self) -> None:
        _check_numbers(self)
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise BadInput("give either a noise multiplier or a target epsilon")
        if (self.mean_trials is None) != (self.shape is None):
            raise BadInput("private selection needs both mean_trials and shape: the law of the number of runs")
        if self.mean_trials is not None and self.composed is not None:
            raise BadInput("give either composed (all runs are released) or mean_trials and shape (the best one is)")
        if self.accountant == "profile" and not self.is_selection:
            raise BadInput("accountant profile prices a private selection: give mean_trials and shape, or take pld or rdp")

    @property
    def is_selection(self) -> bool:
        """Whether the release of the best of a random number of runs is priced too."""
        return self.mean_trials is not None

    @property
    def priced_by(self) -> AccountantName:
        """The accountant of one run, and of a composition."""
        if self.accountant == "profile":
            return "pld"
        return "rdp" if self.is_selection else self.accountant or "pld"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one run spends, and many.

    Attributes:
        epsilon: of one run, at `delta`. noise_multiplier: given or found.
        sweep_epsilon: of the release of many runs; None where one alone was asked for.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    sweep_epsilon: float | None = None

    def document(self) -> dict[str, float | None]:
        """What `dpsweep epsilon --json` prints."""
        return asdict(self)


def _check_numbers(question: BudgetQuestion) -> None:
    """Raises `BadInput` for a number out of its range, NaN and infinities included (a shape of inf is the Poisson law)."""
    at_least_one = "a whole number of at least 1"
    rules: tuple[tuple[str, Callable[[float], bool], str], ...] = (
        ("sampling_prob", lambda value: 0 < value <= 1, "a probability in (0, 1]"),
        ("steps", lambda value: value >= 1 and float(value).is_integer(), at_least_one),
        ("delta", lambda value: 0 < value < 1, "a δ in (0, 1)"),
        ("noise_multiplier", lambda value: 0 < value < math.inf, "a finite number above 0"),
        ("target_epsilon", lambda value: 0 < value < math.inf, "a finite number above 0"),
        ("composed", lambda value: value >= 1 and float(value).is_integer(), at_least_one),
        ("mean_trials", lambda value: 1 < value < math.inf, "a mean above 1: the law always runs at least one trial"),
        ("shape", lambda value: value > -1, "a shape above -1 (0 logarithmic, 1 geometric, inf Poisson)"),
    )
    for name, holds, expected in rules:
        value = getattr(question, name)
        if value is not None and (not isinstance(value, int | float) or math.isnan(value) or not holds(value)):
            raise BadInput(f"{name}: expected {expected}, given {value!r}")


def answer_budget(question: BudgetQuestion) -> Budget:
    """The numbers; `sweep_epsilon` is None where one run alone was asked for.

    Guarantees: with a target, the printed ε never exceeds it: the accountant that reports it has also chosen the noise.

    Raises:
        BadInput: the target cannot be reached. Refused: RDP or private selection is asked for a claim of replacement.
    """
    from dpcore.privacy.accounting import Spending, epsilon_of
    from dpcore.privacy.composition import Selected, SelectionAccountant, price

    noise = question.noise_multiplier if question.noise_multiplier is not None else _noise_for_target(question)
    spending = Spending(question.sampling_prob, noise, question.steps, question.relation)
    sweep_epsilon: float | None = None
    if question.composed is not None:
        # N runs of T equal steps are N·T steps, for either accountant.
        together = replace(spending, steps=question.steps * question.composed)
        sweep_epsilon = epsilon_of(together, question.delta, accountant=question.priced_by)
    elif question.mean_trials is not None and question.shape is not None:
        by: SelectionAccountant = "profile" if question.accountant == "profile" else "rdp"
        sweep_epsilon = price([(Selected(spending, question.mean_trials, question.shape, by), 1)], question.delta)
    own = epsilon_of(spending, question.delta, accountant=question.priced_by)
    return Budget(epsilon=own, delta=question.delta, noise_multiplier=noise, sweep_epsilon=sweep_epsilon)


def _noise_for_target(question: BudgetQuestion) -> float:
    if question.target_epsilon is None:
        raise BadInput("give either a noise multiplier or a target epsilon")
    if question.priced_by == "rdp":
        return _calibrate_rdp(question, question.target_epsilon)
    from dpcore.privacy.accounting import calibrate

    return calibrate(
        question.sampling_prob, question.steps, delta=question.delta, epsilon=question.target_epsilon, relation=question.relation
    )


def _calibrate_rdp(question: BudgetQuestion, target: float) -> float:
    """The smallest noise (to 1e-5 of itself, on the private side) whose RDP ε stays within `target`."""
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
