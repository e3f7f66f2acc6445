"""`dpsweep list`, `compare` and `logs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.report.text import number, percent, print_json
from sweeps.terminal.lines import counted, show
from sweeps.terminal.tables import render_table

if TYPE_CHECKING:
    from sweeps.report.overview.listing import EpsilonLine, SweepLine


def add_parsers(commands: Any) -> None:
    """Declares `list`, `compare` and `logs`."""
    listing = commands.add_parser("list", **described("list"))
    arguments.add_storage(listing)
    listing.add_argument("--state", metavar="DIR", type=Path, default=None, help="of sweeps in a bucket: the folder of their states")
    arguments.add_json(listing)
    listing.set_defaults(execute=list_command)

    comparing = commands.add_parser("compare", **described("compare"))
    comparing.add_argument("first", metavar="A", help="name of a sweep")
    comparing.add_argument("second", metavar="B", help="name of another one in the same storage")
    arguments.add_storage(comparing)
    arguments.add_json(comparing)
    comparing.set_defaults(execute=compare_command)

    said = commands.add_parser("logs", **described("logs"))
    arguments.add_sweep(said)
    said.add_argument("trial", metavar="TRIAL", nargs="?", default=None, help="a trial's id: its state, settings, reports and error")
    said.set_defaults(execute=logs_command)


def list_command(args: argparse.Namespace) -> int:
    """One line per sweep and ε, the sweep that changed last first."""
    from sweeps.api.looking import list_sweeps

    found = list_sweeps(storage=args.storage, state=args.state)
    if args.json:
        print_json([one.document() for one in found])
        return 0
    if not found:
        show(f"no sweep in {args.storage}; `dpsweep run quick` makes a first one")
        return 0
    rows = [row for one in found for row in _rows(one)]
    print(render_table(["sweep", "state", "ε", "trials", "best %", "method", "price ε", "changed"], rows))
    for one in found:
        if one.problem is not None:
            show(f"{one.name}: {one.problem}")
    show(f"{counted(len(found), 'sweep')}; best is {_metrics(found)}; `dpsweep status NAME` shows one")
    return 0


def _rows(sweep: SweepLine) -> list[list[str]]:
    from sweeps.pricing.duration import span

    price = number(sweep.price) if sweep.price is not None else "–"
    first = [sweep.name, sweep.state]
    last = [price, f"{span(sweep.age_s)} ago"]
    if not sweep.epsilons:
        return [[*first, "–", "–", "–", "–", *last]]
    lines = [[*first, *_at(sweep.epsilons[0]), *last]]
    return [*lines, *(["", "", *_at(one), "", ""] for one in sweep.epsilons[1:])]


def _at(one: EpsilonLine) -> list[str]:
    return [f"{one.epsilon:g}", str(one.ended), percent(one.best), one.method or "–"]


def _metrics(found: tuple[SweepLine, ...]) -> str:
    return " or ".join(dict.fromkeys(one.metric for one in found if one.metric)) or "not known"


def compare_command(args: argparse.Namespace) -> int:
    """Where the spaces differ, and the winner of each at each ε."""
    from sweeps.api.looking import compare

    found = compare(args.first, args.second, storage=args.storage)
    if args.json:
        print_json(found.document())
    else:
        print(found.text())
    return 0


def logs_command(args: argparse.Namespace) -> int:
    """The lines that the driver said, or a trial's record."""
    from sweeps.api.looking import logs

    for line in logs(args.name, args.trial, storage=args.storage, state=args.state):
        print(line)
    return 0
