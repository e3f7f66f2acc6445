"""mlflow-server.sh on a real PostgreSQL: eight trials at a time log into it, and a wrong password is refused."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spaces
from cluster_support import ROOT, free_ports, wait_for_port

from dpcore.config import Places
from sweeps.records.spec import SweepSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DRIVER = """
import dataclasses, sys
from pathlib import Path
import fake_trials
from sweeps.engine.driver import resume_sweep, run_sweep
from sweeps.records.spec import SweepSpec
from sweeps.tracking.outbox.spool import Spool
from sweeps.tracking.tracker import Tracker
spec = SweepSpec.model_validate_json(Path(sys.argv[1]).read_text())
around = dataclasses.replace(fake_trials.surroundings(), tracker=Tracker)
run_sweep(spec, around)
for _ in range(10):  # a server slower than the sweep: what waits in the spool is sent by a resume
    if not Spool(spec.state_dir).unanswered():
        break
    resume_sweep(spec.name, spec.storage, around)
"""


def postgres_program(name: str) -> str:
    """A program of PostgreSQL's server, which Debian keeps off the PATH."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *places]))
    if found is None:
        pytest.skip("needs a PostgreSQL server (Debian: apt-get install postgresql)")
    return found


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """A database with a password on a port of its own: the environment of its clients. PostgreSQL does not run as root."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    port, password = str(free_ports(1)[0]), secrets.token_hex(16)
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        line = [initdb, "--pgdata", f"{name}/data", "--username", "mlflow", "--pwfile", f"{name}/password", "--auth", "scram-sha-256"]
        subprocess.run(line, user=user, cwd=name, check=True, capture_output=True)
        options = ["-D", f"{name}/data", "-p", port, "-k", name, "-h", "127.0.0.1"]
        log = folder / "postgres.log"
        with log.open("w") as file:
            process = subprocess.Popen([server, *options], user=user, cwd=name, stdout=file, stderr=file)
        try:
            wait_for_port(int(port), process, log)
            yield {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "mlflow", "PGPASSWORD": password, "PGDATABASE": "postgres"}
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """An MLflow server and the environment of its first user."""
    folder, (port,) = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    password = secrets.token_hex(16)
    environment = {**os.environ, **postgres, "PATH": f"{program_folder(folder)}:{os.environ['PATH']}", "MLFLOW_PORT": str(port)}
    environment |= {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": password, "TMPDIR": str(folder)}
    environment |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32), "MLFLOW_WORKERS": "1", "PYTHONWARNINGS": "ignore"}
    log = folder / "server.log"
    with log.open("w") as file:
        script = ["sh", str(ROOT / "cluster" / "mlflow-server.sh")]
        process = subprocess.Popen(script, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for_port(port, process, log, within_s=500)
        assert password not in log.read_text()
        assert password not in "".join(path.read_text() for path in folder.glob("tmp.*"))
        yield f"http://127.0.0.1:{port}", {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def program_folder(folder: Path) -> Path:
    """A folder with `mlflow`, of this very environment."""
    program = folder / "bin" / "mlflow"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom mlflow.cli import cli\nsys.exit(cli())\n")
    program.chmod(0o755)
    return program.parent


def run_python(*line: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'sweeps'}",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, line)], env=env, capture_output=True, text=True, timeout=1000, check=False
    )


def test_eight_trials_at_a_time_arrive_whole_and_once(
    server: tuple[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, user = server
    none = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
    spec = SweepSpec(
        name="eight",
        space=spaces.space(sweep={"trials_per_epsilon": 8}, references=none),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        cpus_per_trial=0.1,
        max_concurrent=8,
        tracking_uri=uri,
        trial_function="fake_trials:slow_trial",
    )
    (tmp_path / "spec.json").write_text(spec.model_dump_json(by_alias=True))
    done = run_python("-c", DRIVER, tmp_path / "spec.json", **user)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment: Any = client.get_experiment_by_name("eight")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    trials = [run.data.tags["trial_id"] for run in runs if run.data.tags.get("trial_id")]
    assert len(trials) == len(set(trials)) == 16
    assert {run.info.status for run in runs} == {"FINISHED"}
    points = [client.get_metric_history(run.info.run_id, "val/pckh_50") for run in runs if run.data.tags.get("trial_id")]
    assert [[point.step for point in curve] for curve in points] == [[1, 2, 3]] * 16


def test_a_wrong_password_and_none_are_refused_clearly(server: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    uri, user = server
    for given in ({**user, "MLFLOW_TRACKING_PASSWORD": "wrong-password"}, {}):
        done = run_python("-m", "sweeps.cli", "doctor", "--storage", tmp_path, "--tracking-uri", uri, **given)
        assert done.returncode == 1
        assert "fail  mlflow" in done.stdout
        assert "MLFLOW_TRACKING_PASSWORD" in done.stdout
        assert "Traceback" not in done.stderr
        assert "wrong-password" not in done.stdout + done.stderr
