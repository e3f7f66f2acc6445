"""Sends spooled events in order, in one thread, so that an outage never affects the sweep."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from sweeps.tracking.outbox.spool import Spool, TrackingEvent

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Sender:
    """Delivers the events of a spool, oldest first. Each event is repeated until it is answered.

    | `deliver` | then |
    |---|---|
    | returns | the offset is saved, the next event follows |
    | raises one of `outages` | one message on stderr; the same event again after 1, 2, 4, … 60 s |
    | raises one of `outages` for which `is_final` | a message on stderr with the event's run; the next event follows |
    | raises anything else | a bug: the thread ends, `close` raises the error, the events stay in the spool |
    """

    def __init__(
        self,
        spool: Spool,
        deliver: Callable[[TrackingEvent], None],
        *,
        outages: tuple[type[Exception], ...],
        is_final: Callable[[Exception], bool],
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._spool = spool
        self._deliver = deliver
        self._outages = outages
        self._is_final = is_final
        self._first_pause_s = first_pause_s
        self._changed = threading.Condition()
        self._idle = True
        self._stopping = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dpsweep-tracking")
        self._loop: Future[None] = self._executor.submit(self._send_all)

    def append(self, event: TrackingEvent) -> None:
        """Puts an event into the spool and wakes the thread. Never waits for MLflow."""
        with self._changed:
            self._spool.append(event)
            self._changed.notify_all()

    def close(self, *, within_s: float) -> int:
        """Waits until everything is sent, at most `within_s` seconds, and stops the thread.

        Returns:
            How many events are left in the spool.

        Raises:
            Exception: the error that ended the thread, if it was not an outage.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._loop.done() or (self._idle and self._spool.next() is None), timeout=within_s)
            self._stopping = True
            self._changed.notify_all()
        self._executor.shutdown(wait=True)
        self._loop.result()
        return self._spool.unanswered()

    def _send_all(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping or self._spool.next() is not None)
                    waiting = self._spool.next()
                    if self._stopping or waiting is None:
                        return
                    self._idle = False
                event, offset = waiting
                answered = self._send_one(event)
                with self._changed:
                    if answered:
                        self._spool.acknowledge(offset)
                    self._idle = True
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._changed.notify_all()

    def _send_one(self, event: TrackingEvent) -> bool:
        """Delivers `event`, however long it takes. Returns False if it was stopped before an answer."""
        pause_s, announced = self._first_pause_s, False
        while True:
            try:
                self._deliver(event)
            except self._outages as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                if self._is_final(error):
                    _say(f"MLflow refuses {event['kind']} of {event.get('key', 'the sweep')}: {reason}")
                    return True
                if not announced:
                    _say(f"MLflow does not answer ({reason}); trials continue, events wait in {self._spool.path}")
                    announced = True
            else:
                if announced:
                    _say("MLflow answers again")
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, timeout=pause_s):
                    return False
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _say(message: str) -> None:
    print(f"dpsweep: {message}", file=sys.stderr, flush=True)
