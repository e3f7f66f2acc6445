"""The command line as a process of its own, and the smallest space that has every part."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TINY_SPACE = """
sweep: {epsilons: [2, 8], delta: 1.0e-3, trials_per_epsilon: 3, sampler: random, accounting: composed}
references: {floor: true, ceiling: true, control: true, winner_seeds: 1, disclosure: {steps: 4}}
splits: {pixels_8: {transform: pixelate, cell_px: 8}}
trial:
  data: {private: tiny/private, public: tiny/public, validation: tiny/validation, nominal_examples: 200}
  model: {backbone: small, freeze: early}
  stages:
    public: {steps: 20, batch_size: 16}
    public_view: {steps: 10, batch_size: 16}
    private: {steps: 8, expected_batch_size: 40}
search:
  method: {choice: [dpsgd, feature]}
  split: {choice: [pixels_8], when: {method: feature}}
  clip_norm: {float: [0.1, 1.0], log: true}
"""


@dataclass(frozen=True)
class Cli:
    """`dpsweep` with a data folder of its own and threads that leave the machine to others."""

    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DPSWEEP_DATA_DIR": str(self.data_dir), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "sweeps.cli"]

    def __call__(self, *args: str | Path, timeout_s: float = 1000) -> subprocess.CompletedProcess[str]:
        line = [*self.command, *map(str, args)]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False)

    def ok(self, *args: str | Path, timeout_s: float = 1000) -> str:
        """The command's stdout; fails with its stderr when it did not succeed."""
        done = self(*args, timeout_s=timeout_s)
        assert done.returncode == 0, f"{args} gave {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def make_small_data(cli: Cli) -> None:
    """The datasets of TINY_SPACE: 200 private, 100 public and 40 validation people."""
    for name, domain, count, role in (("private", "private", 200, "PRIVATE"), ("public", "public", 100, "PUBLIC")):
        cli.ok("data", "synth", "--domain", domain, "--count", str(count), "--role", role, "--out", cli.data_dir / "tiny" / name)
    validation = cli.data_dir / "tiny" / "validation"
    cli.ok("data", "synth", "--domain", "private", "--count", "40", "--seed", "1", "--role", "PUBLIC", "--out", validation)
