"""`ray up`, `ray submit`, `dpsweep submit`, `dpsweep doctor`, `ray down`, over a real ssh server, with cluster/local.yaml."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NAMESPACES = ("unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child")
PROGRAM = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


def write_program(path: Path, python: Path, module: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.format(python=python, module=module))
    path.chmod(0o755)


def prepare_laptop(laptop: Path) -> None:
    """What a user has: the repository, `ray` and `dpsweep`. Pins are those of this environment, for a node without an index."""
    repository = laptop / "dpsweep"
    for name in ("cluster", "dpcore", "search_spaces", "sweeps"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, repository / name)
    pins = repository / "cluster" / "constraints.txt"
    installed = {name: importlib.metadata.version(name) for name in ("ray", "torch", "mlflow", "optuna")}
    pins.write_text("".join(f"{name}=={version.partition('+')[0]}\n" for name, version in installed.items()))
    for program, module in (("ray", "ray.scripts.scripts"), ("dpsweep", "sweeps.cli")):
        write_program(laptop / "bin" / program, Path(sys.executable), module)


def prepare_node(node: Path) -> None:
    """A node that has the dependencies already; the package itself is installed by the launcher."""
    venv = node / ".dpsweep" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    write_program(venv / "bin" / "ray", venv / "bin" / "python", "ray.scripts.scripts")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, small_data: Path, tiniest_space: str) -> tuple[str, Path]:
    if os.geteuid() != 0 or any(
        shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None for name in ("unshare", "sshd", "ssh", "rsync", "ip")
    ):
        pytest.skip("needs root, unshare, ip, rsync and an ssh server (Debian: apt-get install openssh-server rsync iproute2)")
    work = tmp_path_factory.mktemp("launcher")
    prepare_laptop(work / "laptop")
    prepare_node(work / "node")
    shutil.copytree(small_data, work / "data")
    (work / "space.yaml").write_text(tiniest_space)
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment |= {
        "PYTHONPATH": str(work / "laptop" / "dpsweep"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    line = [*NAMESPACES, "bash", str(HERE / "launcher.sh"), str(work)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1100, check=False)
    (work / "said.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout, work


def test_every_step_of_a_launcher_run_succeeds(said: tuple[str, Path]) -> None:
    steps = re.findall(r"^== (.*)$", said[0], re.MULTILINE)
    expected = [
        "up",
        "submit",
        "ray submit: 0",
        "dpsweep submit: 0",
        "a wrong space by ray submit: 1",
        "doctor: 0",
        "down",
        "left of Ray: 0",
    ]
    assert steps == expected, said[0][-3000:]


@pytest.mark.parametrize("name", ["by_ssh", "by_job"])
def test_results_and_mlflow_runs_are_there(name: str, said: tuple[str, Path]) -> None:
    storage = said[1] / "storage"
    line = [sys.executable, "-m", "sweeps.cli", "status", name, "--storage", str(storage), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=500, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert [(e["planned"], e["done"]) for e in json.loads(done.stdout)["epsilons"]] == [(2, 2)]
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    trials = [run.data.tags["trial_id"] for run in runs if run.data.tags.get("trial_id")]
    assert len(trials) == len(set(trials)) >= 2
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_token_reached_the_node_for_its_owner_alone(said: tuple[str, Path]) -> None:
    token = said[1] / "node" / ".ray" / "auth_token"
    assert token.read_text() == (said[1] / "laptop" / ".ray" / "auth_token").read_text()
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text().strip() not in said[0]
