"""The examples run as they are printed, in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "plan.py": "16 trials at ε = 0.8 each: the sweep costs ε = 3.95",
    "own_trial.py": "clip norm of the winner: ",
    "sweep.py": "the ledger has 4 lines and adds up",
    "notebook.py": "e8-",
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "tiny_data.py"}


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["plan.py", *(pytest.param(name, marks=pytest.mark.slow) for name in SAYS if name != "plan.py")])
def test_an_example_runs_and_leaves_nothing_in_the_working_directory(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    work = tmp_path / "work"
    work.mkdir()
    line = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=850)
    assert done.returncode == 0, done.stderr[-4000:]
    assert SAYS[name] in done.stdout
    assert list(work.iterdir()) == []
