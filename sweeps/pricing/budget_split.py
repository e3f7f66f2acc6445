"""One way to divide a budget between choosing and training, as a plan shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BudgetSplit:
    """One way to divide the budget.

    Attributes:
        procedure: in words.
        trials: how many settings are tried; of a private selection the mean. reruns: fresh seeds.
        epsilon: of one model; None: it cannot be done, `why` says why.
        noise_multiplier: of its training.
        price: ε of everything.
        is_own: whether it is what the space asks for.
        is_best: whether its model has the largest ε of those that try as many settings as the space asks for, with the data that it has.
        needs: what the space would have to say.
    """

    procedure: str
    trials: float
    reruns: int
    needs: str
    epsilon: float | None = None
    noise_multiplier: float | None = None
    price: float | None = None
    why: str = ""
    is_own: bool = False
    is_best: bool = False
