"""How far a trial's long public parts are, for those who wait: training on PUBLIC people, features of frozen layers, scoring.

What is told goes to the listener of the thread, and without one to nobody. Who listens decides what may be shown: how long private data
take is the listener's secret to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PartListener = Callable[[str, int, int], None]
"""Hears what is counted, how many are done, and of how many."""

_listener: ContextVar[PartListener | None] = ContextVar("listener", default=None)


def tell(what: str, done: int, total: int) -> None:
    """Says that `done` of `total` are done. `what` is counted, in the singular: `public training, step`."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


@contextmanager
def heard_by(listener: PartListener | None) -> Iterator[None]:
    """Lets a listener hear what is told in the block; None: nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
