"""The ladders of synchronous successive halving: which trials climb, and what all of them spend.

Rungs and the number of trials on each follow from the space alone, before the first trial. The scores are public. So the number of steps
that a ladder takes is a constant, whichever trials climb, and PLD composes them (`dpcore.privacy.ladder`). A trial's steps up to a rung are
reserved when it sets out for that rung.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from search_spaces.space import HORIZON_PATH, SpaceFile, StoppingSettings, value_at

if TYPE_CHECKING:
    from dpcore.privacy.ladder import Rung
    from sweeps.records.results import TrialRecord

HALVING = "halving"
REDUCTION_FACTOR = 3
"""Default η."""


def rung_steps(space: SpaceFile) -> tuple[int, ...]:
    """The private steps at which the rungs of a space lie, rising: T, T/η, T/η² and so on, rounded up, as long as the grace period is
    over. Empty without `stopper: halving`."""
    if space.sweep.stopper != HALVING:
        return ()
    settings, horizon = space.sweep.stopping or StoppingSettings(), int(value_at(space.trial, HORIZON_PATH))
    factor = settings.reduction_factor or REDUCTION_FACTOR
    steps, reduced = [horizon], math.ceil(horizon / factor)
    while space.stopping_grace_steps <= reduced < steps[-1]:
        steps.append(reduced)
        reduced = math.ceil(reduced / factor)
    return tuple(reversed(steps))


def ladder_of(space: SpaceFile, trials: int) -> tuple[Rung, ...]:
    """The ladder of `trials` trials: at each rung the best 1/η go on, rounded down, at least one. Empty without `stopper: halving`."""
    from dpcore.privacy.ladder import Rung

    factor = (space.sweep.stopping or StoppingSettings()).reduction_factor or REDUCTION_FACTOR
    return tuple(Rung(trials=max(1, trials // factor**level), steps=steps) for level, steps in enumerate(rung_steps(space)))


def waits(record: TrialRecord) -> bool:
    """Whether a trial has reached the rung to which it has reserved its steps, below the horizon."""
    return not record.is_finished and record.plan is not None and record.plan.until is not None and record.steps == record.plan.until


def climb(records: Sequence[TrialRecord], ladder: Sequence[Rung]) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Who goes on and who stays, once all have come to the lowest rung on which trials wait; nobody before.

    A trial goes on by its score, among equal ones by its number; one without a score stays. Trials that have gone on already, before a
    driver was killed, keep their places, so that a resume ends with the same trials.

    Args:
        records: every trial of an ε that stands on the ladder, ended or not.
        ladder: from the bottom.
    """
    for rung, above in pairwise(ladder):
        reached = [record for record in records if record.plan is not None and record.plan.last_step <= rung.steps]
        if any(not record.is_finished and not waits(record) for record in reached):
            return [], []
        waiting = sorted(filter(waits, reached), key=lambda record: (-_score(record), record.number))
        if waiting:
            free = above.trials - (len(records) - len(reached))
            going = [record for record in waiting[: max(0, free)] if record.score is not None]
            return going, [record for record in waiting if record not in going]
    return [], []


def _score(record: TrialRecord) -> float:
    return -math.inf if record.score is None else record.score
