"""A sweep over two Ray nodes of which one is killed: every trial ends, and the ledger adds up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import spaces
from process_tree import descendants

from dpcore.config import Places
from sweeps.records.spec import SweepSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DRIVER = """
import sys
from pathlib import Path
import fake_trials
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
results = run_sweep(SweepSpec.model_validate_json(Path(sys.argv[1]).read_text()), fake_trials.surroundings())
print([record.state for record in results.records])
"""


def starts(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.is_file() else 0


def begun_on(node: subprocess.Popen[bytes], log: Path) -> int:
    """How many trials have begun on workers of a node."""
    workers = {process.pid for process in descendants(node.pid)}
    return sum(int(line.split()[1]) in workers for line in log.read_text().splitlines())


@pytest.mark.parametrize("scheme", ["", "fsspec+local://"])
def test_a_killed_node_costs_no_trial(ray_head: Any, tmp_path: Path, scheme: str) -> None:
    node = ray_head.start_node(tmp_path)
    try:
        while "Ray runtime started" not in (said := (tmp_path / "node.log").read_text()):
            assert node.poll() is None, said
            time.sleep(0.2)
        spec = SweepSpec(
            name="lost",
            space=spaces.space(
                sweep={"trials_per_epsilon": 8}, references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
            ),
            places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
            storage=f"{scheme}{tmp_path / 'store'}",
            state=tmp_path / "state" if scheme else None,
            address=f"127.0.0.1:{ray_head.port}",
            max_concurrent=4,
            trial_function="fake_trials:noted_trial",
        )
        (tmp_path / "spec.json").write_text(spec.model_dump_json(by_alias=True))
        line = [sys.executable, "-W", "ignore", "-c", DRIVER, str(tmp_path / "spec.json")]
        with (tmp_path / "driver.log").open("w") as log:
            driver = subprocess.Popen(line, env=ray_head.environment, stdout=log, stderr=log)
        noted = spec.places.data_dir / "starts.txt"
        while starts(noted) < 5 or not (begun := begun_on(node, noted)):
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
            time.sleep(0.2)
        while begun_on(node, noted) == begun:  # so that it dies with a trial that has just begun
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
            time.sleep(0.2)
        os.killpg(node.pid, signal.SIGKILL)
        assert driver.wait(timeout=1000) == 0, (tmp_path / "driver.log").read_text()
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    status = json.loads(ray_head.dpsweep("status", "lost", "--storage", spec.storage, "--json").stdout)
    assert [(e["planned"], e["done"], e["failed"]) for e in status["epsilons"]] == [(8, 8, 0)] * 2
    ledger = json.loads(ray_head.dpsweep("ledger", "lost", "--storage", spec.storage, "--json").stdout)
    reserved = [line["trial_id"] for line in ledger["lines"] if line["kind"] == "reserve"]
    assert len(reserved) == len(set(reserved)) == 16
    assert starts(noted) > 16, "no trial ran on the node that was killed"
