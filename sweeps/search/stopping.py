"""Stops trials of a search before their horizon: by asynchronous successive halving (`asha`), by the `median` rule, or by synchronous
successive `halving` (`sweeps.pricing.halving`).

A trial is compared with other search trials at the same ε and the same private step. All have the same horizon. The scores come
from public validation data. A decision depends only on the reports before it, in the order in which the driver stored them. So
a resume, which reads them again, makes the same decisions.

Stopping by `asha` and `median` saves time, not privacy. The step at which a trial stops depends on released scores, so its whole
reservation remains. Composing what was really spent would be wrong. `halving` saves privacy too: its rungs and the number of trials
on each are fixed beforehand, so a trial reserves only the steps to its rung.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from dpcore.errors import BadInput
from search_spaces.regimes import REGIMES
from search_spaces.space import HORIZON_PATH, SpaceFile, StoppingSettings, value_at
from sweeps.pricing.halving import HALVING, REDUCTION_FACTOR, rung_steps
from sweeps.records.results import TrialRecord

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults

MIN_OTHERS = 3
"""The median rule needs at least this many other trials by default."""
Number = float | Fraction


@dataclass(frozen=True, kw_only=True)
class StoppingPlan:
    """When a search decides, and by which rule.

    Attributes:
        rungs: private steps at which a report is judged, in rising order, all before `horizon`.
        reduction_factor: η of asha.
        min_others: fewest other trials for the median rule.
    """

    stopper: Literal["asha", "median", "halving"]
    rungs: tuple[int, ...]
    horizon: int
    reduction_factor: int = REDUCTION_FACTOR
    min_others: int = MIN_OTHERS

    def text(self) -> str:
        """For a person."""
        shown = [f"{step}" for step in self.rungs]
        at = ", ".join(shown if len(shown) <= 4 else [*shown[:2], "…", shown[-1]])
        best = f"the best 1/{self.reduction_factor} continue"
        rules = {"asha": best, HALVING: f"{best}, once all have come", "median": f"compared with at least {self.min_others} others"}
        return f"early stopping by {self.stopper} at step {at} of {self.horizon} ({rules[self.stopper]})"


def plan_stopping(space: SpaceFile, report_every_steps: int) -> StoppingPlan | None:
    """The stopping plan of a space whose trials report every so many steps. None without a stopper.

    The first decision is made at the first report at or after the grace period. With asha each further rung is η times as far (Li et
    al. 2020, arXiv:1810.05934). The median rule decides at every later report.

    Raises:
        BadInput: no report lies between the grace period and the horizon.
    """
    if space.sweep.stopper == "none":
        return None
    settings, horizon = space.sweep.stopping or StoppingSettings(), int(value_at(space.trial, HORIZON_PATH))
    factor = settings.reduction_factor or REDUCTION_FACTOR
    if space.sweep.stopper == HALVING:
        below = rung_steps(space)[:-1]
        if not below:
            raise BadInput(
                f"sweep.stopper halving: with grace_steps {space.stopping_grace_steps} no rung lies at or below 1/{factor} of the "
                f"horizon of {horizon}; lower sweep.stopping.grace_steps or reduction_factor, or use stopper none"
            )
        return StoppingPlan(stopper=HALVING, rungs=below, horizon=horizon, reduction_factor=factor)
    first = math.ceil(space.stopping_grace_steps / report_every_steps) * report_every_steps
    if first >= horizon:
        raise BadInput(
            f"sweep.stopper {space.sweep.stopper}: with grace_steps {space.stopping_grace_steps} and a report every {report_every_steps} "
            f"steps there is no decision before the horizon of {horizon}; lower sweep.stopping.grace_steps, or use stopper none"
        )
    is_asha = space.sweep.stopper == "asha"
    rungs = _powers(first, factor, horizon) if is_asha else tuple(range(first, horizon, report_every_steps))
    others = settings.min_others or MIN_OTHERS
    return StoppingPlan(stopper=space.sweep.stopper, rungs=rungs, horizon=horizon, reduction_factor=factor, min_others=others)


def _powers(first: int, factor: int, horizon: int) -> tuple[int, ...]:
    rungs = [first]
    while rungs[-1] * factor < horizon:
        rungs.append(rungs[-1] * factor)
    return tuple(rungs)


def halving_stops(score: float, others: Sequence[Number], *, reduction_factor: int) -> bool:
    """Whether a trial is not among the best ⌊n/η⌋ of the n that have reached its rung, itself included.

    This is the stopping variant of asynchronous successive halving. While ⌊n/η⌋ is 0, no trial stops. Trials with equal scores
    continue together.

    Args:
        score: the trial's score at the rung; −∞ if its weights diverged.
        others: scores of the trials that reached the rung earlier, in rising order.
        reduction_factor: η.
    """
    kept = (len(others) + 1) // reduction_factor
    better = len(others) - bisect_right(others, score)
    return kept > 0 and better >= kept


def median_stops(best: float, averages: Sequence[Number], *, min_others: int) -> bool:
    """Whether a trial's best score so far lies strictly below the median of the others' running averages.

    The median rule of Golovin et al. 2017 (Vizier, section 3.2.1), over all others that have come as far, ended or not.
    Numbers are compared as they are, without rounding, so that a trial exactly at the median goes on.

    Args:
        best: the highest score of the trial up to this step.
        averages: per other trial, the `exact_mean` of its scores up to this step, rising.
        min_others: with fewer of them nobody stops.
    """
    if len(averages) < min_others:
        return False
    middle = len(averages) // 2
    median = averages[middle] if len(averages) % 2 else exact_mean(averages[middle - 1 : middle + 1])
    return median > best


def exact_mean(scores: Sequence[Number]) -> Number:
    """The mean as a fraction, since a rounded one can lie above all its scores; −∞ where one of them is."""
    return -math.inf if -math.inf in scores else sum((Fraction(score) for score in scores), Fraction()) / len(scores)


class _Rung:
    """One number per trial that reached a rung."""

    def __init__(self) -> None:
        self._of_trial: dict[str, Number] = {}
        self._rising: list[Number] = []

    def others(self, trial_id: str) -> Sequence[Number]:
        """The numbers of all trials but one, in rising order."""
        if trial_id not in self._of_trial:
            return self._rising
        at = bisect_left(self._rising, self._of_trial[trial_id])
        return self._rising[:at] + self._rising[at + 1 :]

    def put(self, trial_id: str, number: Number) -> None:
        """Adds a number. The number of a new attempt replaces the earlier one."""
        self._rising = list(self.others(trial_id)) if trial_id in self._of_trial else self._rising
        self._of_trial[trial_id] = number
        insort(self._rising, number)


class Stopping:
    """The reports of a sweep's trials at the rungs, and the decisions which trials stop."""

    def __init__(self, plan: StoppingPlan) -> None:
        self._plan = plan
        self._rungs: dict[tuple[float | None, int], _Rung] = {}

    def stops(self, record: TrialRecord) -> bool:
        """Whether a trial is to end with the last point of its curve. Changes nothing."""
        if not self._judges(record):
            return False
        scores, others = _scores(record), self._rung(record).others(record.trial_id)
        if self._plan.stopper == "asha":
            return halving_stops(scores[-1], others, reduction_factor=self._plan.reduction_factor)
        return median_stops(max(scores), others, min_others=self._plan.min_others)

    def take(self, record: TrialRecord) -> bool:
        """Records the last point of a trial's curve and returns whether the trial stops."""
        if not self._judges(record):
            return False
        verdict, scores = self.stops(record), _scores(record)
        self._rung(record).put(record.trial_id, scores[-1] if self._plan.stopper == "asha" else exact_mean(scores))
        return verdict

    def _judges(self, record: TrialRecord) -> bool:
        """Whether a trial is judged. References, reruns and trials without privacy are neither stopped nor compared with."""
        return record.role == "search" and record.config.traits.is_private and record.steps in self._plan.rungs

    def _rung(self, record: TrialRecord) -> _Rung:
        return self._rungs.setdefault((record.epsilon, record.steps), _Rung())


