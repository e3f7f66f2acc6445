"""A Ray head and small data for the tests of this folder."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_support import ROOT, TINIEST_SPACE, Head, free_ports, ray_start, wait_for_port
from e2e_support import Cli, make_small_data


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
    port, dashboard, client, *agents = free_ports(8)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'sweeps'}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "DPSWEEP_DATA_DIR": str(folder / "data"),
    }
    # Ray's sockets have paths of at most 107 characters.
    temp_dir = Path("/tmp") / f"dpsweep-head-{port}"
    line = [*ray_start(agents), "--head", "--num-cpus=2", f"--port={port}", f"--ray-client-server-port={client}", f"--temp-dir={temp_dir}"]
    line += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    log = folder / "head.log"
    with log.open("w") as file:
        head = subprocess.Popen(line, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for_port(dashboard, head, log)
        yield Head(port, dashboard, environment)
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        subprocess.run(["rm", "-rf", str(temp_dir)], check=True)
