"""What a terminal shows: tables and lines within its width, commands as they are to be typed, no broken word."""

import io
import sys
from pathlib import Path

import pytest

from sweeps.terminal import lines, program
from sweeps.terminal.lines import counted, is_rich, show, wrapped
from sweeps.terminal.tables import render_table

HEADER = ["accounting", "what it rests on", "sweep ε"]
ROWS = [["→ composed", "composition of all its trials by PLD, fixed before the first of them", "6.213"], ["  public_proxy", "trials", "0"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_within_the_terminal_is_plain_and_aligned() -> None:
    assert render_table(["ε", "method", "PCKh"], [["0.8", "feature", "61.3"]], width=80) == "ε    method   PCKh\n0.8  feature  61.3"


@pytest.mark.parametrize("width", [80, 60, 44])
def test_a_wide_table_wraps_between_words_and_keeps_every_one(width: int) -> None:
    table = render_table(HEADER, ROWS, width=width)
    assert max(len(line) for line in table.splitlines()) <= width
    words = [word for row in (HEADER, *ROWS) for cell in row for word in cell.split()]
    assert sorted(table.split()) == sorted(words)


def test_a_table_whose_words_alone_are_wider_becomes_a_block_per_row() -> None:
    header, row = [f"column_{number}" for number in range(9)], [f"value-{number}" for number in range(9)]
    table = render_table(header, [row, row], width=40)
    assert table.split("\n\n")[0].splitlines()[3].split() == ["column_3", "value-3"]
    assert max(map(len, table.splitlines())) <= 40


def test_a_file_gets_the_table_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, render_table(HEADER, ROWS).splitlines())) > 90


def test_lines_break_between_words_and_commands_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    terminal = Terminal()
    command = "    dpsweep run ours.yaml --storage a/very/long/folder/of/sweeps --name ours"
    show(f"{'word ' * 20}\n{command}", stream=terminal)
    *prose, last = terminal.getvalue().splitlines()
    assert max(map(len, prose)) <= 50
    assert last == command
    assert wrapped("word " * 30, None) == "word " * 30


def test_commands_are_named_as_dpsweep_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called = tmp_path / "bin" / "dpsweep"
    called.parent.mkdir()
    called.write_text("#!/bin/sh\n")
    called.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(called)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.as_called("go on with `dpsweep resume s`") == f"go on with `{called} resume s`"
    monkeypatch.setenv("PATH", str(called.parent))
    assert program.as_called("go on with `dpsweep resume s`") == "go on with `dpsweep resume s`"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert program.program() == "dpsweep"


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_a_dumb_terminal_and_ci_get_plain_lines(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert is_rich(Terminal())
    monkeypatch.setenv(variable, value)
    assert not is_rich(Terminal())
    assert not is_rich(io.StringIO())


def test_singular_and_plural() -> None:
    assert [counted(1, "trial"), counted(0, "trial"), counted(1200, "person", "people")] == ["1 trial", "0 trials", "1,200 people"]
    assert lines.counted(2.5, "run") == "2.5 runs"
