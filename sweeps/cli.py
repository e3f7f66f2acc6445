"""The command line `dpsweep`. The contract is in docs/commands.md.

Exit codes: 0 ok, 1 failed or a service is unreachable, 2 bad input. An error that dpsweep raises on purpose is one message on stderr.
Anything else is a bug and keeps its traceback. This module imports nothing heavy: `dpsweep --help` needs no torch, ray or mlflow.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dpcore.errors import DpsweepError
from sweeps.commands.catalog import CATALOG
from sweeps.commands.parsing import CommandsParser, OneLineParser, complete_paths, top_parser
from sweeps.terminal.lines import warn
from sweeps.terminal.program import NAME

Execute = Callable[[argparse.Namespace], int]


WITHHELD = {
    errno.EACCES: "it belongs to another user; ask its owner, or use a --storage of your own",
    errno.EPERM: "it belongs to another user; ask its owner, or use a --storage of your own",
    errno.EROFS: "it lies on a file system that takes no writes; give another folder, or mount it writable",
}
"""What the operating system refuses, and what to do. That is no bug: it has a message."""


class PrintVersion(argparse.Action):
    """`--version`, read from the installed distribution when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # only here: every command would wait for it

        print(f"dpsweep {version('dpsweep')}")
        parser.exit()


def build_parser(*, address: str | None = None, only: str | None = None, prog: str | None = None) -> OneLineParser:
    """The parser of every subcommand, or of one alone.

    Args:
        address: Default of `run --address`; None starts a Ray of its own. `sweeps/run.py` gives `auto`.
        only: a command of the catalog: no module of another one is imported.
        prog: how dpsweep is called; None: as it was called here.
    """
    parser = _bare_parser(prog)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=OneLineParser)
    given: dict[str, dict[str, Any]] = {
        "sweeps.commands.sweep_commands": {"address": address},
        "sweeps.commands.cluster_commands": {"parse_remote": parse_remote},
        "sweeps.commands.parsing": {"parser": partial(build_parser, address=address, prog=NAME)},
    }
    modules = [command.module for command in CATALOG.values()] if only is None else [CATALOG[only].module]
    for module in dict.fromkeys(modules):
        importlib.import_module(module).add_parsers(commands, **given.get(module, {}))
    complete_paths(parser)
    return parser


def _bare_parser(prog: str | None = None) -> CommandsParser:
    parser = top_parser(prog)
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version and exit")
    return parser


def _parser_for(argv: Sequence[str]) -> OneLineParser:
    """As much of the parser as these arguments need: a page of all commands needs none of them."""
    if not argv or argv[0] in ("-h", "--help", "--version"):
        return _bare_parser()
    return build_parser(only=argv[0] if argv[0] in CATALOG else None)


def remote_command(arguments: Sequence[str]) -> list[str]:
    """The `dpsweep` command for the arguments of `sweeps/run.py`. A space cannot be named `resume`."""
    return list(arguments) if arguments[:1] == ["resume"] else ["run", *arguments]


def parse_remote(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of a job, read as the head of the cluster reads them."""
    found: argparse.Namespace = build_parser(address="auto").parse_args(remote_command(arguments))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    return execute(_parser_for(given), given)


def execute(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """Parses `argv`, runs the command, and turns errors raised on purpose into one message and an exit code."""
    # argparse leaves an optional positional empty if options come before `--`, so the sweep of `submit` is cut off first.
    cut = argv.index("--") if argv[:1] == ["submit"] and "--" in argv else len(argv)
    _escape_what_a_terminal_cannot_show()
    args = parser.parse_args(argv[:cut])
    if not hasattr(args, "execute"):
        parser.error("no command was given")
    args.after_dashes = list(argv[cut + 1 :])
    command: Execute = args.execute
    try:
        return command(args)
    except DpsweepError as error:
        warn(f"dpsweep: {error}")
        return error.exit_code
    except BrokenPipeError:
        # `dpsweep status NAME | head`: the reader has closed the pipe. Without this, Python prints another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in WITHHELD or error.filename is None:
            raise
        warn(f"dpsweep: {error.filename}: {(error.strerror or '').lower()}; {WITHHELD[error.errno]}")
        return 1
    except KeyboardInterrupt as interrupt:
        warn(f"dpsweep: {interrupt or 'interrupted'}")
        return 130 if interrupt.args else 1


def _escape_what_a_terminal_cannot_show() -> None:
    """An ε on a stream that is not UTF-8 becomes an escape: no command fails after its work is done, because it cannot print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
