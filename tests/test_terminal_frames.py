"""Frames of a terminal: taken at their moments, with no line of a library."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = "printf 'one\\n'; sleep 1; printf '\\033[31mtwo \\303\\251\\033[0m of a line that goes on beyond the terminal\\n'; sleep 1"
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux on this machine (Debian: apt-get install tmux)")


@pytest.fixture(scope="module")
def terminal_frames() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terminal_frames", ROOT / "benchmarks" / "terminal_frames.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@needs_tmux
def test_a_frame_shows_what_the_terminal_shows_at_its_moment(terminal_frames: ModuleType, tmp_path: Path) -> None:
    moments = (("first", "^one$"), ("second", "^two"))
    first, second, last = terminal_frames.frames(SCRIPT, moments, width=40, folder=tmp_path, longest_s=60)
    assert (first.title, first.text) == ("first", "one")
    assert second.text.splitlines() == ["one", "two é of a line that goes on beyond the", "terminal"]
    assert last.text == second.text
    picture = terminal_frames.svg_of(second, width=40, title="both")
    assert re.search(r"https?://(?!www\.w3\.org/2000/svg)", picture) is None
    assert "two" in picture


@needs_tmux
@pytest.mark.parametrize(("command", "moment", "said"), [("true", "never", "never seen: late"), ("false", "^", "gave 1")])
def test_a_moment_that_does_not_come_and_a_command_that_fails_are_said(
    terminal_frames: ModuleType, tmp_path: Path, command: str, moment: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        terminal_frames.frames(f"sleep 1; {command}", (("late", moment),), width=80, folder=tmp_path, longest_s=60)


@pytest.mark.parametrize(
    "line",
    [
        "(pid=1234) starting",
        "2026-11-30 18:00:00,000\tINFO worker.py:1879 -- Started a local Ray instance.",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "INFO  [alembic.runtime.migration] Context impl SQLiteImpl.",
        "site-packages/torch/x.py:3: UserWarning: slow",
    ],
)
def test_lines_of_libraries_are_found(terminal_frames: ModuleType, line: str) -> None:
    assert terminal_frames.foreign_lines(f"dpsweep: 1 of 4 runs have ended\n{line}") == [line]


@pytest.mark.parametrize("name", ["at_120_columns", "at_80_columns", "without_a_terminal"])
def test_the_committed_frames_hold_no_line_of_a_library_and_no_line_beyond_the_width(terminal_frames: ModuleType, name: str) -> None:
    text = (ROOT / "docs" / "frames" / f"{name}.txt").read_text(encoding="utf-8")
    assert "[15/15]" in text
    assert terminal_frames.foreign_lines(text) == []
    if name.endswith("_columns"):
        assert max(map(len, text.splitlines())) <= int(name.split("_")[1])
