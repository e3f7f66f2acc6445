"""What the workers of a Ray of our own import before there is a trial."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Unavailable
from sweeps.ray_runtime import ray_session
from sweeps.ray_runtime.ray_session import connected, modules_to_preload
from sweeps.records.spec import SweepSpec

CORES = 8


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)))


def spec_with(**changes: Any) -> SweepSpec:
    places = Places(data_dir=Path("data"), cache_dir=Path("cache"))
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=Path("store"), **changes)


@pytest.mark.parametrize("changes", [{}, {"max_concurrent": 4}, {"cpus_per_trial": 2}])
def test_workers_import_what_trials_need_where_most_of_them_will_run_one(changes: dict[str, Any]) -> None:
    assert modules_to_preload(spec_with(**changes)) == ("sweeps.engine.trainable", "dpcore.train.trainer")


@pytest.mark.parametrize(
    "changes", [{"max_concurrent": 3}, {"cpus_per_trial": 3}, {"gpus_per_trial": 0.5}, {"address": "auto"}], ids=lambda c: next(iter(c))
)
def test_nothing_is_imported_by_workers_without_a_trial_on_gpus_or_in_the_ray_of_others(changes: dict[str, Any]) -> None:
    assert modules_to_preload(spec_with(**changes)) == ()


@pytest.mark.slow
def test_a_fresh_actor_finds_the_modules_imported_and_keeps_what_it_frees() -> None:
    import ray

    @ray.remote
    def seen() -> tuple[bool, dict[str, str | None]]:
        return "sweeps.engine.simulation" in sys.modules, {name: os.environ.get(name) for name in ray_session.ALLOCATION}

    with connected(None, preload=("sweeps.engine.simulation",)):
        assert ray.get(seen.remote()) == (True, ray_session.ALLOCATION)


@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_a_start_that_never_ends_is_ended_with_a_cause(interrupt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the background of a shell, where Ctrl-C is ignored."""
    import ray

    def hang(**_: object) -> None:
        while True:
            time.sleep(0.05)

    monkeypatch.setattr(ray_session, "START_WITHIN_S", 0.2)
    monkeypatch.setattr(ray, "init", hang)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(Unavailable, match=r"Ray has not started on this machine within 0 s; load \d+ on"), connected(None):
            pass
    finally:
        signal.signal(signal.SIGINT, before)


WITHOUT_LOOPBACK = ["unshare", "--net"]
WITHOUT_NAME = ["unshare", "--uts", "sh", "-c", 'hostname no-such-host.invalid; exec "$@"', "--"]


@pytest.mark.parametrize(
    ("machine", "said"), [(WITHOUT_LOOPBACK, "does not reach itself at 127.0.0.1"), (WITHOUT_NAME, "no-such-host.invalid does not resolve")]
)
def test_a_machine_on_which_ray_would_hang_is_named_before_ray_starts(machine: list[str], said: str) -> None:
    if subprocess.run([*machine, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a machine without loopback, or of another name, needs root and unshare")
    start = "from sweeps.ray_runtime.ray_session import connected\nwith connected(None):\n    pass"
    done = subprocess.run([*machine, sys.executable, "-c", start], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
