"""A trial that hangs, and a driver that is stuck: noticed, shown, ended, and charged once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import pytest
import spaces

from dpcore.config import Places, RuntimeFlags
from dpcore.errors import BadInput, Refused
from sweeps.engine import watchdog as watchdog_module
from sweeps.engine.driver import run_sweep
from sweeps.engine.watchdog import Watchdog
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.records.spec import SweepSpec
from sweeps.remote import cancelling
from sweeps.report.status import sweep_status
from sweeps.storage.heartbeat import Heartbeat, request, take_requests

HERE = Path(__file__).parents[1]
ALONE = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
STUCK_DRIVER = """
import os, signal, socket, sys, time
from pathlib import Path
from sweeps.records.folder import locked
from sweeps.records.spec import SweepSpec
from sweeps.storage.heartbeat import Heartbeat
spec = SweepSpec.model_validate_json(Path(sys.argv[1]).read_text())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with locked(spec):
    Heartbeat(host=socket.gethostname(), pid=os.getpid(), at=time.time() - 300, trials={}).write(spec.state_dir)
    time.sleep(600)
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep of four fake trials at one ε, whose functions Ray's workers can import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    return SweepSpec(
        name="s",
        space=spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 4}, references=ALONE),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        trial_function="fake_trials:hanging_trial",
        runtime=RuntimeFlags(report_every_steps=1),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")
def test_trials_that_hang_are_ended_and_retried_and_one_can_be_cancelled(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "BEAT_EVERY_S", 0.5)
    hanging = spec.model_copy(update={"max_concurrent": 4, "cpus_per_trial": 0.25, "trial_timeout_s": 8.0})
    seen: list[dict[str, Any]] = []

    def cancel() -> None:
        while not seen or "e0.5-002" not in {one["trial_id"] for one in seen[-1]["running"]}:
            time.sleep(0.2)
            if hanging.study_path.is_file():
                seen.append(sweep_status(hanging, ACCOUNTANT))
        cancelling.cancel_trial(hanging, "e0.5-002")

    canceller = threading.Thread(target=cancel, daemon=True)
    canceller.start()
    results = run_sweep(hanging, fake_trials.surroundings())
    canceller.join(timeout=60)
    ends = {record.trial_id[-3:]: (record.state, record.error) for record in results.records}
    done = ("done", None)
    assert ends == {"000": done, "001": done, "002": ("failed", "cancelled by `dpsweep cancel`"), "003": done}
    assert seen[-1]["driver"]["pid"] == os.getpid()
    lines = Ledger(spec.resolved_ledger_url).lines()
    assert [line.kind for line in lines].count("reserve") == [line.kind for line in lines].count("settle") == 4
    assert Heartbeat.read(spec.state_dir) is None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watchdog_of(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, *, timed: bool = True) -> tuple[Watchdog, Clock, list[str]]:
    killed: list[str] = []
    monkeypatch.setattr(watchdog_module, "kill_worker", lambda trial: killed.append(trial.name))
    spec.state_dir.mkdir(parents=True)
    clock = Clock()
    watchdog = Watchdog(spec, timed=timed, clock=clock)
    watchdog.begun("a", SimpleNamespace(name="a"), is_shown=True)
    return watchdog, clock, killed


def pass_time(watchdog: Watchdog, clock: Clock, seconds: float) -> None:
    for _ in range(int(seconds / 30)):
        clock.now += 30
        watchdog.look()


def test_without_a_time_out_it_follows_from_the_longest_silence(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog, clock, killed = watchdog_of(spec, monkeypatch)
    assert watchdog.timeout_s == 6 * 3600
    pass_time(watchdog, clock, 300)
    watchdog.heard("a")
    assert watchdog.timeout_s == pytest.approx(20 * 300)
    pass_time(watchdog, clock, 5970)
    assert killed == []
    pass_time(watchdog, clock, 60)
    assert killed == ["a"]
    assert watchdog.ended("a") == "the worker died: it reported nothing for 6000 s and was ended (--trial-timeout)"


def test_a_driver_that_slept_blames_no_trial(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog, clock, killed = watchdog_of(spec.model_copy(update={"trial_timeout_s": 100.0}), monkeypatch)
    watchdog.look()
    clock.now += 8 * 3600
    watchdog.look()
    assert killed == []
    pass_time(watchdog, clock, 120)
    assert killed == ["a"]


def test_the_heartbeat_holds_no_time_of_protected_trials_and_no_sealed_one(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog, clock, _ = watchdog_of(spec, monkeypatch, timed=False)
    watchdog.begun("b", SimpleNamespace(name="b"), is_shown=False)
    clock.now += 10
    watchdog.look()
    heartbeat = Heartbeat.read(spec.state_dir)
    assert heartbeat is not None
    assert heartbeat.trials == {"a": None}


def test_a_request_is_taken_once(spec: SweepSpec) -> None:
    spec.state_dir.mkdir(parents=True)
    request(spec.state_dir, "e0.5-001")
    assert take_requests(spec.state_dir) == ("e0.5-001",)
    assert take_requests(spec.state_dir) == ()


def test_a_driver_that_is_stuck_is_shown_and_killed(spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec.save()
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json(by_alias=True))
    Ledger(spec.resolved_ledger_url).close()
    monkeypatch.setattr(cancelling, "REACTS_WITHIN_S", 0.5)
    monkeypatch.setattr(cancelling, "DIES_WITHIN_S", 2.0)
    with pytest.raises(Refused, match="no driver runs s"):
        cancelling.cancel_sweep(spec)
    driver = subprocess.Popen([sys.executable, "-c", STUCK_DRIVER, str(path)])
    while Heartbeat.read(spec.state_dir) is None:
        assert driver.poll() is None
        time.sleep(0.1)
    assert sweep_status(spec, ACCOUNTANT)["driver"]["silent_s"] > 250
    with pytest.raises(BadInput, match=r"e0\.5-000: no such trial of s runs; expected one of none"):
        cancelling.cancel_trial(spec, "e0.5-000")
    assert f"did not react and was ended (process {driver.pid})" in cancelling.cancel_sweep(spec)
    assert driver.wait() == -signal.SIGKILL
