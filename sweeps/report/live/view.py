"""What a running sweep shows of itself: plain data, made from records that may be seen.

On protected data nobody times a trial and no step is followed: the view has planned steps alone. Of a private selection that runs it has
neither trials nor counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from sweeps.pricing.duration import span
from sweeps.records.results import TrialRecord, best_of, title_of

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec
    from sweeps.storage.doing import Doing


@dataclass(frozen=True, kw_only=True)
class RunningRow:
    """A trial on a worker.

    Attributes:
        step: private steps of its last report; None before one, and on protected data.
        steps: planned, 0 where none is private. since: on the driver's clock; None on protected data.
        doing: what it said that it is at, before its first report.
    """

    trial_id: str
    method: str
    step: int | None
    steps: int
    since: float | None
    doing: Doing | None = None

    @property
    def at(self) -> str:
        """Where it is, in words."""
        if self.doing is not None and self.step is None:
            left = self.doing.seconds_left
            return f"{self.doing.what} {self.doing.done:,} of {self.doing.total:,}" + ("" if left is None else f", about {span(left)} left")
        if not self.steps:
            return "public training"
        if self.step is None:
            return f"{self.steps} steps planned" if self.since is None else f"before the first report, {self.steps} steps"
        return f"step {self.step} of {self.steps}"


@dataclass(frozen=True, kw_only=True)
class EpsilonRow:
    """The search at one ε. `planned` None: it is a private selection, whose number of trials is secret. Scores are fractions."""

    epsilon: float
    ended: int
    planned: int | None
    best: float | None
    leader: str


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """A running sweep at one moment.

    Attributes:
        finished, planned: runs of all kinds, of a selection those that may be counted.
        floor: the best score that costs nothing.
        reserved, price: ε reserved so far, and at the end of the plan; None: no promise, or not computed yet.
        seconds_left: None where it is not known, or must not be.
        notes: what else goes on, such as the disclosure.
    """

    name: str
    metric: str
    accounting: str
    finished: int
    planned: int
    epsilons: tuple[EpsilonRow, ...]
    running: tuple[RunningRow, ...]
    floor: float | None
    reserved: float | None
    price: float | None
    seconds_left: float | None
    notes: tuple[str, ...] = ()


def view_of(
    spec: SweepSpec,
    records: Sequence[TrialRecord],
    running: Iterable[tuple[TrialRecord, float]],
    *,
    finished: int,
    planned: int,
    timed: bool,
    slots: int,
    reserved: float | None,
    price: float | None,
    notes: tuple[str, ...] = (),
    doing: Callable[[str], Doing | None] = lambda trial_id: None,
) -> SweepView:
    """The view of a sweep.

    Args:
        spec: of the sweep.
        records: that may be seen.
        running: those on workers, each with the moment of its hand-out.
        finished, planned: runs.
        timed: False on protected data.
        slots: how many run at once.
        reserved, price, notes: as in the view.
        doing: what a running trial said that it is at.
    """
    secret = spec.space.sweep.regime.is_selection
    left = _seconds_left(records, planned - finished, slots) if timed and not secret else None
    return SweepView(
        name=spec.name,
        metric=title_of(spec.metric),
        accounting=spec.space.sweep.accounting,
        finished=finished,
        planned=planned,
        epsilons=tuple(_at(spec, records, epsilon, secret=secret) for epsilon in spec.space.sweep.epsilons),
        running=tuple(_running(record, since, timed=timed, doing=doing(record.trial_id) if timed else None) for record, since in running),
        floor=max((record.score for record in records if record.role == "floor" and record.score is not None), default=None),
        reserved=reserved,
        price=price,
        seconds_left=left,
        notes=notes,
    )


def _at(spec: SweepSpec, records: Iterable[TrialRecord], epsilon: float, *, secret: bool) -> EpsilonRow:
    from sweeps.pricing.plan import trials_at

    searched = [record for record in records if record.role == "search" and record.epsilon == epsilon]
    best = best_of(searched)
    return EpsilonRow(
        epsilon=epsilon,
        ended=sum(record.is_finished for record in searched),
        planned=None if secret else trials_at(spec.space, epsilon),
        best=None if best is None else best.score,
        leader="" if best is None else f"{best.trial_id} {best.config.method}",
    )


def _running(record: TrialRecord, since: float, *, timed: bool, doing: Doing | None) -> RunningRow:
    steps = record.config.stages.private.steps if record.config.traits.private_sum != "none" else 0
    return RunningRow(
        trial_id=record.trial_id,
        method=record.config.method,
        step=(record.steps or None) if timed else None,
        steps=steps,
        since=since if timed else None,
        doing=doing,
    )


def _seconds_left(records: Iterable[TrialRecord], left: int, slots: int) -> float | None:
    timed = [record.seconds for record in records if record.is_finished and record.seconds > 0]
    return mean(timed) * max(0, left) / slots if timed else None
