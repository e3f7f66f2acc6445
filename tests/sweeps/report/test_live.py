"""What a running sweep shows of itself: on protected data no step and no time, of a private selection neither trials nor counts."""

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials
import pytest
from ended_sweep import run_one, schedule_of, spec_of
from rich.console import Console

from sweeps.engine.schedule import Schedule
from sweeps.records.spec import SweepSpec
from sweeps.report.live.screen import live_screen, rendered, standing_line
from sweeps.report.live.view import SweepView, view_of
from sweeps.storage.doing import Doing
from sweeps.terminal import noise
from sweeps.terminal.lines import printed_above, warn
from sweeps.terminal.noise import library_noise, shown_on
from sweeps.terminal.working import working


def view_now(spec: SweepSpec, schedule: Schedule, *, timed: bool = True, **more: Any) -> SweepView:
    return view_of(
        spec, schedule.records, schedule.running, finished=schedule.finished, planned=schedule.planned, timed=timed, slots=2,
        reserved=1.5, price=15.0, **more,
    )  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> tuple[SweepSpec, Schedule]:
    """Some trials have ended, and one has reported its second step."""
    spec = spec_of(tmp_path)
    schedule = schedule_of(spec)
    for _ in range(8):
        run_one(schedule, schedule.next())
    while (record := schedule.next()).config.method == "public_only":
        run_one(schedule, record)
    schedule.started(record.trial_id)
    schedule.report(record.trial_id, fake_trials.report_of(record, 2, {"val/pckh_50": 0.4}))
    return spec, schedule


def drawn(view: SweepView, *, width: int) -> str:
    written = io.StringIO()
    Console(file=written, width=width, color_system=None).print(rendered(view, now=1e9))
    return written.getvalue()


@pytest.mark.parametrize("width", [120, 80])
def test_a_running_sweep_shows_leaders_floor_steps_time_and_price_within_the_terminal(
    width: int, running: tuple[SweepSpec, Schedule]
) -> None:
    spec, schedule = running
    view = view_now(spec, schedule)
    text = drawn(view, width=width)
    assert max(map(len, text.splitlines())) <= width
    (row,) = view.running
    assert (row.step, row.steps, row.at) == (2, 3, "step 2 of 3")
    assert row.trial_id in text
    assert replace(row, step=None).at == "before the first report, 3 steps"
    doing = Doing(what="public training, step", first=0, done=200, total=1800, seconds=30.0)
    assert replace(row, step=None, doing=doing).at == "public training, step 200 of 1,800, about 4 min left"
    assert replace(row, doing=doing).at == "step 2 of 3"
    for one in view.epsilons:
        assert one.best is not None
        assert one.leader in text
    assert "ε 1.50 reserved of 15.00 (composed)" in text
    assert view.seconds_left is not None
    assert f"{schedule.finished} of {schedule.planned} runs have ended" in text


def test_on_protected_data_no_step_is_followed_and_nothing_is_timed(running: tuple[SweepSpec, Schedule]) -> None:
    spec, schedule = running
    seen = Doing(what="features of frozen layers, picture", first=0, done=64, total=128, seconds=2.0)
    view = view_now(spec, schedule, timed=False, doing=lambda trial_id: seen)
    (row,) = view.running
    assert (row.step, row.since, row.at) == (None, None, "3 steps planned")
    assert view.seconds_left is None
    assert "step 2" not in standing_line(view)
    assert "left" not in standing_line(view)
    shown = drawn(view, width=100)
    assert " s\n" not in shown
    assert " min" not in shown


def test_a_private_selection_shows_neither_trials_nor_counts(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 3}})
    view = view_of(spec, (), (), finished=0, planned=6, timed=True, slots=2, reserved=None, price=None)
    assert [one.planned for one in view.epsilons] == [None, None]
    assert "sealed" in drawn(view, width=80)
    assert view.seconds_left is None


def test_without_a_terminal_a_line_comes_after_half_a_minute_of_silence(
    running: tuple[SweepSpec, Schedule], capsys: pytest.CaptureFixture[str]
) -> None:
    now, (spec, schedule) = [0.0], running
    with live_screen(lambda: view_now(spec, schedule), clock=lambda: now[0]) as screen:
        for at in (10.0, 31.0, 62.0, 70.0):
            now[0] = at
            screen.tick()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dpsweep: running: e")
    assert "step 2 of 3" in line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_stand_above_the_live_table(running: tuple[SweepSpec, Schedule], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    (spec, schedule), terminal = running, Terminal()
    with shown_on(terminal), live_screen(lambda: view_now(spec, schedule)) as screen:
        screen.tick()
        warn("[3/17]  e0.5-001")
    assert "[3/17]  e0.5-001" in terminal.getvalue()


def test_libraries_write_to_the_log_and_our_lines_to_the_terminal(tmp_path: Path) -> None:
    """In a process of its own, as a shell starts it: libraries write from C++ and from Python."""
    program = (
        "import os, sys, warnings, logging\n"
        "from pathlib import Path\n"
        "from sweeps.terminal.noise import library_noise\n"
        "from sweeps.terminal.lines import warn\n"
        f"with library_noise(Path({str(tmp_path / 'logs' / 'libraries.log')!r})):\n"
        "    os.write(2, b'I0000 from C++\\n')\n"
        "    logging.getLogger('alembic').warning('Will assume transactional DDL')\n"
        "    warnings.warn('a library is old')\n"
        "    print('dpsweep: the ledger is locked', file=sys.stderr)\n"
        "    warn('[1/7]  e0.8-000')\n"
        "print('after', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stderr.splitlines() == ["dpsweep: the ledger is locked", "[1/7]  e0.8-000", "after"]
    log = tmp_path / "logs" / "libraries.log"
    said = log.read_text(encoding="utf-8")
    assert all(words in said for words in ("I0000 from C++", "Will assume transactional DDL", "a library is old"))
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_where_stderr_is_not_our_own_nothing_is_led_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with library_noise(tmp_path / "log"):
        assert noise.screen() is sys.stderr
    assert not (tmp_path / "log").exists()


def test_long_work_speaks_after_two_seconds_and_short_work_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with working("drawing"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sweeps.terminal.working.FIRST_S", 0.0)
    said: list[str] = []
    with printed_above(said.append), working("drawing"):
        for _ in range(200):
            if said:
                break
            time.sleep(0.01)
    assert said[0] == "dpsweep: drawing"
