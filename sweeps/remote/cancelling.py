"""Ends or pauses a sweep that another process drives, or ends one of its trials."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.records.spec import SweepSpec
from sweeps.report.status import driver_lives
from sweeps.storage.heartbeat import PAUSE, WHOLE_SWEEP, Heartbeat, request
from sweeps.storage.ray_folder import LOCK_FILE

REACTS_WITHIN_S = 30.0
"""A driver reads requests every five seconds."""
ENDS_WITHIN_S = 120.0
"""A driver that ends writes its results and waits for MLflow."""
DIES_WITHIN_S = 10.0


def cancel_trial(spec: SweepSpec, trial_id: str) -> str:
    """Asks the driver to end a trial for good. Raises as `sweeps.api.sweep.cancel`."""
    heartbeat = _driver_of(spec)
    running = () if heartbeat is None else tuple(heartbeat.trials)
    if trial_id not in running:
        raise BadInput(f"{trial_id}: no such trial of {spec.name} runs; expected one of {', '.join(running) or 'none'}")
    asked = request(spec.state_dir, trial_id)
    if not _within(REACTS_WITHIN_S, lambda: not asked.exists()):
        asked.unlink(missing_ok=True)
        raise Unavailable(f"the driver of {spec.name} does not react; `dpsweep cancel {spec.name}` ends it, and a resume goes on")
    return f"{trial_id} is being ended; it stays charged what it reserved"


def pause_sweep(spec: SweepSpec) -> str:
    """Asks the driver to let the running trials end and to start no other. Raises as `sweeps.api.changing.pause`."""
    heartbeat = _driver_of(spec)
    asked = request(spec.state_dir, PAUSE)
    if not _within(REACTS_WITHIN_S, lambda: not asked.exists()):
        asked.unlink(missing_ok=True)
        raise Unavailable(f"the driver of {spec.name} does not react; `dpsweep cancel {spec.name}` ends it, and a resume goes on")
    shown = () if heartbeat is None else tuple(heartbeat.trials)
    what = f"what runs ({', '.join(shown)})" if shown else "what runs"
    return f"{spec.name} starts no other trial and ends when {what} has ended; `dpsweep resume {spec.name}` goes on"


def cancel_sweep(spec: SweepSpec) -> str:
    """Asks the driver to end the sweep, and kills one on this machine that does not react. Raises as `sweeps.api.sweep.cancel`."""
    heartbeat = _driver_of(spec)
    asked = request(spec.state_dir, WHOLE_SWEEP)
    go_on = f"`dpsweep resume {spec.name}` goes on"
    if _within(REACTS_WITHIN_S, lambda: not asked.exists()) and _within(ENDS_WITHIN_S, lambda: not driver_lives(spec)):
        return f"{spec.name} has ended; finished trials are kept, {go_on}"
    asked.unlink(missing_ok=True)
    where = "" if heartbeat is None else f" It is process {heartbeat.pid} on {heartbeat.host}."
    if heartbeat is None or not heartbeat.is_here or not _holds_lock(heartbeat.pid, spec.state_dir / LOCK_FILE):
        raise Unavailable(f"the driver of {spec.name} does not react, and was not found on this machine.{where} End it there; then {go_on}")
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(heartbeat.pid, number)
        if _within(DIES_WITHIN_S, lambda: not driver_lives(spec)):
            break
    return f"the driver of {spec.name} did not react and was ended (process {heartbeat.pid}); {go_on}"


def _driver_of(spec: SweepSpec) -> Heartbeat | None:
    if not driver_lives(spec):
        raise Refused(f"no driver runs {spec.name}: there is nothing to cancel; `dpsweep status {spec.name}` shows how far it came")
    return Heartbeat.read(spec.state_dir)


def _holds_lock(pid: int, lock: Path) -> bool:
    """Whether a process has the sweep's lock open: the id may have been given to another one since."""
    try:
        return any(os.path.samefile(file, lock) for file in Path(f"/proc/{pid}/fd").iterdir() if file.exists())
    except OSError:
        return False


def _within(seconds: float, is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
