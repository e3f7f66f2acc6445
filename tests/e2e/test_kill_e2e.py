"""A training that is killed (SIGKILL) at ten random moments and resumed: weights, spent ε and ledger of the undisturbed one."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli

from dpcore.privacy.composition import epsilon_of_charge
from sweeps.ledger.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS, STEPS, AT_ONCE = 10, 24, 2
LONGEST_STEP_S = 0.2
BEST = {
    "config": {
        "method": "feature_projected",
        "data": {"private": "tiny/private", "public": "tiny/public", "validation": "tiny/validation", "nominal_examples": 200},
        "model": {"freeze": "early"},
        "split": {"name": "pixels_8", "transform": "pixelate", "cell_px": 8},
        "stages": {"public": {"steps": 20, "batch_size": 16}, "private": {"steps": STEPS, "expected_batch_size": 40}},
        "augmentation": {"flip_prob": 0.5},
        "subspace": {"rank": 8, "examples": 32, "refresh_steps": 10},
        "ema_decay": 0.8,
        "epsilon": 2.0,
        "delta": 1e-3,
        "clip_norm": 0.5,
        "public_batch_size": 16,
    },
    "runtime": {"report_every_steps": 1, "checkpoint_every_steps": 4, "physical_batch_size": 16},
}


class Training:
    """A training in a folder of its own, with a ledger of its own, by the real command."""

    def __init__(self, cli: Cli, config: Path, root: Path) -> None:
        self._cli, self._config, self._root = cli, config, root
        self.out = root / "out"

    def command(self, *options: str) -> list[str]:
        ledger = f"sqlite:///{self._root / 'ledger.sqlite'}"
        where = ["--out", str(self.out), "--ledger", ledger, "--data-dir", str(self._cli.data_dir), "--json"]
        return ["train", str(self._config), *where, *options]

    def kill(self, *options: str, when: Callable[[], bool], after_s: float = 0.0) -> None:
        """Runs the command and kills it once `when` holds."""
        line = [*self._cli.command, *self.command(*options)]
        with subprocess.Popen(line, env=self._cli.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while not when() and process.poll() is None:
                time.sleep(0.002)
            time.sleep(after_s)
            process.kill()
            told = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, told

    def resume(self) -> dict[str, Any]:
        return dict(json.loads(self._cli.ok(*self.command("--resume"))))

    @property
    def reports(self) -> int:
        path = self.out / "digests.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    def end(self) -> dict[str, Any]:
        """All that must be equal: weights, reports but their wall times, ledger lines but their time and hashes."""
        ledger = Ledger(f"sqlite:///{self._root / 'ledger.sqlite'}")
        assert ledger.verify(epsilon_of_charge) == ()
        lines = [asdict(line) for line in ledger.lines()]
        ledger.close()
        reports = [json.loads(line) for line in (self.out / "digests.jsonl").read_text().splitlines()]
        for report in reports:
            del report["metrics"]["time/step_s"]
        return {
            "weights": (self.out / "model" / "model.safetensors").read_bytes(),
            "reports": reports,
            "ledger": [{name: value for name, value in line.items() if name not in ("at", "previous", "hash")} for line in lines],
            "key is gone": not (self.out / "train.key").exists(),
        }


def test_ten_killed_and_resumed_trainings_equal_the_undisturbed_one(cli: Cli, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the kills: {seed}")
    config = tmp_path / "best.yaml"
    config.write_text(json.dumps(BEST))
    begun = Training(cli, config, tmp_path / "begun")
    begun.kill(when=(begun.out / "train.json").exists)  # reserved, key and trial id written: what all copies share
    generator = random.Random(seed)
    moments = [(generator.randrange(1, STEPS - 5), generator.uniform(0, LONGEST_STEP_S)) for _ in range(KILLS)]

    def copy(name: str) -> Training:
        shutil.copytree(tmp_path / "begun", tmp_path / name)
        return Training(cli, config, tmp_path / name)

    def run(number: int) -> tuple[dict[str, Any], dict[str, Any], int]:
        training, (reports, after_s) = copy(f"killed-{number}"), moments[number]
        training.kill("--resume", when=lambda: training.reports >= reports, after_s=after_s)
        at = training.reports
        return training.resume(), training.end(), at

    whole = copy("whole")
    told, ended = whole.resume(), whole.end()
    assert [line["kind"] for line in ended["ledger"]] == ["reserve", "settle"]
    assert len(ended["reports"]) == STEPS
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(run, range(KILLS)))
    print(f"killed after step {[at for _, _, at in outcomes]}")
    equal = [(again, result) == (told, ended) for again, result, _ in outcomes]
    assert equal == [True] * KILLS, f"seed {seed}: killed after steps {[at for _, _, at in outcomes]}, equal {equal}"
    assert all(0 < at < STEPS for _, _, at in outcomes)
