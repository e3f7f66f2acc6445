"""Ctrl-C, SIGTERM and a closed terminal end a sweep with one message that says how to go on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import run_sweep
from sweeps.engine.searcher import Interrupted, ScheduleCallback, ScheduleSearcher
from sweeps.records.spec import SweepSpec

HERE = Path(__file__).parents[1]
RUN = """
import sys
from pathlib import Path
import fake_trials
from sweeps.cli import execute
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec

class Parser:
    def parse_args(self, argv):
        import argparse
        spec = SweepSpec.model_validate_json(Path(argv[0]).read_text())
        return argparse.Namespace(execute=lambda args: run_sweep(spec, fake_trials.surroundings()) and 0)

sys.exit(execute(Parser(), sys.argv[1:]))
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store", trial_function="fake_trials:slow_trial")


@pytest.fixture
def handlers() -> Iterator[None]:
    """A process whose signals are heard, as from a terminal; pytest's own come back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(monkeypatch: pytest.MonkeyPatch, *numbers: signal.Signals) -> None:
    """A driver's loop that hands a trial out and then gets these signals."""

    def loop(spec: SweepSpec, *, searcher: ScheduleSearcher, callback: ScheduleCallback, **given: object) -> None:
        searcher.suggest("x")
        for number in numbers:
            os.kill(os.getpid(), number)
        callback.on_step_begin(0, [])

    monkeypatch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
    monkeypatch.setattr(driver_module, "run_tune", loop)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "interrupted;"),
        (signal.SIGTERM, r"asked to end \(SIGTERM\);"),
        (signal.SIGHUP, r"the terminal was closed \(SIGHUP;"),
    ],
)
def test_one_signal_ends_at_the_next_safe_place(
    spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, handlers: object, capfd: pytest.CaptureFixture[str], number: signal.Signals, said: str
) -> None:
    raising(monkeypatch, number)
    with pytest.raises(Interrupted, match=f"{said}.*finished trials are kept, go on with `dpsweep resume s`"):
        run_sweep(spec, fake_trials.surroundings())
    assert "ending at the next safe place; the same again ends at once" in capfd.readouterr().err
    assert (spec.sweep_dir / "spec.json").is_file()


def test_a_second_signal_ends_at_once_and_says_how_to_go_on(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, handlers: object) -> None:
    raising(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="ended at once; finished trials are kept, go on with `dpsweep resume s`"):
        run_sweep(spec, fake_trials.surroundings())
    assert (spec.sweep_dir / "spec.json").is_file()


def test_a_signal_before_the_first_trial_says_that_nothing_was_begun(
    spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, handlers: object
) -> None:
    def starting(spec: SweepSpec) -> contextlib.nullcontext[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        return contextlib.nullcontext(1)

    monkeypatch.setattr(driver_module, "ray_session", starting)
    with pytest.raises(KeyboardInterrupt, match="nothing was begun, nothing is charged"):
        run_sweep(spec, fake_trials.surroundings())
    assert not spec.storage.exists()


def test_a_signal_that_is_ignored_stays_so(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, handlers: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raising(monkeypatch, signal.SIGHUP)
    run_sweep(spec, fake_trials.surroundings())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.slow
def test_a_real_driver_says_one_message_and_no_stack(spec: SweepSpec, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json(by_alias=True))
    with subprocess.Popen([sys.executable, "-c", RUN, str(path)], stderr=subprocess.PIPE, text=True) as driver:
        end = time.monotonic() + 400
        while not spec.reports_path.is_file() and time.monotonic() < end:
            time.sleep(0.2)
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=200)
    assert driver.returncode == 130, said
    assert "go on with `dpsweep resume s`" in said
    assert not [line for line in said.splitlines() if "***" in line or "@ " in line or "Traceback" in line]
