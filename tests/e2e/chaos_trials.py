"""A simulated trial that takes a second or two and holds its folder's lock like a real one."""

import fcntl
from collections.abc import Iterator
from typing import Any

from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps.engine.simulation import run_trial as simulated_trial

SECONDS = 1.2
DOUBLED = "doubled"


def run_trial(config: Any, runtime: Any, handout: Handout) -> Iterator[Report]:
    """Leaves the file `doubled` where two workers are at one trial."""
    folder = handout.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trial.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (folder / DOUBLED).touch()
        yield from simulated_trial(config, runtime, handout, sleep_s=SECONDS)
