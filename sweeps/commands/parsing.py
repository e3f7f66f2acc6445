"""The parser behind every command: help in groups, one message for a mistake with what was probably meant, completion.

argparse, with rich-argparse for the pages and shtab for completion. Measured for 45 commands, processor time of `--help` on Python 3.11:
argparse 0.05 s, with rich-argparse 0.12 s, click 0.07 s, typer 0.23 s, before anything of ours is imported. typer would take most of the
0.3 s that `dpsweep --help` may take, and click would turn the namespaces, which `ray submit` and the tests read, into decorators.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from dpcore.words import did_you_mean
from sweeps.commands.catalog import CATALOG, EXAMPLES, GROUPS, Command
from sweeps.terminal.program import as_called, program

INVALID_CHOICE = re.compile(r"(argument .+: invalid choice: )'?(.+?)'? \(choose from (.+)\)", re.DOTALL)
FIRST_SENTENCE = re.compile(r"(?<! al)\. ")
HOW_TO_COMPLETE = """to use it at once:
    eval "$(dpsweep completion bash)"
to keep it:
    dpsweep completion bash >> ~/.bashrc"""
SHELLS = ("bash", "zsh", "tcsh")


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """rich-argparse's, with brackets of our texts taken as they are."""

    text_markup = False
    group_name_formatter = str
    help_markup = False


class OneLineParser(argparse.ArgumentParser):
    """A parser that prints only one message for an error, without the usage text, and says what was probably meant."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        found = INVALID_CHOICE.fullmatch(message)
        if found is not None:
            known = re.findall(r"[^\s,']+", found[3])
            message = f"{found[1]}{found[2]}{did_you_mean(found[2], known)}"
        self.exit(2, as_called(f"{self.prog}: {message}\n  see `{self.prog} --help`\n"))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an option that is unknown is held against those of the command that it was given to."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self._parser_of(args or ())
            options = [word for word in unknown if word.startswith("-")]
            if not options:
                parser.error(f"unexpected {', '.join(unknown)}: every argument has been given already")
            first = options[0].partition("=")[0]
            parser.error(f"unknown option {first}{did_you_mean(first, parser.option_names())}")
        return found

    def option_names(self) -> list[str]:
        """The long options that it takes."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def subcommands(self) -> dict[str, OneLineParser]:
        """The parsers of its subcommands, by name."""
        found = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return dict(found[0].choices) if found else {}

    def _parser_of(self, words: Iterable[str]) -> OneLineParser:
        parser = self
        for word in words:
            parser = parser.subcommands().get(word, parser)
        return parser


class _Listed(argparse.Action):
    """A line of the page of all commands."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(option_strings=[], dest=name, metavar=name, help=text)

    def __call__(self, *_: Any) -> NoReturn:
        raise RuntimeError(f"{self.dest} is a line of a page")


class CommandsParser(OneLineParser):
    """The parser of `dpsweep` itself, whose page has the commands in groups, the presets and examples."""

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_text(f"usage: {self.prog} COMMAND [options]    ({self.prog} COMMAND --help explains one)")
        formatter.add_text(self.description)
        for group in GROUPS:
            formatter.start_section(group)
            formatter.add_arguments([_Listed(one.name, one.help) for one in CATALOG.values() if one.group == group])
            formatter.end_section()
        examples = {f"{self.prog} {words}": text for words, text in EXAMPLES.items()}
        for title, lines in {"presets, which SPACE may name": preset_lines(), "examples": examples}.items():
            formatter.start_section(title)
            formatter.add_arguments([_Listed(name, text) for name, text in lines.items()])
            formatter.end_section()
        return formatter.format_help()


def preset_lines() -> dict[str, str]:
    """The presets, each with the first sentence of its file."""
    from search_spaces.presets import preset_names, preset_path

    found = {}
    for name in preset_names():
        comments = [
            line.removeprefix("#").strip()
            for line in preset_path(name).read_text(encoding="utf-8").splitlines()
            if line.startswith("#") and "yaml-language-server" not in line
        ]
        found[name] = FIRST_SENTENCE.split(" ".join(comments), maxsplit=1)[0].rstrip(".")
    return found


def top_parser(prog: str | None = None) -> CommandsParser:
    """`dpsweep`, before any command is declared. `prog`: how it is called; None: as it was called here."""
    return CommandsParser(
        prog=prog or program(),
        description="Searches for the best differentially private 2-D pose model at each ε, and computes what the search costs.",
    )


def described(name: str) -> dict[str, Any]:
    """What `add_parser` is told of a command beside its name: its line of the catalog, in the list and on its own page."""
    command: Command = CATALOG[name]
    return {"help": command.help, "description": command.help[0].upper() + command.help[1:] + "."}


def add_parsers(commands: Any, *, parser: Callable[[], OneLineParser]) -> None:
    """Declares `completion`, over the whole that `parser` builds."""
    completion = commands.add_parser(
        "completion",
        **described("completion"),
        epilog=as_called(
            'to use it at once:\n    eval "$(dpsweep completion bash)"\nto keep it:\n    dpsweep completion bash >> ~/.bashrc'
        ),
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    completion.set_defaults(execute=completion_command, parser=parser)


def completion_command(args: argparse.Namespace) -> int:
    """Prints a script that completes commands, options, presets and files; it needs no start of dpsweep."""
    import shtab

    print(shtab.complete(args.parser(), shell=args.shell))
    return 0


def completed(action: argparse.Action, kind: str) -> argparse.Action:
    """Marks an argument as a file or a directory for completion (shtab reads the attribute `complete`)."""
    action.complete = {"file": _files(), "directory": _directories()}[kind]  # type: ignore[attr-defined]
    return action


def _files() -> dict[str, str]:
    return {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def _directories() -> dict[str, str]:
    return {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}


def complete_paths(parser: OneLineParser) -> None:
    """Marks every argument of a parser and its commands whose value is a path: its METAVAR says DIR, FILE, CONFIG, MODEL or a file's
    name. A SPACE is completed to presets too."""
    for action in parser._actions:
        shown = action.metavar if isinstance(action.metavar, str) else ""
        if shown.startswith("DIR"):
            completed(action, "directory")
        elif shown in ("CONFIG", "MODEL", "SPACE", "PICTURE") or "FILE" in shown or "." in shown:
            completed(action, "file")
    for below in parser.subcommands().values():
        complete_paths(below)
