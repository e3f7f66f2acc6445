"""What looks at a sweep of a thousand trials cost: `dpsweep ledger`, `status`, `list`, and a cold plan of 10,000 trials.

    python benchmarks/bench_looks.py [--trials 1000] [--rounds 5] [--out benchmarks/results/looks.json]

The sweep has studies, ledger, reports and tables as a driver leaves them, of simulated trials over eight ε. Each command runs in a process
of its own, imports included. Processor seconds are counted, which a busy machine changes less than the clock. Prices are in the cache, as a
first look leaves them there; the plan begins with an empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from simulated_space import EPSILONS, space_of

NAME = "bench"
PLAN = ("run", "quick", "--dry-run", "--epsilons", "0.2,0.4,0.6,0.8,1,2,4,8", "--trials", "1250")
PROMISED = {"ledger": 0.7, "status": 0.7, "list": 1.0, "plan": 5.0}
"""Processor seconds, on an idle machine."""


def run_trials(trials: int, folder: Path) -> None:
    """A sweep whose simulated trials have all ended, without Ray and MLflow."""
    from dpcore.config import Places, RuntimeFlags
    from dpcore.train.handout import Handout
    from sweeps.engine.schedule import Schedule
    from sweeps.engine.simulation import run_trial
    from sweeps.ledger.ledger import Ledger
    from sweeps.pricing.plan import dp_accountant, priced
    from sweeps.pricing.reservations import Reservations
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec
    from sweeps.search.terms import terms_of

    places = Places(data_dir=folder / "data", cache_dir=folder / "cache")
    spec = SweepSpec(
        name=NAME,
        space=space_of("random", trials // len(EPSILONS), EPSILONS),
        places=places,
        storage=folder,
        trial_function="sweeps.engine.simulation:run_trial",
        runtime=RuntimeFlags(report_every_steps=10),
    )
    spec.save()
    accountant = dp_accountant(places.cache_dir)
    ledger = Ledger(spec.resolved_ledger_url, witness=spec.ledger_witness)
    reservations = Reservations(spec, ledger, accountant, validation=None, cohort="simulated", key_id="k")
    schedule = Schedule(spec, accountant, reservations, terms=terms_of(spec))
    schedule.restore(key_lost=False)
    while (record := schedule.next()) is not None:
        schedule.started(record.trial_id)
        folder_of = spec.checkpoint_dir(record.trial_id)
        handout = Handout(trial_id=record.trial_id, key=None, places=places, folder=folder_of, plan=record.plan)
        for report in run_trial(record.config, spec.runtime, handout):
            schedule.report(record.trial_id, report)
        schedule.end(record.trial_id)
    results = SweepResults(name=NAME, records=schedule.records, accounting="composed", delta=spec.space.delta, planned=schedule.planned)
    priced(results, ledger, accountant).write_parquet(spec.sweep_dir / "results")
    ledger.close()


def measured(*arguments: str) -> dict[str, float]:
    """Processor seconds and peak memory of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = "import resource, sys; from dpsweep.__main__ import main; code = main(sys.argv[1:]); "
    program += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu_s, 2), "peak_gb": round(int(done.stderr.splitlines()[-1]) / 2**20, 3)}


def cold_plan(folder: Path) -> dict[str, float]:
    """One plan with nothing in the cache."""
    empty = folder / "empty"
    try:
        return measured(*PLAN, "--storage", str(empty / "storage"), "--cache-dir", str(empty / "cache"))
    finally:
        shutil.rmtree(empty, ignore_errors=True)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def main() -> None:
    """Measures, writes the result and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "looks.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"trials": args.trials, "rounds": args.rounds, "promised_cpu_s": PROMISED}
    found |= {"load": round(os.getloadavg()[0], 1), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run_trials(args.trials, folder)
        looks = {"ledger": ("ledger", NAME), "status": ("status", NAME), "list": ("list",)}
        for look, arguments in looks.items():
            seen = [measured(*arguments, "--storage", str(folder)) for _ in range(args.rounds + 1)]
            found[look] = {**medians(seen[1:]), "first_cpu_s": seen[0]["cpu_s"]}
        found["plan"] = medians([cold_plan(folder) for _ in range(args.rounds)])
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