def _scores(record: TrialRecord) -> list[float]:
    """The score of each report. Diverged weights rank below all others."""
    return [point.metrics.get(record.metric_key, -math.inf) for point in record.curve]


def stopping_lines(results: SweepResults, plan: StoppingPlan) -> tuple[str, ...]:
    """How many trials were stopped at each ε and step, and how many steps that saved."""
    lines = []
    for epsilon in results.epsilons:
        searched = [r for r in results.of_role("search", epsilon) if r.config.traits.is_private]
        stopped = Counter(record.steps for record in searched if record.state == "pruned")
        if searched:
            saved = sum((plan.horizon - step) * count for step, count in stopped.items()) / (plan.horizon * len(searched))
            where = ", ".join(f"{stopped[step]} at step {step}" for step in sorted(stopped))
            detail = f" ({where}), which saved {100 * saved:.0f} % of the search's private steps" if stopped else ""
            lines.append(f"ε = {epsilon:g}: {stopped.total()} of {len(searched)} trials stopped early{detail}")
    return (what_stopping_saves(plan, results.accounting), *lines)


def what_stopping_saves(plan: StoppingPlan, accounting: str) -> str:
    """The stopping plan and its effect on the price of the sweep. A sweep that reads no private data has no price."""
    if not REGIMES.get(accounting).reads_private:
        return plan.text()
    if plan.stopper == HALVING:
        return f"{plan.text()}; a trial is charged for the steps to its last rung, because the number on each rung was fixed beforehand"
    return f"{plan.text()}; it saves time, not privacy: a stopped trial is charged in full, because its end depended on released scores"
