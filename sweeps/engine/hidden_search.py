"""The search of a private selection while it runs: hands trials out and takes them back, and shows nobody anything of them.

Every selection is reserved before the first trial of any, so that no ε is cut short by what another one cost. A worker that
dies is tried again only where the retry replays bit for bit; elsewhere the trial has failed, because a second draw under the
same name would be a draw too many. A failed trial, or one whose score is no number, is the lowest score.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from sweeps.pricing.plan import private_config
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import Selection
from sweeps.records.results import CurvePoint, TrialRecord, best_of
from sweeps.records.spec import SweepSpec


class HiddenSearch:
    """All selections of a sweep. `over` names the ε whose winner is out."""

    def __init__(
        self, spec: SweepSpec, selection: Selection, reservations: Reservations, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec = spec
        self._selection = selection
        self._reservations = reservations
        self._clock = clock
        self._waiting: dict[float, deque[TrialRecord]] = {}
        self._ended: dict[float, list[TrialRecord]] = {}
        self._running: dict[str, TrialRecord] = {}
        self._since: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self.over: set[float] = set()
        self.is_reserved = False

    def restore(self, over: Collection[float]) -> None:
        """Draws what is left to run; `over`: the ε that an earlier driver finished."""
        self.over = set(over)
        for epsilon in self._spec.space.sweep.epsilons:
            if epsilon in self.over:
                self._settle(epsilon, outcome="done")
                continue
            self._ended[epsilon] = list(self._selection.ended(epsilon))
            known = {record.trial_id for record in self._ended[epsilon]}
            every = (self._selection.candidate(epsilon, number) for number in range(self._selection.count(epsilon)))
            self._waiting[epsilon] = deque(record for record in every if record.trial_id not in known)

    def __contains__(self, trial_id: str) -> bool:
        """Whether the trial runs under the seal."""
        return trial_id in self._running

    @property
    def live(self) -> int:
        """How many trials are on workers."""
        return len(self._running)

    def reserve(self) -> None:
        """Writes every selection down, once, before the first trial.

        Raises:
            Refused: `epsilon_total` would be passed. Nothing is run then.
        """
        if self.is_reserved:
            return
        for epsilon in self._waiting:
            one = self._one(epsilon)
            if one is not None:
                self._reservations.reserve_selection(one, self._selection)
        self.is_reserved = True

    def next(self) -> TrialRecord | None:
        """The next trial, from the ε with the most left, so that the selections advance side by side."""
        epsilon = max(self._waiting, key=lambda e: len(self._waiting[e]), default=None)
        if epsilon is None or not self._waiting[epsilon]:
            return None
        record = replace(self._waiting[epsilon].popleft(), state="running")
        self._running[record.trial_id] = record
        self._since[record.trial_id] = self._clock()
        return record

    def folder(self, trial_id: str) -> Path:
        """Where the trial keeps its checkpoints."""
        return self._selection.folder(trial_id)

    def started(self, trial_id: str) -> TrialRecord:
        """A worker has the trial."""
        self._since[trial_id] = self._clock()
        return self._running[trial_id]

    def report(self, trial_id: str, point: CurvePoint) -> TrialRecord:
        """Takes a report in, in memory alone."""
        self._running[trial_id] = self._running[trial_id].with_point(point)
        return self._running[trial_id]

    def end(self, trial_id: str, *, error: str | None = None) -> TrialRecord:
        """The end of a trial, written under the seal."""
        record = self._running.pop(trial_id).ended(seconds=self._clock() - self._since.pop(trial_id), error=error)
        self._selection.write_end(record)
        self._ended[record.at_epsilon].append(record)
        return record

    def worker_died(self, trial_id: str, error: str) -> TrialRecord:
        """Hands the trial out again where the retry is the same release, `max_failures` times; else it has failed."""
        failures = self._failures[trial_id] = self._failures.get(trial_id, 0) + 1
        if self._spec.runtime.device != "cpu" or failures > self._spec.max_failures:
            return self.end(trial_id, error=error)
        record = self._running.pop(trial_id)
        self._since.pop(trial_id)
        # the retry reports its curve again: what is compared then lies in the trial's own folder
        bare = TrialRecord(trial_id=trial_id, role="search", number=0, epsilon=record.epsilon, config=record.config)
        self._waiting[record.at_epsilon].append(bare)
        return bare

    def finished(self) -> Iterator[tuple[float, TrialRecord | None]]:
        """Each ε whose every trial has ended, with its winner (None: no trial came to a score). Call `forget` when it is kept."""
        for epsilon, waiting in self._waiting.items():
            if epsilon not in self.over and not waiting and not any(r.epsilon == epsilon for r in self._running.values()):
                winner = best_of(self._ended[epsilon])
                if winner is not None:
                    self._selection.publish(winner)
                yield epsilon, winner

    def forget(self, epsilon: float, *, outcome: str) -> None:
        """Settles a selection whose winner is kept, and deletes everything about its losers."""
        self.over.add(epsilon)
        self._ended.pop(epsilon, None)
        self._settle(epsilon, outcome=outcome)

    def close(self) -> None:
        """Deletes the sealed folder if every selection is over."""
        if self.over.issuperset(self._spec.space.sweep.epsilons):
            self._selection.close()

    def _settle(self, epsilon: float, *, outcome: str) -> None:
        one = self._one(epsilon)
        if one is not None:
            self._reservations.settle_selection(one, self._selection, outcome=outcome)
        self._selection.forget(epsilon)

    def _one(self, epsilon: float) -> TrialRecord | None:
        """Stands for all trials of an ε: they spend alike."""
        config = private_config(self._spec.space, epsilon)
        return None if config is None else TrialRecord(trial_id="", role="search", number=0, epsilon=epsilon, config=config)
