"""A Ray head of the tests' own: its ports, its token, its folder; other Rays of the machine are left alone."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli, make_small_data

ROOT = Path(__file__).parents[2]

TINIEST_SPACE = (
    TINY_SPACE.replace("[2, 8]", "[8]")
    .replace("trials_per_epsilon: 3", "trials_per_epsilon: 2")
    .replace(
        "{floor: true, ceiling: true, control: true, winner_seeds: 1}", "{floor: false, ceiling: false, control: false, winner_seeds: 0}"
    )
)


@dataclass(frozen=True)
class Head:
    """A running head: where it answers and the environment of its clients."""

    port: int
    dashboard_port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def dpsweep(self, *args: str | Path, cwd: Path = ROOT, timeout_s: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "sweeps.cli", *map(str, args)]
        env = {**self.environment, **environment}
        return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture(scope="session")
def tiniest_space() -> str:
    """Two trials at one ε, without references."""
    return TINIEST_SPACE


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the datasets of `tiniest_space`."""
    made = Cli(tmp_path_factory.mktemp("data"))
    make_small_data(made)
    return made.data_dir


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head with a dashboard and two CPUs, ended with everything that it started."""
    folder = tmp_path_factory.mktemp("head")
    port, dashboard, *agents = free_ports(7)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "DPSWEEP_DATA_DIR": str(folder / "data"),
    }
    named = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
        "ray-client-server-port",
        "runtime-env-agent-port",
    )
    ports = [f"--{name}={number}" for name, number in zip(named, agents, strict=True)]
    options = [
        "--head",
        "--block",
        "--num-cpus=2",
        "--num-gpus=0",
        f"--port={port}",
        "--node-ip-address=127.0.0.1",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    options += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--include-dashboard=true",
        f"--object-store-memory={200 * 2**20}",
        *ports,
    ]
    # Ray's sockets have paths of at most 107 characters.
    temp_dir = Path("/tmp") / f"dpsweep-head-{port}"
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--temp-dir={temp_dir}"]
    log = folder / "head.log"
    with log.open("w") as file:
        head = subprocess.Popen(line, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for_port(dashboard, head, log)
        yield Head(port, dashboard, environment)
    finally:
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=30)
        subprocess.run(["rm", "-rf", str(temp_dir)], check=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, *, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
