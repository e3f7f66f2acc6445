"""Notices trials that hang: each report is a sign of life, and a trial that gives none for too long is ended.

The worker of such a trial is killed, so the trial goes on as after any death of a worker: retried `max_failures` times, and charged what
it reserved. How long is too long is `--trial-timeout`, or follows from the longest silence of trials that went on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sweeps.internals.ray_internals import kill_worker
from sweeps.records.spec import SweepSpec
from sweeps.storage.heartbeat import Heartbeat, take_requests

BEAT_EVERY_S = 5.0
ASLEEP_S = 60.0
"""A driver that looked so rarely was stopped itself (Ctrl-Z, a laptop that slept). That is no silence of its trials."""
UNMEASURED_S = 6 * 3600.0
"""Before any trial was heard of twice: public training on a large dataset may take hours before the first report."""
LEAST_S, TIMES_LONGEST = 1800.0, 20.0


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """A trial on a worker: Ray's own object of it, when it was last heard of, and whether it may be shown."""

    worker: Any
    heard: float
    is_shown: bool


class Watchdog:
    """The signs of life of the trials on workers. All calls come from the driver's one thread.

    Args:
        spec: gives the time-out, and the state in which the heartbeat lies.
        timed: False on protected data: how long a trial takes stays in this process.
        clock: seconds, monotonic.
    """

    def __init__(self, spec: SweepSpec, *, timed: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._timed = timed
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._longest_s = 0.0
        self._looked = clock()
        self._beat_at = self._looked
        self._killed: dict[str, str] = {}

    @property
    def timeout_s(self) -> float:
        """How long a trial may say nothing."""
        if self._spec.trial_timeout_s is not None:
            return self._spec.trial_timeout_s
        return max(LEAST_S, TIMES_LONGEST * self._longest_s) if self._longest_s else UNMEASURED_S

    def begun(self, trial_id: str, worker: Any, *, is_shown: bool) -> None:
        """A worker has the trial."""
        self._watched[trial_id] = _Watched(worker=worker, heard=self._clock(), is_shown=is_shown)

    def heard(self, trial_id: str) -> None:
        """The trial reported."""
        if trial_id in self._watched:
            before, now = self._watched[trial_id], self._clock()
            self._longest_s = max(self._longest_s, now - before.heard)
            self._watched[trial_id] = replace(before, heard=now)

    def ended(self, trial_id: str) -> str | None:
        """The trial is on no worker any more. Returns why its worker was killed from here, None where it was not."""
        self._watched.pop(trial_id, None)
        return self._killed.pop(trial_id, None)

    def kill(self, trial_id: str, reason: str) -> None:
        """Ends a trial's worker, whatever it does."""
        if trial_id in self._watched and trial_id not in self._killed:
            self._killed[trial_id] = reason
            kill_worker(self._watched[trial_id].worker)

    def look(self) -> tuple[str, ...]:
        """Ends what is overdue and gives a sign of life, both once in `BEAT_EVERY_S`. Returns what others have asked for."""
        now = self._clock()
        if now - self._looked > ASLEEP_S:
            self._watched = {name: replace(one, heard=one.heard + now - self._looked) for name, one in self._watched.items()}
        self._looked = now
        if now < self._beat_at:
            return ()
        self._beat_at = now + BEAT_EVERY_S
        limit = self.timeout_s
        for trial_id, one in self._watched.items():
            if now - one.heard > limit:
                self.kill(trial_id, f"the worker died: it reported nothing for {limit:.0f} s and was ended (--trial-timeout)")
        self._beat(now)
        return take_requests(self._spec.state_dir)

    def _beat(self, now: float) -> None:
        trials = {name: time.time() - (now - one.heard) if self._timed else None for name, one in self._watched.items() if one.is_shown}
        Heartbeat(host=socket.gethostname(), pid=os.getpid(), at=time.time(), trials=trials).write(self._spec.state_dir)
