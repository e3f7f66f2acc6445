"""`dpsweep advise`: which methods can pay, before anything is spent."""

from __future__ import annotations

import argparse
from typing import Any

from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.terminal.lines import show, warn
from sweeps.terminal.progress import shown_progress


def add_parsers(commands: Any) -> None:
    """Declares `advise`."""
    advise = commands.add_parser("advise", **described("advise") | {"description": advise_command.__doc__})
    advise.add_argument("space", metavar="SPACE", help="a preset's name or the path of a space file")
    advise.add_argument("--epsilons", metavar="E,E", type=arguments.epsilon_list, default=None, help="instead of sweep.epsilons")
    advise.add_argument(
        "--set", metavar="path=value", type=arguments.assignment, action="append", default=[], help="fix a path of the space"
    )
    advise.add_argument(
        "--on",
        metavar="D",
        default=None,
        help="a PUBLIC dataset whose people stand for the private ones (default: the proxy, else PUBLIC validation, else the PUBLIC data)",
    )
    advise.add_argument("--seed", metavar="S", type=arguments.whole_number(0), default=None, help="as for run (default 0)")
    arguments.add_places(advise)
    arguments.add_json(advise)
    advise.set_defaults(execute=advise_command)


def advise_command(args: argparse.Namespace) -> int:
    """Says from PUBLIC data alone which methods of a space can pay at which ε, and what N would be needed. No private data is read, and
    nothing is charged. The public start is trained where no earlier command has, and kept for `run`."""
    from sweeps.api.sweep import advise

    with shown_progress("gradients of PUBLIC people") as on_progress:
        found = advise(
            args.space,
            on=args.on,
            on_scene=lambda what: warn(f"dpsweep: {what}"),
            on_progress=on_progress,
            epsilons=args.epsilons,
            set=args.set,
            seed=args.seed,
            data_dir=args.data_dir,
            cache_dir=args.cache_dir,
        )
    if args.json:
        from sweeps.report.text import print_json

        print_json(found.document())
        return 0
    show(str(found))
    return 0
