"""Says the end of a sweep by mail, chat or push (apprise, extra `notify`): that it ended, how, and at which price.

No score leaves this way, and no error text, which might quote a record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from dpcore.errors import BadInput, Unavailable
from sweeps.terminal.lines import warn

VARIABLE = "DPSWEEP_NOTIFY"
"""Addresses, separated by spaces, where none is given: they hold secrets, and a command line is seen by everybody."""

Tell = Callable[[str, str], bool]
"""Sends a title and a text; False where an address did not take them."""


def addresses(given: Sequence[str]) -> tuple[str, ...]:
    """The addresses that were given, else those of the variable."""
    return tuple(given) or tuple(os.environ.get(VARIABLE, "").split())


def open_notifier(urls: Sequence[str]) -> Tell:
    """What sends to all addresses.

    Args:
        urls: apprise's, such as `mailto://...`, `ntfy://topic`, `slack://...`, `json://host`.

    Raises:
        Unavailable: apprise is not installed. BadInput: an address is none of apprise's; its secret is not repeated.
    """
    try:
        import apprise
    except ImportError:
        raise Unavailable("notifications need apprise, which is not installed: `pip install 'dpsweep[notify]'`") from None
    client = apprise.Apprise()
    for url in urls:
        scheme, colon, _ = url.partition("://")
        if not colon or not client.add(url):
            raise BadInput(f"--notify: {scheme if colon else 'this'}://... is no address of apprise's; expected one such as ntfy://TOPIC")

    def tell(title: str, text: str) -> bool:
        return bool(client.notify(title=title, body=text))

    return tell


class Told(Protocol):
    """What is told of a sweep that came to its end: `sweeps.api.results.Results`."""

    @property
    def stopped_by(self) -> str | None:
        """Why it ended before its plan."""

    @property
    def has_winner(self) -> bool:
        """Whether a private trial came to its end."""

    @property
    def sweep_epsilon(self) -> float | None:
        """The price."""


class Ending:
    """How a sweep ended, so far as it is known."""

    results: Told | None = None


@contextmanager
def notified(name: str, urls: Sequence[str] = ()) -> Iterator[Ending]:
    """Tells the end of a sweep that runs in the block: done, ended before its plan, interrupted or failed, and its price.

    Args:
        name: of the sweep.
        urls: addresses of apprise's; none: those of the variable DPSWEEP_NOTIFY, else nobody is told.

    Raises:
        Unavailable: apprise is not installed. BadInput: an address is wrong. Both before anything begins.
    """
    wanted, ending = addresses(urls), Ending()
    if not wanted:
        yield ending
        return
    tell, outcome = open_notifier(wanted), "failed"
    try:
        yield ending
        outcome = _outcome(ending.results)
    except KeyboardInterrupt:
        outcome = "was interrupted"
        raise
    finally:
        if not tell(f"dpsweep: sweep {name} {outcome.partition(':')[0]}", f"sweep {name} {outcome}. `dpsweep status {name}` says more."):
            warn("dpsweep: an address of --notify did not take the message")


def _outcome(results: Told | None) -> str:
    if results is None:
        return "failed"
    price = "" if results.sweep_epsilon is None else f", at ε = {results.sweep_epsilon:.3g} for the whole sweep"
    if results.stopped_by is not None:
        return f"ended before its plan{price}"
    return f"is done{price}" if results.has_winner else f"has no private trial that came to its end{price}"
