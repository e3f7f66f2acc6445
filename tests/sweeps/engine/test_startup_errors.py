"""A sweep that cannot be taken up again says why and ends. A process that hangs holds its Slurm job or its RayJob for ever."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_trials
import pytest
import spaces
from one_process import OneProcess

from dpcore.config import Places
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
from sweeps.storage.urls import default_store
from sweeps.tracking.default_store import make_default_store
from sweeps.tracking.mlflow_connection import prepare_mlflow

HERE = Path(__file__).parents[1]
DEADLINE_S = 500.0
RESUME = """
import contextlib, sys
from dataclasses import replace
import fake_trials
from dpcore.errors import DpsweepError
from sweeps.engine import driver
from sweeps.tracking.tracker import Tracker

driver.ray_session = lambda spec: contextlib.nullcontext(1)
try:
    driver.resume_sweep("s", sys.argv[1], replace(fake_trials.surroundings(), tracker=Tracker))
except DpsweepError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a small sweep that came to its end."""
    root = tmp_path_factory.mktemp("finished")
    alone = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
    spec = SweepSpec(
        name="s",
        space=spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 2}, references=alone),
        places=Places(data_dir=root / "data", cache_dir=root / "cache"),
        storage=root / "store",
        trial_function="fake_trials:run_trial",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
        patch.setattr(driver_module, "run_tune", OneProcess())
        run_sweep(spec, fake_trials.surroundings())
    prepare_mlflow()
    make_default_store(default_store(root / "store"))
    return root / "store"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("damaged", ["s/study.journal", "s/reports.jsonl", "ledger.sqlite"])
def test_a_sweep_with_a_damaged_file_ends_with_a_message_that_names_it(damaged: str, finished: Path, tmp_path: Path) -> None:
    storage = tmp_path / "store"
    shutil.copytree(finished, storage)
    first, *rest = (storage / damaged).read_bytes().split(b"\n")
    (storage / damaged).write_bytes(b"\n".join((b"{" + b"#" * max(1, len(first)), *rest)))
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", RESUME, str(storage)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    assert damaged in done.stderr
