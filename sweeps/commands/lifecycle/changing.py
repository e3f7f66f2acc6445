"""`dpsweep pause` and `delete`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.terminal.lines import show


def add_parsers(commands: Any) -> None:
    """Declares `pause` and `delete`."""
    pausing = commands.add_parser("pause", **described("pause"))
    arguments.add_sweep(pausing)
    pausing.set_defaults(execute=pause_command)

    deleting = commands.add_parser("delete", **described("delete"))
    arguments.add_sweep(deleting)
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    deleting.set_defaults(execute=delete_command)


def pause_command(args: argparse.Namespace) -> int:
    """Lets what runs end, and starts nothing more."""
    from sweeps.api.changing import pause

    show(pause(args.name, storage=args.storage, state=args.state))
    return 0


def delete_command(args: argparse.Namespace) -> int:
    """Removes a sweep after it has asked. Without a terminal it needs --yes."""
    from sweeps.api.changing import delete
    from sweeps.api.sweep import existing_spec

    spec = existing_spec(args.name, args.storage, args.state)
    if not args.yes:
        question = f"remove sweep {args.name} in {spec.sweep_dir}: results, checkpoints, studies, key, report?"
        if not sys.stdin.isatty():
            raise BadInput(f"{question} Nobody can be asked here: give --yes")
        if input(f"{question} Type its name: ") != args.name:
            show("nothing was removed")
            return 1
    show(delete(args.name, storage=args.storage, state=args.state))
    return 0
