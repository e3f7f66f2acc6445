"""Draws a running sweep: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sweeps.pricing.duration import span
from sweeps.report.live.view import SweepView
from sweeps.report.text import number, percent
from sweeps.terminal.lines import is_rich, printed_above, warn
from sweeps.terminal.noise import screen

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

LOOK_EVERY_S, LINE_EVERY_S = 0.5, 30.0
REFRESHED_A_SECOND = 2.0
SweepLook = Callable[[], SweepView]


class Screen(Protocol):
    """Where a running sweep is shown."""

    def tick(self) -> None:
        """Time has passed, or something has happened."""


class NoScreen:
    """Shows nothing."""

    def tick(self) -> None:
        """Nothing."""


@contextmanager
def no_screen(look: SweepLook) -> Iterator[Screen]:
    """For tests, and for a sweep from Python that nobody watches."""
    yield NoScreen()


@contextmanager
def live_screen(look: SweepLook, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Screen]:
    """Shows what `look` gives for the length of a block.

    Args:
        look: the sweep now; it is asked from the driver's own thread, by `tick`.
        clock: seconds, that of the hand-outs.
    """
    target = screen()
    if not is_rich(target):
        yield _Lines(look, clock)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=target, force_terminal=True, highlight=False)
    table = _Table(look, clock)
    live = Live(table, console=console, refresh_per_second=REFRESHED_A_SECOND, transient=True, redirect_stdout=False, redirect_stderr=False)
    with live, printed_above(lambda text: console.print(text, markup=False, highlight=False)):
        yield table


class _Lines:
    """Says where a sweep is when nothing was said for a while."""

    def __init__(self, look: SweepLook, clock: Callable[[], float]) -> None:
        self._look, self._clock = look, clock
        self._next, self._finished = clock() + LINE_EVERY_S, 0

    def tick(self) -> None:
        """A line, if it is time for one: half a minute after the last trial's end."""
        if self._clock() < self._next:
            return
        view = self._look()
        self._next = self._clock() + LINE_EVERY_S
        if view.finished == self._finished:
            warn(standing_line(view))
        self._finished = view.finished


def standing_line(view: SweepView) -> str:
    """Where a sweep is, in one line."""
    running = "; ".join(f"{row.trial_id} ({row.method}, {row.at})" for row in view.running) or "no trial that may be shown"
    return f"dpsweep: running: {running}. {_progress(view)}"


def _progress(view: SweepView) -> str:
    left = "" if view.seconds_left is None else f", about {span(view.seconds_left)} left"
    return f"{view.finished} of {view.planned} runs have ended{left}"


class _Table:
    """The live table. `tick` takes a new view; the terminal's own thread draws the last one, with the time that has passed since."""

    def __init__(self, look: SweepLook, clock: Callable[[], float]) -> None:
        self._look, self._clock = look, clock
        self._view, self._next = look(), clock() + LOOK_EVERY_S

    def tick(self) -> None:
        """Looks again, twice a second at most."""
        if self._clock() >= self._next:
            self._view, self._next = self._look(), self._clock() + LOOK_EVERY_S

    def __rich__(self) -> Group:
        return rendered(self._view, now=self._clock())


def rendered(view: SweepView, *, now: float) -> Group:
    """The view as rich draws it: a headline, the search by ε, what runs."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(""), Text(f"{view.name} · {_progress(view)}", style="bold")]
    if view.price is not None:
        parts.append(Text(f"ε {number(view.reserved or 0.0, 2)} reserved of {number(view.price, 2)} ({view.accounting})"))
    parts.append(_search(view))
    if view.running:
        parts.append(_running(view, now))
    parts += [Text(note, style="dim") for note in view.notes]
    return Group(*parts)


def _search(view: SweepView) -> RenderableType:
    table = _bare()
    table.add_column("ε", style="bold")
    for title in ("trials", f"best {view.metric} %", "floor %"):
        table.add_column(title, justify="right")
    table.add_column("leader")
    from rich.text import Text

    for row in view.epsilons:
        trials = "sealed" if row.planned is None else f"{row.ended} of {row.planned}"
        beats = row.best is not None and view.floor is not None and row.best > view.floor
        table.add_row(f"{row.epsilon:g}", trials, Text(percent(row.best), style="green" if beats else ""), percent(view.floor), row.leader)
    return table


def _running(view: SweepView, now: float) -> RenderableType:
    table = _bare()
    for title in ("running", "method", "at"):
        table.add_column(title)
    table.add_column("for", justify="right")
    for row in view.running:
        table.add_row(row.trial_id, row.method, row.at, "" if row.since is None else span(max(0.0, now - row.since)))
    return table


def _bare() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
