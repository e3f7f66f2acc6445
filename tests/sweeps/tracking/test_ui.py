"""MLflow's pages: on loopback, over the store beside the sweeps, and nothing of them outlives Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from sweeps.cli import main
from sweeps.storage.urls import default_store, sqlite_url
from sweeps.tracking import ui
from sweeps.tracking.browsing import SWEEP_ID_TAG
from sweeps.tracking.mlflow_connection import connect


def free_port() -> int:
    with socket.socket() as found:
        found.bind((ui.HOST, 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_pages_are_served_on_loopback_until_they_are_stopped(tmp_path: Path, number: signal.Signals) -> None:
    experiment_id = connect(sqlite_url(default_store(tmp_path))).create_experiment("a sweep", tags={SWEEP_ID_TAG: "ab"})
    port = free_port()
    line = [sys.executable, "-W", "ignore", "-m", "sweeps.cli", "ui", "--storage", str(tmp_path), "--port", str(port)]
    # A shell gives its background jobs SIGINT ignored, and they give it on: as from a terminal, where Ctrl-C is heard.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        link = f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        assert process.stdout.readline() == f"  a sweep: {link}\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            assert answer.status == 200
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        assert process.wait(timeout=600) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert children
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)
    with socket.socket() as again:
        assert again.connect_ex((ui.HOST, port)) != 0


def test_a_taken_port_and_a_folder_without_sweeps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--storage", str(tmp_path)]) == 2
    assert "no mlflow.db in" in capsys.readouterr().err
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        assert main(["ui", "--storage", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 1
    assert "give another --port" in capsys.readouterr().err


def test_a_server_has_pages_of_its_own_and_no_password_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "")
    assert main(["ui", "--storage", str(tmp_path), "--tracking-uri", "https://me:hunter2@mlflow.lab"]) == 0
    assert capsys.readouterr().out == "MLflow: https://mlflow.lab\n"


def test_the_runs_of_a_bucket_lie_beside_the_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--storage", "s3://lab/sweeps"]) == 2
    assert "give --state DIR" in capsys.readouterr().err
    assert main(["ui", "--storage", "s3://lab/sweeps", "--state", str(tmp_path)]) == 2
    assert f"no mlflow.db in {tmp_path}" in capsys.readouterr().err


def test_searches_are_named_with_how_to_look_at_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ui.study_lines(tmp_path) == []
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "study.journal").touch()
    command = f"  optuna-dashboard '{tmp_path}/a b/study.journal'"
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda name: None)
    assert ui.study_lines(tmp_path) == ["searches:", "  pip install 'dpsweep[dashboard]'", command]
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda name: object())
    assert ui.study_lines(tmp_path) == ["searches:", command]


@pytest.mark.slow
def test_a_store_that_mlflow_cannot_serve_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    said: list[str] = []
    with pytest.raises(ui.Unavailable, match=re.escape("MLflow does not start")):
        ui.show(sqlite_url(default_store(tmp_path)), port=free_port(), say=said.append)
    assert said == []
