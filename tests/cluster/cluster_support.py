"""A Ray of the tests' own: its ports, its token, its folder; other Rays of the machine are left alone."""

import contextlib
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from e2e_support import TINY_SPACE

ROOT = Path(__file__).parents[2]

NO_REFERENCES = "references: {floor: false, ceiling: false, control: false, winner_seeds: 0}"
TINIEST_SPACE = re.sub("references: .*", NO_REFERENCES, TINY_SPACE.replace("[2, 8]", "[8]").replace("epsilon: 3", "epsilon: 2"))


@dataclass(frozen=True)
class Head:
    """A running head: where it answers and the environment of its clients."""

    port: int
    dashboard_port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def dpsweep(self, *args: str | Path, cwd: Path = ROOT, timeout_s: float = 1000, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "sweeps.cli", *map(str, args)]
        env = {**self.environment, **environment}
        return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)

    def start_node(self, folder: Path) -> subprocess.Popen[bytes]:
        """A node more, of two CPUs, in a process group of its own."""
        line = [*ray_start(free_ports(5)), f"--address=127.0.0.1:{self.port}", "--num-cpus=2"]
        with (folder / "node.log").open("a") as log:
            return subprocess.Popen(line, env=self.environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)


AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
)


def ray_start(ports: list[int]) -> list[str]:
    """`ray start` for one node of several on a machine: Ray's fixed ports would meet."""
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-gpus=0", "--node-ip-address=127.0.0.1"]
    line += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 * 2**20}"]
    return line + [f"--{name}={port}" for name, port in zip(AGENT_PORTS, ports, strict=True)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, *, within_s: float = 400) -> None:
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
