"""Where the time of `quick` goes: one fresh run, cut into phases, with the share of each.

    python benchmarks/bench_quick_phases.py [--space quick] [--label main] [--keep FOLDER]

Nothing is asked of the sweep but what it says on stderr and keeps in its folders: a line with the time that a trial took, the meta
of stages, the times of the caches. Writes benchmarks/results/quick_phases.json, one entry a label.

| phase | from | to |
|---|---|---|
| start-up and data | the command | the first line of the sweep, or the begin of the first trial |
| before the search | the command | the first search trial on a worker, its public start trained |
| to the first score | the command | the end of the first search trial |
| search and references | the public start | the end of the last trial |
| report and tail | the end of the last trial | the end of the command |

`trial_seconds` adds up what trials of a role took; with two at a time they are up to twice the wall time. `busy_frac` is their sum
over wall time and cores: the rest is start-up and the tail. A trial that waits for the public start counts the wait as its own.

The script reads nothing of dpsweep, so a copy of it measures an older version from that version's own environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "quick_phases.json"
ENDED = re.compile(r"^\[\d+/\d+\]\s+(?P<trial>\S+)\s.*?(?P<seconds>[\d.]+) s$")
ROLES = {"public-start": "public start", "floor": "floors", "ceiling": "ceiling", "control": "control", "seed": "seeds", "e": "search"}
"""By what the id of a trial begins with."""


def role_of(trial: str) -> str:
    """The role of a trial, by its id."""
    return next((role for prefix, role in ROLES.items() if trial.startswith(prefix)), "other")


def run(space: str, folder: Path) -> tuple[list[tuple[float, str]], float]:
    """Runs a sweep with empty caches; gives the lines of its stderr with their times, and the whole time, in seconds."""
    command = [str(Path(sys.executable).with_name("dpsweep")), "run", space, "--name", "phases"]
    command += ["--storage", str(folder / "storage"), "--cache-dir", str(folder / "cache")]
    lines, began = [], time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as sweep:
        for line in sweep.stderr or ():
            lines.append((time.monotonic() - began, line.rstrip()))
            print(f"{lines[-1][0]:7.1f} {lines[-1][1]}", file=sys.stderr)
    if sweep.returncode:
        raise SystemExit(f"the sweep ended with {sweep.returncode}")
    return lines, time.monotonic() - began


def phases(lines: list[tuple[float, str]], whole_s: float, folder: Path) -> dict[str, Any]:
    """The phases of a run, in seconds and as shares."""
    ends = [(at, match["trial"], float(match["seconds"])) for at, line in lines if (match := ENDED.match(line))]
    begins = {trial: at - seconds for at, trial, seconds in ends}
    searched = [(at, trial) for at, trial, _ in ends if role_of(trial) == "search"]
    if not searched:
        raise SystemExit("no search trial ended with a score: nothing was measured")
    started_s = max((at for at, trial, _ in ends if role_of(trial) == "public start"), default=0.0)
    before_s = max(started_s, min(begins[trial] for _, trial in searched))
    last_s = max(at for at, _, _ in ends)
    by_role: dict[str, float] = defaultdict(float)
    for _, trial, seconds in ends:
        by_role[role_of(trial)] += seconds
    stages = [json.loads(meta.read_text(encoding="utf-8"))["seconds"] for meta in (folder / "cache" / "stages").glob("*/meta.json")]
    total = sum(by_role.values())
    parts = {
        "start_up_and_data": min(begins.values()),
        "public_start": before_s - min(begins.values()),
        "search_and_references": last_s - before_s,
        "report_and_tail": whole_s - last_s,
    }
    return {
        "wall_s": round(whole_s, 1),
        "phases": {name: {"s": round(seconds, 1), "share": round(seconds / whole_s, 3)} for name, seconds in parts.items()},
        "before_the_search_s": round(before_s, 1),
        "to_the_first_score_s": round(searched[0][0], 1),
        "stages_s": sorted(stages),
        "trial_seconds": {role: {"s": round(seconds, 1), "share": round(seconds / total, 3)} for role, seconds in sorted(by_role.items())},
        "busy_frac": round(total / whole_s / (os.cpu_count() or 1), 3),
        "trials": len(ends),
    }


def main() -> int:
    """Runs, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="quick")
    parser.add_argument("--label", default="now", help="name of the entry in the result file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="folder for storage and caches; must be empty (default: a temporary one)")
    options = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="dpsweep-bench-") as temporary:
        folder = options.keep or Path(temporary)
        found = phases(*run(options.space, folder), folder)
    found |= {"load_before": round(load[0], 2), "load_after": round(os.getloadavg()[0], 2), "cores": os.cpu_count()}
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    options.out.write_text(json.dumps({**kept, options.label: found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
