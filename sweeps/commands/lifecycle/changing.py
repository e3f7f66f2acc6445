"""`dpsweep extend`, `retry`, `pause` and `delete`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.commands.sweep_commands import announce
from sweeps.terminal.lines import show
from sweeps.terminal.working import working

PLANNING = "planning, and composing the new price"


def add_parsers(commands: Any) -> None:
    """Declares `extend`, `retry`, `pause` and `delete`."""
    extending = commands.add_parser("extend", **described("extend"))
    arguments.add_sweep(extending)
    extending.add_argument("--trials", metavar="+N", type=arguments.whole_number(1), default=0, help="so many more at every ε")
    extending.add_argument("--epsilons", metavar="E,E", type=arguments.epsilon_list, default=(), help="further ε to search")
    _add_dry_run(extending)
    arguments.add_notify(extending)
    extending.set_defaults(execute=extend_command)

    retrying = commands.add_parser("retry", **described("retry"))
    arguments.add_sweep(retrying)
    retrying.add_argument("--failed", action="store_true", required=True, help="every trial that failed: same settings, fresh noise")
    _add_dry_run(retrying)
    arguments.add_notify(retrying)
    retrying.set_defaults(execute=retry_command)

    pausing = commands.add_parser("pause", **described("pause"))
    arguments.add_sweep(pausing)
    pausing.set_defaults(execute=pause_command)

    deleting = commands.add_parser("delete", **described("delete"))
    arguments.add_sweep(deleting)
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    deleting.set_defaults(execute=delete_command)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the new price; change nothing")


def extend_command(args: argparse.Namespace) -> int:
    """Goes on beyond the plan, priced anew."""
    from sweeps.api.changing import extend, plan_extension
    from sweeps.remote.notifying import notified

    given = {"trials": args.trials, "epsilons": args.epsilons, "storage": args.storage, "state": args.state}
    if args.dry_run:
        with working(PLANNING):
            planned = plan_extension(args.name, **given)
        show(str(planned))
        return 0
    with notified(args.name, args.notify) as ending:
        ending.results = results = extend(args.name, **given)
    return announce(results)


def retry_command(args: argparse.Namespace) -> int:
    """Runs failed trials again, charged again."""
    from sweeps.api.changing import plan_retry, retry
    from sweeps.remote.notifying import notified

    where = {"storage": args.storage, "state": args.state}
    if args.dry_run:
        with working(PLANNING):
            planned = plan_retry(args.name, **where)
        show(str(planned))
        return 0
    with notified(args.name, args.notify) as ending:
        ending.results = results = retry(args.name, **where)
    return announce(results)


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
