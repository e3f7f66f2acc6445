"""What people see in a browser: the documentation, MLflow and optuna-dashboard over a sweep. No page asks anybody but this machine."""

from __future__ import annotations

import functools
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Visit, chromium, visit
from e2e_support import Cli

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SPACE = """
sweep: {epsilons: [8], delta: 1.0e-3, trials_per_epsilon: 2, sampler: random, accounting: composed}
references: {floor: false, ceiling: false, control: false, winner_seeds: 0}
trial:
  data: {private: tiny/private, public: tiny/public, validation: tiny/validation, nominal_examples: 200}
  stages: {private: {steps: 4, expected_batch_size: 40}}
search: {method: {choice: [dpsgd]}, clip_norm: {float: [0.1, 1.0], log: true}}
"""
WIDTHS_PX = (1400, 390)
WITHIN_S = 180.0
TEXT, WIDTH = "document.body.innerText", "document.documentElement.scrollWidth"
BROKEN = "[...document.images].filter(one => one.complete && !one.naturalWidth).map(one => one.src)"
REPORT = "document.body.innerText.includes('Which method wins') && document.body.innerText"
OF_MLFLOW = ("status of 404", "AG Grid")
"""What MLflow's own pages write to the console: the users of a server without users, and old names of a table's settings."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(chromium() is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]


def once_shown(text: str) -> str:
    """JavaScript that waits until a page shows a text, and gives all that it shows then."""
    is_over = f"text.includes({json.dumps(text)}) || new Date() > end"
    shown = f"const text = document.body.innerText; if ({is_over}) done(text); else setTimeout(look, 100)"
    return f"new Promise(done => {{ const end = +new Date() + 120000; const look = () => {{ {shown} }}; look() }})"


def elsewhere(seen: Visit) -> list[str]:
    """What a page asked beyond this machine."""
    return [url for url in seen.requests if not url.startswith(("blob:", "http://127.0.0.1:"))]


@pytest.fixture(scope="module")
def swept(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a small sweep named `seen`."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "space.yaml").write_text(SPACE)
    cli.ok("run", folder / "space.yaml", "--name", "seen", "--storage", folder / "storage")
    return folder / "storage"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The documentation, built with warnings as errors and served on loopback."""
    folder = tmp_path_factory.mktemp("site")
    line = [str(BIN / "mkdocs"), "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert built.returncode == 0, built.stdout + built.stderr
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(line: list[str], url: str) -> Iterator[None]:
    """A server until the end of the block, from when it answers."""
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 600
            while True:
                assert process.poll() is None, line
                assert time.monotonic() < end, f"{url} does not answer"
                try:
                    with urllib.request.urlopen(url, timeout=5):
                        break
                except OSError:
                    time.sleep(0.3)
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("page", "shows"),
    [
        ("index.html", "What not to conclude"),
        ("concepts/mechanism.html", "What the claim assumes"),
        ("reference/space-keys.html", "trials_per_epsilon"),
        ("reference/python.html", "read_ledger"),
    ],
)
def test_the_documentation_fits_a_desk_and_a_phone(site: str, page: str, shows: str, tmp_path: Path) -> None:
    asks = (once_shown(shows), WIDTH, BROKEN)
    for seen in visit(f"{site}/{page}", widths=WIDTHS_PX, asks=asks, profile=tmp_path, within_s=WITHIN_S):
        text, width_px, broken = seen.answers
        assert shows in text
        assert width_px <= seen.width
        assert broken == []
        assert seen.console == []
        assert elsewhere(seen) == []


@pytest.fixture(scope="module")
def mlflow_port(cli: Cli, swept: Path) -> Iterator[int]:
    """The port of `dpsweep ui` over the sweep."""
    port = free_port()
    with serving([*cli.command, "ui", "--storage", str(swept), "--port", str(port)], f"http://127.0.0.1:{port}/health"):
        yield port


def run_named(name: str, port: int) -> str:
    """The id of a run, from the server."""
    asked = json.dumps({"experiment_ids": ["1"], "filter": f"attributes.run_name = '{name}'"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", data=asked, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        (run,) = json.load(answer)["runs"]
    return str(run["info"]["run_id"])


def test_the_link_of_a_sweep_opens_its_runs_and_its_verdict_in_mlflow(mlflow_port: int, tmp_path: Path) -> None:
    link = f"http://127.0.0.1:{mlflow_port}/#/experiments/1/runs?workflowType=machine_learning"
    (seen,) = visit(link, widths=(1400,), asks=(once_shown("references"),), profile=tmp_path, within_s=WITHIN_S)
    (text,) = seen.answers
    assert re.search(r"ε 8 · \d+\.\d % · dpsgd", text), text
    assert "ε = 8:" in text  # the verdict, first line of the note
    assert "report.html" in text
    assert [line for line in seen.console if not any(own in line for own in OF_MLFLOW)] == []
    assert elsewhere(seen) == []


def test_mlflow_shows_the_report_as_a_page_among_the_artifacts(mlflow_port: int, tmp_path: Path) -> None:
    run_id = run_named("summary", mlflow_port)
    link = f"http://127.0.0.1:{mlflow_port}/#/experiments/1/runs/{run_id}/artifacts/report.html?workflowType=machine_learning"
    (seen,) = visit(link, widths=(1400,), asks=(), frame_ask=REPORT, profile=tmp_path, within_s=WITHIN_S)
    (text,) = seen.answers
    assert "Which method wins" in text
    assert "Privacy statement" in text
    assert [line for line in seen.console if not any(own in line for own in OF_MLFLOW)] == []
    assert elsewhere(seen) == []


def test_optuna_dashboard_names_the_metric_and_the_sweep(swept: Path, tmp_path: Path) -> None:
    port = free_port()
    line = [str(BIN / "optuna-dashboard"), str(swept / "seen" / "study.journal"), "--port", str(port)]
    with serving(line, f"http://127.0.0.1:{port}/dashboard"):
        address = f"http://127.0.0.1:{port}/dashboard/studies/0"
        asks = (once_shown("dpsweep report seen"),)
        (seen,) = visit(address, widths=(1400,), asks=asks, profile=tmp_path, within_s=WITHIN_S)
    (text,) = seen.answers
    for shown in ("seen/epsilon-8", "pckh_50", "dpsweep report seen"):
        assert shown in text
    assert [line for line in seen.console if "warning" not in line] == []
    assert elsewhere(seen) == []
