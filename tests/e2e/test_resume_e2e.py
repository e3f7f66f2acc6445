"""A driver that is killed in mid-sweep: resume ends with the planned trials, nothing doubled, and a ledger that verifies."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli
from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SLOWER = TINY_SPACE.replace("steps: 8, expected", "steps: 60, expected")


def run_and_kill(cli: Cli, *args: str | Path, after_trials: int) -> None:
    """Starts a sweep in a process group of its own and kills the whole group once some searched trials have ended."""
    line = [*cli.command, *map(str, args)]
    driver = subprocess.Popen(
        line, env=cli.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert driver.stderr is not None
    ended = 0
    try:
        while ended < after_trials:
            told = driver.stderr.readline()
            assert told, "the driver ended before it could be killed"
            ended += "]  e" in told
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        driver.stderr.close()


def test_a_killed_sweep_resumes_to_exactly_the_planned_trials(cli: Cli, tmp_path: Path) -> None:
    space, storage = tmp_path / "space.yaml", tmp_path / "storage"
    space.write_text(SLOWER)
    run_and_kill(cli, "run", space, "--name", "killed", "--storage", storage, "--max-concurrent", 2, after_trials=2)
    cli.ok("resume", "killed", "--storage", storage)

    status = json.loads(cli.ok("status", "killed", "--storage", storage, "--json"))
    assert [(e["planned"], e["done"], e["running"], e["failed"]) for e in status["epsilons"]] == [(3, 3, 0, 0)] * 2
    ledger = json.loads(cli.ok("ledger", "killed", "--storage", storage, "--json"))
    trials = [line["trial_id"] for line in ledger["lines"] if line["kind"] == "reserve"]
    assert len(trials) == len(set(trials)) == 8
    cli.ok("ledger", "killed", "--storage", storage, "--verify")
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert all(run.info.status in ("FINISHED", "FAILED") for run in runs)
    ids = [run.data.tags["trial_id"] for run in runs if run.data.tags.get("trial_id")]
    assert len(ids) == len(set(ids))
