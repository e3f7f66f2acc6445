"""The command line `dpsweep`. The contract is in docs/commands.md.

Exit codes: 0 ok, 1 failed or a service is unreachable, 2 bad input. An error that dpsweep raises on purpose is one message on stderr.
Anything else is a bug and keeps its traceback. This module imports nothing heavy: `dpsweep --help` needs no torch, ray or mlflow.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NoReturn

from dpcore.errors import DpsweepError
from sweeps.commands import (
    audit_command,
    calculators,
    cluster_commands,
    datasets,
    model_commands,
    sweep_commands,
    trial_commands,
    weights_command,
)

Execute = Callable[[argparse.Namespace], int]


WITHHELD = {
    errno.EACCES: "it belongs to another user; ask its owner, or use a --storage of your own",
    errno.EPERM: "it belongs to another user; ask its owner, or use a --storage of your own",
    errno.EROFS: "it lies on a file system that takes no writes; give another folder, or mount it writable",
}
"""What the operating system refuses, and what to do. That is no bug: it has a message."""


class OneLineParser(argparse.ArgumentParser):
    """A parser that prints only one message for an error, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  see `{self.prog} --help`\n")


class PrintVersion(argparse.Action):
    """`--version`, read from the installed distribution when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"dpsweep {version('dpsweep')}")
        parser.exit()


def build_parser(*, address: str | None = None) -> argparse.ArgumentParser:
    """The parser of every subcommand.

    Args:
        address: Default of `run --address`; None starts a Ray of its own. `sweeps/run.py` gives `auto`.
    """
    parser = OneLineParser(
        prog="dpsweep",
        description="Searches for the best differentially private 2-D pose model at each ε, and computes what the search costs.",
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=OneLineParser)
    sweep_commands.add_parsers(commands, address=address)
    trial_commands.add_parsers(commands)
    model_commands.add_parsers(commands)
    audit_command.add_parsers(commands)
    calculators.add_parsers(commands)
    datasets.add_parsers(commands)
    weights_command.add_parsers(commands)
    cluster_commands.add_parsers(commands, parse_remote=parse_remote)
    return parser


def remote_command(arguments: Sequence[str]) -> list[str]:
    """The `dpsweep` command for the arguments of `sweeps/run.py`. A space cannot be named `resume`."""
    return list(arguments) if arguments[:1] == ["resume"] else ["run", *arguments]


def parse_remote(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of a job, read as the head of the cluster reads them."""
    return build_parser(address="auto").parse_args(remote_command(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    return execute(build_parser(), list(sys.argv[1:] if argv is None else argv))


def execute(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """Parses `argv`, runs the command, and turns errors raised on purpose into one message and an exit code."""
    # argparse leaves an optional positional empty if options come before `--`, so the sweep of `submit` is cut off first.
    cut = argv.index("--") if argv[:1] == ["submit"] and "--" in argv else len(argv)
    args = parser.parse_args(argv[:cut])
    args.after_dashes = list(argv[cut + 1 :])
    command: Execute = args.execute
    _escape_what_a_terminal_cannot_show()
    try:
        return command(args)
    except DpsweepError as error:
        print(f"dpsweep: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in WITHHELD or error.filename is None:
            raise
        print(f"dpsweep: {error.filename}: {(error.strerror or '').lower()}; {WITHHELD[error.errno]}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `dpsweep status NAME | head`: the reader has closed the pipe. Without this, Python prints another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        print(f"dpsweep: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130 if interrupt.args else 1


def _escape_what_a_terminal_cannot_show() -> None:
    """An ε on a stream that is not UTF-8 becomes an escape: no command fails after its work is done, because it cannot print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
