"""What a successive-halving ladder costs when the number of trials per rung is fixed beforehand.

Trials share one noise multiplier, calibrated for the whole horizon. Trials that leave at a rung have made fewer releases. The numbers of
trials and steps per rung are constants. So the total number of steps is a constant too, whichever trials stay. PLD composes these steps,
and nothing is refunded because of results. This holds if a public score, or a score that was paid for, decides which trials stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpcore.errors import BadInput
from dpcore.privacy.plan import Spending


@dataclass(frozen=True, kw_only=True)
class Rung:
    """`trials` run on until each has taken `steps` of its private steps."""

    trials: int
    steps: int


def ladder_spending(full: Spending, rungs: Sequence[Rung]) -> Spending:
    """Everything that the trials of a ladder spend together, as one run.

    Args:
        full: of a trial that reaches the top.
        rungs: from the bottom; the last one reaches the full horizon.

    Raises:
        BadInput: no rungs, a number of trials that grows or is below 1, steps that do not grow, or a top below the horizon.
    """
    if not rungs or rungs[-1].steps != full.steps:
        raise BadInput(f"the last rung of a ladder is the full horizon of {full.steps} steps, given {[rung.steps for rung in rungs]}")
    steps, before = 0, Rung(trials=rungs[0].trials, steps=0)
    for rung in rungs:
        if not 1 <= rung.trials <= before.trials or rung.steps <= before.steps:
            raise BadInput(f"from rung to rung steps grow and at least one of the trials stays, given {before} and then {rung}")
        steps += rung.trials * (rung.steps - before.steps)
        before = rung
    return replace(full, steps=steps)
