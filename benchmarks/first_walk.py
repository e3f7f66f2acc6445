"""The walk of a newcomer, from a clone to keypoints on pictures, each step timed: the commands of the README, as they stand there.

    python benchmarks/first_walk.py [--out benchmarks/results/first_walk.json]

It clones this repository's last commit into a temporary folder, and runs there what the README prints, in its order. pip's packages come
from the index or from its cache, whose state decides the first seconds. Nothing of the walk is kept but the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"^ {4}((?:make sweep|\.venv/bin/dpsweep) ?[^#\n]*)", flags=re.MULTILINE)
PHOTOS = """
from pathlib import Path
from PIL import Image
from dpcore.data.synthetic import draw_record
Path("photos").mkdir()
for index in range(4):
    Image.fromarray(draw_record("private", seed=5, index=index).image).save(f"photos/person_{index}.png")
"""
"""A newcomer's own pictures: four people that the generator draws."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the walk."""

    command: str
    seconds: float
    last_line: str


def commands() -> list[str]:
    """What the README prints, in its order."""
    return [found.strip() for found in LINE.findall((ROOT / "README.md").read_text(encoding="utf-8"))]


def step(command: str, folder: Path, *, shown: str | None = None) -> Step:
    """Runs a command and says how long it took.

    Raises:
        SystemExit: it failed; its last lines are printed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DPSWEEP_", "VIRTUAL_ENV"))}
    begun = time.monotonic()
    done = subprocess.run(shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise SystemExit(f"{command} gave {done.returncode} after {seconds:.0f} s:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    made = Step(command=shown or command, seconds=round(seconds, 1), last_line=lines[-1].replace(str(folder), ".") if lines else "")
    print(f"{made.seconds:8.1f} s  {made.command}", flush=True)
    return made


def walk(folder: Path) -> list[Step]:
    """Every step, from the clone on."""
    clone = folder / "dpsweep"
    steps = [step(f"git clone --quiet {shlex.quote(str(ROOT))} {shlex.quote(str(clone))}", folder, shown="git clone")]
    steps.append(step("make install", clone))
    for command in commands():
        if " predict " in command:
            step(f".venv/bin/python -c {shlex.quote(PHOTOS)}", clone, shown="(pictures of four people)")
        steps.append(step(command, clone))
    return steps


def main() -> int:
    """Walks, prints the table, and writes it where `--out` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the table")
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="first-walk-") as folder:
        steps = walk(Path(folder))
    total = sum(one.seconds for one in steps)
    print(f"{total:8.1f} s  in all, on {os.cpu_count()} cores at a load of {load_before:.0f} before")
    if args.out is not None:
        document = {
            "cores": os.cpu_count(),
            "load_before": round(load_before, 1),
            "python": platform.python_version(),
            "seconds": round(total, 1),
        }
        args.out.write_text(json.dumps({**document, "steps": [asdict(one) for one in steps]}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
