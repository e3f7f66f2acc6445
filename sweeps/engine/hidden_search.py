"""The search of a private selection while it runs: hands trials out, takes them back, and shows nothing of them.

All selections are reserved before the first trial, so that the cost of one ε never stops another one. If a worker dies, its trial is
retried only if the retry replays bit for bit. Otherwise the trial has failed, because a second draw under the same name would be one
draw too many. A failed trial, or one with a NaN score, counts as the lowest score.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dpcore.train.reports import Report
from sweeps.ledger.lines import UNFULFILLED
from sweeps.pricing.plan import private_config
from sweeps.pricing.reservations import Planner, Reservations
from sweeps.pricing.selection import Selection, as_released
from sweeps.records.results import CurvePoint, TrialRecord, best_of
from sweeps.records.spec import SweepSpec
from sweeps.search.failures import repeats_itself


class HiddenSearch:
    """All selections of a sweep. `over` holds the ε whose winner is released."""

    def __init__(
        self,
        spec: SweepSpec,
        selection: Selection,
        reservations: Reservations,
        *,
        planner: Planner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._selection = selection
        self._reservations = reservations
        self._planner = planner
        self._clock = clock
        self._waiting: dict[float, deque[TrialRecord]] = {}
        self._ended: dict[float, list[TrialRecord]] = {}
        self._running: dict[str, TrialRecord] = {}
        self._since: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._void: dict[str, str] = {}
        self.over: set[float] = set()
        self.is_reserved = False

    def restore(self, over: Collection[float]) -> None:
        """Draws the trials that are left. `over` holds the ε that an earlier driver finished."""
        self.over = set(over)
        for epsilon in self._spec.space.sweep.epsilons:
            if epsilon in self.over:
                self._settle(epsilon, outcome=self._outcome(list(self._selection.ended(epsilon)), "done"))
                continue
            self._ended[epsilon] = list(self._selection.ended(epsilon))
            known = {record.trial_id for record in self._ended[epsilon]}
            every = (self._selection.candidate(epsilon, number) for number in range(self._selection.count(epsilon)))
            self._waiting[epsilon] = deque(record for record in every if record.trial_id not in known)

    def is_begun(self, epsilon: float) -> bool:
        """Whether trials of an ε have ended or begun on the disk."""
        return bool(list(self._selection.ended(epsilon))) or any(
            self._selection.folder(self._selection.candidate(epsilon, number).trial_id).exists()
            for number in range(self._selection.count(epsilon))
        )

    def __contains__(self, trial_id: str) -> bool:
        """Whether the trial runs under the seal."""
        return trial_id in self._running

    @property
    def live(self) -> int:
        """How many trials are on workers."""
        return len(self._running)

    def reserve(self) -> None:
        """Reserves every selection, once, before the first trial.

        Raises:
            Refused: `epsilon_total` would be exceeded. Then nothing runs.
        """
        if self.is_reserved:
            return
        for epsilon in self._waiting:
            one = self._one(epsilon)
            if one is not None:
                self._reservations.reserve_selection(one, self._selection)
        self.is_reserved = True

    def next(self) -> TrialRecord | None:
        """The next trial, from the ε with the most trials left, so that the selections advance together."""
        epsilon = max(self._waiting, key=lambda e: len(self._waiting[e]), default=None)
        if epsilon is None or not self._waiting[epsilon]:
            return None
        record = self._planner.planned(replace(self._waiting[epsilon].popleft(), state="running"))
        self._reservations.check_data(record)
        self._running[record.trial_id] = record
        self._since[record.trial_id] = self._clock()
        return record

    def folder(self, trial_id: str) -> Path:
        """The folder of the trial's checkpoints."""
        return self._selection.folder(trial_id)

    def started(self, trial_id: str) -> TrialRecord:
        """A worker has the trial."""
        self._since[trial_id] = self._clock()
        return self._running[trial_id]

    def breaks_plan(self, trial_id: str, report: Report) -> str | None:
        """How a report differs from what was reserved."""
        return self._planner.difference(self._running[trial_id], report)

    def report(self, trial_id: str, report: Report) -> TrialRecord:
        """Stores a report, only in memory. One that is not what was reserved voids the trial, and with it the selection."""
        reason = self.breaks_plan(trial_id, report)
        if reason is None:
            self._running[trial_id] = self._running[trial_id].with_point(CurvePoint.of(report))
        else:
            self._void.setdefault(trial_id, reason)
        return self._running[trial_id]

    def not_as_planned(self, trial_id: str, error: str) -> TrialRecord:
        """A worker found that it did something else than was reserved."""
        self._void.setdefault(trial_id, error)
        return self.end(trial_id)

    def end(self, trial_id: str, *, error: str | None = None) -> TrialRecord:
        """Stores the end of a trial in the sealed journal."""
        reason, seconds = self._void.pop(trial_id, None), self._clock() - self._since.pop(trial_id)
        record = self._running.pop(trial_id).ended(seconds=seconds, error=reason or error, fulfilled=reason is None)
        self._selection.write_end(record)
        self._ended[record.at_epsilon].append(record)
        return record

    def worker_died(self, trial_id: str, error: str) -> TrialRecord:
        """Hands the trial out again if the retry is the same release, up to `max_failures` times, unless it failed alike before.
        Otherwise it has failed. Failures that are alike do not end a selection: it is reserved as a whole, and where it ends is secret."""
        failures = self._failures[trial_id] = self._failures.get(trial_id, 0) + 1
        is_hopeless, self._errors[trial_id] = repeats_itself(error, self._errors.get(trial_id)), error
        if trial_id in self._void or self._spec.runtime.device != "cpu" or failures > self._spec.max_failures or is_hopeless:
            return self.end(trial_id, error=error)
        record = self._running.pop(trial_id)
        self._since.pop(trial_id)
        # the retry reports its curve again and is compared with the trial's own folder
        bare = TrialRecord(trial_id=trial_id, role="search", number=0, epsilon=record.epsilon, config=record.config, metric=record.metric)
        self._waiting[record.at_epsilon].append(bare)
        return bare

    def finished(self) -> Iterator[tuple[float, TrialRecord | None]]:
        """Each ε whose trials have all ended, with its winner (None if no trial has a score). Call `forget` when it is stored."""
        for epsilon, waiting in self._waiting.items():
            if epsilon not in self.over and not waiting and not any(r.epsilon == epsilon for r in self._running.values()):
                winner = best_of(self._ended[epsilon])
                if winner is not None:
                    winner = as_released(winner, self._spent(epsilon))
                    self._selection.publish(winner)
                    if not all(record.fulfilled for record in self._ended[epsilon]):
                        winner = replace(winner, fulfilled=False, epsilon_spent=None)
                yield epsilon, winner

    def forget(self, epsilon: float, *, outcome: str) -> None:
        """Settles a selection whose winner is stored, and deletes everything about the other trials."""
        self.over.add(epsilon)
        self._settle(epsilon, outcome=self._outcome(self._ended.pop(epsilon, []), outcome))

    def close(self) -> None:
        """Deletes the sealed folder if every selection is over."""
        if self.over.issuperset(self._spec.space.sweep.epsilons):
            self._selection.close()

    def _settle(self, epsilon: float, *, outcome: str) -> None:
        one = self._one(epsilon)
        if one is not None:
            self._reservations.settle_selection(one, self._selection, outcome=outcome)
        self._selection.forget(epsilon)

    def _outcome(self, ended: Iterable[TrialRecord], outcome: str) -> str:
        """Which run wins depends on every candidate: one that did not do what was reserved voids the claim of all."""
        return outcome if all(record.fulfilled for record in ended) else UNFULFILLED

    def _spent(self, epsilon: float) -> float | None:
        """What the whole selection spends; None where its trials spend nothing."""
        one = self._one(epsilon)
        return None if one is None else self._reservations.epsilon_of_selection(one, self._selection)

    def _one(self, epsilon: float) -> TrialRecord | None:
        """One trial of an ε, which represents all of them, because they spend the same."""
        config = private_config(self._spec.space, epsilon)
        if config is None:
            return None
        return self._planner.planned(TrialRecord(trial_id="", role="search", number=0, epsilon=epsilon, config=config))
