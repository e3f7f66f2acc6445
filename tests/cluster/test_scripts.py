"""The shell scripts under cluster/, run with stand-ins for the programs that they call, and the compose file."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

CLUSTER_DIR = Path(__file__).parents[2] / "cluster"
SCRIPTS = ("install.sh", "sweep.sh", "mlflow-server.sh", "slurm.sbatch")
SECRETS = {
    "PGHOST": "db",
    "PGUSER": "mlflow",
    "PGDATABASE": "mlflow",
    "PGPASSWORD": "pg-secret",
    "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "long-enough-secret",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "key-secret",
}


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which programs named in `programs` print their name and arguments, one a line."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("dpsweep", "mlflow"):
        write_program(programs / name, f'printf "%s\\n" {name} "$@"')
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def run(script: str, *args: str | Path, env: dict[str, str], shell: str = "sh") -> subprocess.CompletedProcess[str]:
    line = [shell, str(CLUSTER_DIR / script), *map(str, args)]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_parses(script: str) -> None:
    shell = "bash" if (CLUSTER_DIR / script).read_text().startswith("#!/bin/bash") else "sh"
    done = subprocess.run([shell, "-n", str(CLUSTER_DIR / script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweep_that_is_not_there_is_begun_with_its_options_whole(stand_in: dict[str, str], tmp_path: Path) -> None:
    done = run("sweep.sh", "quick", "a", tmp_path, "--set", "a b=$c;d", env=stand_in)
    expected = ["dpsweep", "run", "quick", "--name", "a", "--storage", str(tmp_path), "--address", "auto", "--set", "a b=$c;d"]
    assert done.stdout.splitlines() == expected


def test_a_sweep_that_is_there_is_gone_on_with(stand_in: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "spec.json").write_text("{}")
    done = run("sweep.sh", "quick", "a", tmp_path, "--seed", "1", env=stand_in)
    assert done.stdout.splitlines() == ["dpsweep", "resume", "a", "--storage", str(tmp_path)]


@pytest.mark.parametrize(("there", "command"), [(True, "resume"), (False, "run")])
def test_a_sweep_in_a_bucket_is_gone_on_with_where_its_status_is_known(
    stand_in: dict[str, str], tmp_path: Path, there: bool, command: str
) -> None:
    write_program(tmp_path / "programs" / "dpsweep", f'test "$1" = status && exit {0 if there else 2}; echo "$1"')
    done = run("sweep.sh", "quick", "a", "s3://lab/sweeps", "--state", tmp_path, env=stand_in)
    assert done.stdout.splitlines() == [command]


def test_the_exit_code_of_a_sweep_is_the_scripts(stand_in: dict[str, str], tmp_path: Path) -> None:
    write_program(tmp_path / "programs" / "dpsweep", "exit 7")
    assert run("sweep.sh", "quick", "a", tmp_path, env=stand_in).returncode == 7
    assert run("sweep.sh", "quick", env=stand_in).returncode == 2


def test_slurm_starts_ray_on_every_node_with_a_token_that_stands_in_no_argument(stand_in: dict[str, str], tmp_path: Path) -> None:
    programs, log = tmp_path / "programs", tmp_path / "log"
    write_program(programs / "scontrol", "printf 'n1\\nn2\\n'")
    write_program(programs / "hostname", "echo 10.0.0.1 10.1.0.1")
    write_program(
        programs / "ray",
        f'printf "%s\\n" "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN" "$@" > {log}; mkdir -p {tmp_path}/s/a; touch {tmp_path}/s/a/spec.json',
    )
    write_program(programs / "srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    job = {
        "SLURM_SUBMIT_DIR": str(CLUSTER_DIR.parent),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
    }
    done = run("slurm.sbatch", "quick", "a", tmp_path / "s", "--gpus-per-trial", "1", env={**stand_in, **job}, shell="bash")
    assert done.returncode == 0, done.stderr
    mode, token, *arguments = log.read_text().splitlines()
    assert mode == "token"
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in " ".join(arguments)
    assert arguments[:5] == ["symmetric-run", "--address", "10.0.0.1:23456", "--min-nodes", "2"]
    sweep = arguments[arguments.index("--") + 1 :]
    assert sweep == ["sh", str(CLUSTER_DIR / "sweep.sh"), "quick", "a", str(tmp_path / "s"), "--gpus-per-trial", "1"]
    write_program(programs / "ray", "exit 0")  # what symmetric-run does where Ray does not start
    assert run("slurm.sbatch", "quick", "b", tmp_path / "s", env={**stand_in, **job}, shell="bash").returncode == 1
    assert "absolute" in run("slurm.sbatch", "quick", "b", "here", env={**stand_in, **job}, shell="bash").stderr


def test_slurm_ends_the_sweep_before_it_queues_the_job_again(stand_in: dict[str, str], tmp_path: Path) -> None:
    programs, log, ended = tmp_path / "programs", tmp_path / "log", tmp_path / "ended"
    write_program(programs / "hostname", "echo 10.0.0.1")
    write_program(programs / "scontrol", f'test "$1" = show && echo n1 || echo "scontrol $*" >> {log}')
    write_program(programs / "dpsweep", f'echo "dpsweep $*" >> {log}; touch {ended}')
    write_program(programs / "ray", f"touch {log}; until test -f {ended}; do sleep 0.1; done; echo 'the step ended' >> {log}; exit 130")
    write_program(programs / "srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    job = {"SLURM_SUBMIT_DIR": str(CLUSTER_DIR.parent), "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1"}
    line = ["bash", str(CLUSTER_DIR / "slurm.sbatch"), "quick", "a", str(tmp_path / "s")]
    with subprocess.Popen(line, env={**stand_in, **job}) as batch:
        while not log.exists():
            time.sleep(0.1)
        batch.send_signal(signal.SIGUSR1)
        assert batch.wait(timeout=60) == 0
    assert log.read_text().splitlines() == [f"dpsweep cancel a --storage {tmp_path / 's'}", "the step ended", "scontrol requeue 4711"]


@pytest.mark.parametrize(
    ("found", "address"),
    [
        ("10.0.0.1 10.1.0.1", "10.0.0.1"),
        ("127.0.1.1 10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0 ::1 169.254.3.4 192.168.7.2", "192.168.7.2"),
        ("fe80::1%eth0 2001:db8::7", "[2001:db8::7]"),
        ("127.0.1.1 ::1 fe80::1", None),
        ("", None),
    ],
)
def test_slurm_takes_an_address_of_the_head_that_other_nodes_reach(
    stand_in: dict[str, str], tmp_path: Path, found: str, address: str | None
) -> None:
    programs = tmp_path / "programs"
    write_program(programs / "scontrol", "printf 'n1\\nn2\\n'")
    write_program(programs / "hostname", f'test "$1" = --ip-address && echo "{found}"')
    write_program(programs / "ray", 'printf "%s\\n" "$@"')
    write_program(programs / "srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    job = {"SLURM_SUBMIT_DIR": str(CLUSTER_DIR.parent), "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    gpus = {"SLURM_GPUS_ON_NODE": "gpu:a100:4"}
    done = run("slurm.sbatch", "quick", "a", tmp_path / "s", env={**stand_in, **job, **gpus}, shell="bash")
    if address is None:
        assert "has no address that other nodes reach" in done.stderr
        assert (done.returncode, done.stdout) == (1, "")
    else:
        given = done.stdout.splitlines()
        assert given[given.index("--address") + 1] == f"{address}:24711"
        assert "--num-gpus=4" in given


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "PGPASSWORD"])
def test_mlflow_does_not_start_without(name: str, stand_in: dict[str, str]) -> None:
    done = run("mlflow-server.sh", env={**stand_in, **{key: value for key, value in SECRETS.items() if key != name}})
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr


def test_mlflow_does_not_start_with_a_short_password(stand_in: dict[str, str]) -> None:
    done = run("mlflow-server.sh", env={**stand_in, **SECRETS, "MLFLOW_AUTH_ADMIN_PASSWORD": "password123"})
    assert done.returncode == 2
    assert "12 characters" in done.stderr
    assert "password123" not in done.stderr


def test_mlflow_listens_on_loopback_unless_asked_and_no_secret_is_an_argument(stand_in: dict[str, str], tmp_path: Path) -> None:
    done = run("mlflow-server.sh", env={**stand_in, **SECRETS})
    assert done.returncode == 0, done.stderr
    arguments = done.stdout.splitlines()
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--app-name") + 1] == "basic-auth"
    written = done.stdout + "".join(path.read_text() for path in tmp_path.glob("tmp.*"))
    assert not [name for name, value in SECRETS.items() if "secret" in value and value in written]
    wide = run("mlflow-server.sh", env={**stand_in, **SECRETS, "MLFLOW_HOST": "0.0.0.0", "MLFLOW_ALLOWED_HOSTS": "a:1,b:2"})
    assert wide.stdout.splitlines()[-2:] == ["--allowed-hosts", "a:1,b:2"]


def test_the_compose_file_publishes_on_loopback_only_and_has_no_password_of_its_own() -> None:
    compose = yaml.safe_load((CLUSTER_DIR / "mlflow-compose.yaml").read_text())
    assert set(compose) == {"name", "services", "volumes"}
    known = {"image", "build", "restart", "environment", "volumes", "healthcheck", "depends_on", "ports"}
    for service in compose["services"].values():
        assert set(service) <= known
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "SECRET" in name:
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), (name, value)
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(compose["volumes"])
    assert os.path.samefile(CLUSTER_DIR / compose["services"]["mlflow"]["build"]["context"], CLUSTER_DIR.parent)
