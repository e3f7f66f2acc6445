"""The door that a sweep's events leave by: what may leave, when it is said to have happened, and the spool behind it.

Guarantees: on protected data only metrics on the allow-list leave, and no time tells a duration. Every event is on disk before it is sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.tracking.allow_list import allowed_error, allowed_metrics, is_allowed
from sweeps.tracking.outbox.sender import Sender

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from sweeps.tracking.outbox.spool import Spool
    from sweeps.tracking.trial_facts import TrialFacts

DRAIN_WITHIN_S = 30.0


class Door:
    """Sends events of one sweep, in order. Open it first, close it last."""

    def __init__(self, facts: TrialFacts, *, clock: Callable[[], float] = time.time) -> None:
        """`facts`: which data are protected. `clock`: seconds since 1970."""
        self._facts = facts
        self._clock = clock
        self._sender: Sender | None = None
        self._spool: Spool | None = None
        self._refused_names: set[str] = set()
        self._tells_time = True
        self.started_ms = 0

    def open(self, spool: Spool, sender: Sender, *, started_ms: int) -> None:
        """From now on events go into `spool`, from which `sender` takes them.

        Args:
            started_ms: when the sweep began, in milliseconds since 1970.
        """
        self._spool, self._sender, self.started_ms = spool, sender, started_ms

    def close(self, *, status: str) -> str | None:
        """Ends every run that is still RUNNING, waits a little for the last events, and stops the thread.

        Returns:
            What still waits, in a sentence; None if nothing does.
        """
        if self._sender is None or self._spool is None:
            return None
        sender, path = self._sender, self._spool.path
        try:
            self.send(kind="end_all", status=status, time_ms=self.now_ms())
        finally:  # a full disk takes no event; the thread must end all the same, or the process never does
            self._sender = self._spool = None
            left = sender.close(within_s=DRAIN_WITHIN_S)
        return f"{left} events wait in {path}" if left else None

    def send(self, **event: Any) -> None:
        """Puts an event into the spool. Its metrics and errors must have passed `allowed` and `allowed_error`."""
        if self._sender is None:
            raise RuntimeError("call Tracker.sweep_started before any other event")
        self._sender.append(event)

    def send_metrics(self, key: str, step: int, metrics: Mapping[str, float], *, config: TrialConfig, at_end: bool = False) -> None:
        """Sends those metrics of a run that may leave.

        Args:
            config: of the trial that they tell of.
            at_end: they are of the end of the sweep, and not of a step of the trial.
        """
        time_ms = self.time_ms(config, step)
        allowed = self.allowed(metrics, config)
        self.send(kind="metrics", key=key, step=step, metrics=allowed, time_ms=self.now_ms() if at_end else time_ms)

    def send_files(self, key: str, paths: Sequence[Path], *, folder: str | None, remove: bool = False) -> None:
        """Uploads files. `remove` is for files that only MLflow may keep."""
        self.send(kind="files", key=key, paths=[str(path) for path in paths], folder=folder, remove=remove)

    def allowed(self, metrics: Mapping[str, float], config: TrialConfig) -> dict[str, float]:
        """The metrics of a trial that may leave. The names of the others are said once."""
        protected = self.is_protected(config)
        fresh = {name for name in metrics if not is_allowed(name)} - self._refused_names if protected else set()
        if fresh:
            self._refused_names |= fresh
            print(f"dpsweep: not sent to MLflow (protected data, not on the allow-list): {', '.join(sorted(fresh))}", file=sys.stderr)
        return allowed_metrics(metrics, protected=protected)

    def allowed_error(self, error: str, config: TrialConfig) -> str:
        """What may leave of a trial's failure message."""
        return allowed_error(error, protected=self.is_protected(config))

    def time_ms(self, config: TrialConfig, step: int) -> int:
        """The time of an event. On protected data it is the start of the sweep plus one millisecond per step, to hide durations."""
        self._tells_time = self._tells_time and not self.is_protected(config)
        return self.now_ms() if self._tells_time else self.started_ms + step

    def now_ms(self) -> int:
        """The end of the sweep. On protected data it is the start, because the length of a sweep is the sum of its trials' durations."""
        return int(self._clock() * 1000) if self._tells_time else self.started_ms

    def is_protected(self, config: TrialConfig) -> bool:
        """Whether a trial reads data of protected people."""
        return any(facts.protected for facts in self._facts.datasets(config).values())
