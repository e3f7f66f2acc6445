"""Serves MLflow's pages over the store of a storage. The server listens on loopback and ends with Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.error import URLError

from dpcore.errors import BadInput, Unavailable
from sweeps.storage.urls import default_store, sqlite_url
from sweeps.tracking.browsing import SWEEP_ID_TAG, experiment_url

HOST = "127.0.0.1"
STARTS_WITHIN_S = 180.0
ENDS_WITHIN_S = 10.0
ANSWERS_WITHIN_S = 30.0
MOST_LINKS = 10


def store_of(storage: Path) -> str:
    """The tracking store beside the sweeps of a storage.

    Raises:
        BadInput: there is no store, because no sweep began there or its runs are on a server.
    """
    if not default_store(storage).is_file():
        raise BadInput(
            f"no mlflow.db in {storage}: --storage names the folder of sweeps (of a bucket, --state), --tracking-uri a server's store"
        )
    return sqlite_url(default_store(storage))


def study_lines(storage: Path) -> list[str]:
    """Commands that open the studies of a storage. Empty if no sweep has a journal there."""
    journals = sorted(storage.glob("*/study.journal"))
    commands = [f"  optuna-dashboard {shlex.quote(str(path))}" for path in journals]
    if commands and importlib.util.find_spec("optuna_dashboard") is None:
        commands.insert(0, "  pip install 'dpsweep[dashboard]'")
    return ["searches:", *commands] if commands else []


def show(uri: str, *, port: int, say: Callable[[str], None]) -> None:
    """Serves the store until Ctrl-C or SIGTERM.

    Args:
        uri: URL of the database.
        port: port on loopback.
        say: receives the address and a link for each sweep, once the server answers.

    Raises:
        Unavailable: the port is in use, or MLflow does not start.
    """
    _check_port(port)
    line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    with _until_stopped(), tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, _running(line, log) as server:
        _wait_until_it_answers(server, port, log)
        say(f"MLflow: http://{HOST}:{port}   (Ctrl-C ends it; from elsewhere: ssh -L {port}:{HOST}:{port} THIS_MACHINE)")
        for link in sweep_lines(f"http://{HOST}:{port}"):
            say(link)
        server.wait()
        raise Unavailable(f"MLflow ended: {_last_line(log)}")


def sweep_lines(server: str) -> list[str]:
    """A link for each of the newest sweeps of an MLflow server. Empty if it has none.

    Raises:
        Unavailable: it does not answer.
    """
    asked = {"max_results": MOST_LINKS, "order_by": ["last_update_time DESC"], "filter": f"tags.{SWEEP_ID_TAG} != ''"}
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/experiments/search", data=json.dumps(asked).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            found = json.load(answer).get("experiments", [])
    except (OSError, ValueError) as error:
        raise Unavailable(f"MLflow at {server} does not list its experiments: {error}") from None
    return [f"  {one['name']}: {experiment_url(server, one['experiment_id'])}" for one in found]


@contextlib.contextmanager
def _running(line: list[str], log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server and its workers in their own session, so that none survives the block."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory(prefix="dpsweep-ui-") as folder:  # what MLflow writes beside itself
        server = subprocess.Popen(line, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
        try:
            yield server
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(timeout=ENDS_WITHIN_S)


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Ends the block without an error on Ctrl-C or SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_port(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise Unavailable(f"port {port} of {HOST}: {error.strerror}; give another --port") from None


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    while True:
        if server.poll() is not None:
            raise Unavailable(f"MLflow does not start: {_last_line(log)}")
        if time.monotonic() > end:
            raise Unavailable(f"MLflow does not answer after {STARTS_WITHIN_S:g} s; try again where less runs. It said: {_last_line(log)}")
        with (
            contextlib.suppress(URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2),
        ):
            return
        time.sleep(0.2)


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    return lines[-1] if lines else "it said nothing"
