"""A real MLflow server behind a proxy that fails: away, hanging, losing its answers, refusing. Nothing lost, nothing doubled."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from dpcore.config import Places, TrialConfig
from search_spaces.loader import load_space
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.tracking import door
from sweeps.tracking.outbox import sender
from sweeps.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ANSWER_WITHIN_S = 10


class Server:
    """`mlflow server` on one SQLite file: killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = [
            "--backend-store-uri",
            f"sqlite:///{self._folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(self._folder / "artifacts"),
        ]
        line = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", *where, *store]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        end = time.monotonic() + 500
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                connection.getresponse().read()
                connection.close()
                return
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Proxy(ThreadingHTTPServer):
    """Passes requests on, unless `fault` says otherwise of one: `hang`, `lose the answer`, or a status to answer with."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = port
        self.fault: Callable[[str, bytes], str | int | None] = lambda path, body: None
        self.over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news."""


class _Passing(BaseHTTPRequestHandler):
    def _pass_on(self) -> None:
        proxy: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.fault(self.path, body)
        if fault == "hang":
            proxy.over.wait(300)
            return
        if isinstance(fault, int):
            self.send_error(fault)
            return
        connection = http.client.HTTPConnection("127.0.0.1", proxy.behind, timeout=60)
        try:
            connection.request(self.command, self.path, body, {"Content-Type": self.headers.get("Content-Type", "application/json")})
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            self.send_error(502)
            return
        finally:
            connection.close()
        if fault == "lose the answer":
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test's output is for its failures."""


for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Passing, f"do_{verb}", _Passing._pass_on)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("mlflow"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def spec(proxy: Proxy, places: Places, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep of the test's name at the proxy, whose answers are waited for a few seconds only."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_WITHIN_S))
    monkeypatch.setattr(sender, "LONGEST_PAUSE_S", 1.0)
    space = load_space("quick", epsilons=[0.8])
    uri = f"http://127.0.0.1:{proxy.server_address[1]}"
    return SweepSpec(
        name=request.node.name[:60].translate(str.maketrans("[]", "--")),
        space=space,
        places=places,
        storage=tmp_path / "storage",
        tracking_uri=uri,
    )


def tracker_of(spec: SweepSpec) -> Tracker:
    claim = SimpleNamespace(paragraph=lambda: "a claim", model_dump_json=lambda indent: "{}")
    return Tracker(
        spec,
        facts=SimpleNamespace(manifests=lambda config: {}, datasets=lambda config: {}, claim=lambda config, plan: claim),
    )


def record_of(number: int) -> TrialRecord:
    data = {"private": "p", "public": "q", "validation": "v", "nominal_examples": 100}
    stages = {"private": {"steps": 4, "expected_batch_size": 10}}
    config = TrialConfig(method="dpsgd", data=data, stages=stages, epsilon=0.8, delta=1e-3, clip_norm=1.0)
    return TrialRecord(trial_id=f"e0.8-{number:03d}", role="search", number=number, config=config, epsilon=0.8)


def tell(tracker: Tracker, *numbers: int) -> float:
    """Whole trials of two reports; gives the seconds that telling took."""
    began = time.monotonic()
    for number in numbers:
        record = record_of(number)
        tracker.trial_started(record)
        for step in (2, 4):
            record = record.with_point(CurvePoint(step, {"val/pckh_50": step / 10, "privacy/epsilon_spent": step / 5}))
            tracker.reported(record, record.curve[-1])
        tracker.trial_ended(replace(record, state="done"))
    return time.monotonic() - began


def wait_until_sent(tracker: Tracker) -> None:
    """However slow this machine is: how long `close` itself waits is for another test."""
    end = time.monotonic() + 500
    while tracker._door._spool is not None and tracker._door._spool.unanswered() and time.monotonic() < end:
        time.sleep(0.2)


def arrived(spec: SweepSpec, server: Server) -> dict[str, tuple[str, list[int]]]:
    """Trial → its status and the steps of its score; fails where a trial has two runs."""
    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    experiment = client.get_experiment_by_name(spec.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    keys = [run.data.tags["dpsweep.key"] for run in runs]
    assert sorted(keys) == sorted(set(keys))
    assert not [run for run in runs if run.info.status == "RUNNING"]
    trials = [run for run in runs if "trial_id" in run.data.tags]
    curves = {run.data.tags["trial_id"]: client.get_metric_history(run.info.run_id, "val/pckh_50") for run in trials}
    return {run.data.tags["trial_id"]: (run.info.status, [p.step for p in curves[run.data.tags["trial_id"]]]) for run in trials}


def whole(*numbers: int) -> dict[str, tuple[str, list[int]]]:
    return {f"e0.8-{number:03d}": ("FINISHED", [2, 4]) for number in numbers}


def test_a_server_that_dies_and_comes_back_has_everything_once(spec: SweepSpec, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = tracker_of(spec)
    tracker.sweep_started()
    tell(tracker, 0)
    server.kill()
    assert tell(tracker, 1, 2) < 4 * ANSWER_WITHIN_S  # it draws curves; eight events that waited would take twice that
    time.sleep(4)
    server.start()
    tell(tracker, 3)
    wait_until_sent(tracker)
    tracker.close()
    assert arrived(spec, server) == whole(0, 1, 2, 3)
    said = capsys.readouterr().err
    assert said.count("MLflow does not answer") == said.count("MLflow answers again") == 1


def test_a_server_that_never_answers_delays_neither_trials_nor_the_end_and_gets_the_rest_at_a_resume(
    spec: SweepSpec, proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(door, "DRAIN_WITHIN_S", 2.0)
    tracker = tracker_of(spec)
    tracker.sweep_started()
    proxy.fault = lambda path, body: "hang"
    assert tell(tracker, 0, 1) < 4 * ANSWER_WITHIN_S
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < 2.0 + ANSWER_WITHIN_S + 30.0  # eight events that waited would take 8 answers
    assert "events wait in" in capsys.readouterr().err
    monkeypatch.undo()
    proxy.fault = lambda path, body: None
    again = tracker_of(spec)
    again.sweep_started()
    wait_until_sent(again)
    again.close()
    assert arrived(spec, server) == whole(0, 1)


def test_answers_that_get_lost_double_nothing(spec: SweepSpec, proxy: Proxy, server: Server) -> None:
    lost: list[str] = []

    def lose_the_first_answer_to_each(path: str, body: bytes) -> str | None:
        asked = f"{path} {body!r}"
        if "/search" in path or asked in lost:
            return None
        lost.append(asked)
        return "lose the answer"

    tracker = tracker_of(spec)
    tracker.sweep_started()
    wait_until_sent(tracker)
    proxy.fault = lose_the_first_answer_to_each
    tell(tracker, 0)
    wait_until_sent(tracker)
    tracker.close()
    assert sum("runs/create" in one for one in lost) == 1
    assert sum("log-batch" in one for one in lost) >= 3
    assert arrived(spec, server) == whole(0)


def test_what_is_refused_is_said_and_skipped_with_all_that_hangs_on_it(
    spec: SweepSpec, proxy: Proxy, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = tracker_of(spec)
    tracker.sweep_started()
    proxy.fault = lambda path, body: 413 if path.endswith("runs/create") and b"e0.8-000" in body else None
    tell(tracker, 0, 1)
    wait_until_sent(tracker)
    tracker.close()
    assert arrived(spec, server) == whole(1)
    said = capsys.readouterr().err
    assert "MLflow refuses run of e0.8-000" in said
    assert "413" in said
