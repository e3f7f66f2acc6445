"""Audits of our own claims and of broken ones: what is refuted at which confidence.

    python benchmarks/audits.py [--part mechanism|trainer|repeated] [--resume] [--out benchmarks/results/audits]

(a) every private method at ε .8 and 4, honest and with .8 and .5 of its noise, full batch and Poisson sampling; (b) and (c)
every method at ε = 4, honest. Keys are fresh and no seed is frozen: figures move a little from run to run. An hour on one thread.
`--part` makes one part again and keeps the others' rows, `--resume` keeps all rows that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from dpcore.audit.verdict import AuditKind, AuditReport, AuditRequest, run_audit
from dpcore.config import RuntimeFlags, TrialConfig, parse_config
from dpcore.privacy import mechanism as mechanism_module

METHODS = ("dpsgd", "projected", "feature", "feature_projected")
EPSILONS = (0.8, 4.0)
NOISE = (1.0, 0.8, 0.5)
CANARIES = {0.8: 400_000, 4.0: 300_000}
PARTS: tuple[AuditKind, ...] = ("mechanism", "trainer", "repeated")
HEADER = """# What the audits refute

Every private method through `dpsweep audit`'s own checks; `python benchmarks/audits.py` makes this table, with fresh keys each time.
Confidence 1 − 1e-4 over the checks of a row's claim (Bonferroni). An honest check that refuted its claim would have been made again
with four times the canaries, as the command does; those of broken mechanisms were made once. "noise" is the factor by
which the added noise was multiplied behind the audit's back. δ = 1e-5. Mechanism: q = .25, 4 steps (Poisson) and q = 1, 2 steps;
trainer: 300 steps; repeated: 8 steps. An honest mechanism must stay at or below its claim; the closer it comes, the less a
broken one could hide. The search for the refuted ε ends at half the claimed noise. The trainer's bound holds for any mechanism and is
weak for it; 600 repeated runs prove something only where a release hides next to nothing.
"""


def config_of(method: str, epsilon: float) -> TrialConfig:
    values: dict[str, Any] = {
        "method": method,
        "data": {"private": "none", "public": "none", "validation": "none", "nominal_examples": 1000},
        "stages": {"private": {"steps": 4, "expected_batch_size": 250}},
        "epsilon": epsilon,
        "delta": 1e-5,
        "clip_norm": 0.3,
    }
    if "feature" in method:
        values |= {"split": {"name": "half", "transform": "downsample", "factor": 2}, "public_weight": 0.7}
    if "projected" in method:
        values |= {"subspace": {"rank": 64, "examples": 64}}
    return parse_config(TrialConfig, values)


@contextmanager
def noise_multiplied(factor: float) -> Iterator[None]:
    """The mechanism adds `factor` times its noise, and neither it nor the audit knows."""
    honest: Callable[..., Any] = mechanism_module.add_noise

    def scaled(bounded: Any, *, noise_multiplier: float, stream: Any) -> Any:
        return honest(bounded, noise_multiplier=factor * noise_multiplier, stream=stream)

    with patch.object(mechanism_module, "add_noise", scaled):
        yield


def audited(kind: AuditKind, method: str, *, epsilon: float, factor: float, cache_dir: Path) -> list[dict[str, Any]]:
    """The findings of one kind of audit on one claim, as rows."""
    few = factor == 0.5  # half the noise shows in a fraction of the canaries
    canaries: dict[AuditKind, int] = {"mechanism": CANARIES[epsilon] // (6 if few else 1), "trainer": 5000, "repeated": 600}
    request = AuditRequest(
        config=config_of(method, epsilon),
        runtime=RuntimeFlags(),
        kinds=(kind,),
        canaries=canaries,
        cache_dir=cache_dir,
        doubt_red=factor == 1.0,
    )
    began = time.perf_counter()
    with noise_multiplied(factor):
        report: AuditReport = run_audit(request, lambda name, share: None)
    seconds = round(time.perf_counter() - began, 1)
    return [
        {"method": method, "noise": factor, "target": epsilon, **finding.document(), "seconds_of_row": seconds}
        for finding in report.findings
    ]


def rows_of(kind: AuditKind, known: list[dict[str, Any]], cache_dir: Path) -> Iterator[list[dict[str, Any]]]:
    """All rows of one part that are not known, claim by claim."""
    there = {(row["kind"], row["target"], row["method"], row["noise"]) for row in known}
    for epsilon in EPSILONS if kind == "mechanism" else (4.0,):
        for method in METHODS:
            for factor in NOISE if kind == "mechanism" else (1.0,):
                if (kind, epsilon, method, factor) in there:
                    continue
                rows = audited(kind, method, epsilon=epsilon, factor=factor, cache_dir=cache_dir)
                for row in rows:
                    print(f"{row['check']:28} ε {epsilon:<4g} {method:18} noise ×{factor:<4g} refuted {row['bound']:.3f}", flush=True)
                yield rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [HEADER, "| check | method | claimed ε | noise | n | refuted ε | of the claim | verdict |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        share = f"{100 * row['bound'] / row['epsilon']:.0f} %"
        cells = [row["check"], row["method"], f"{row['epsilon']:.2f}", f"×{row['noise']:g}", f"{row['n']:,}", f"{row['bound']:.2f}"]
        lines.append("| " + " | ".join([*cells, share, row["verdict"]]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default=None)
    parser.add_argument("--resume", action="store_true", help="make only the rows that are missing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "audits")
    parser.add_argument("--cache-dir", type=Path, default=None, help="remembers calibrations")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "audits.json"
    known: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for kind in PARTS if args.part is None else (args.part,):
        known = [row for row in known if args.resume or row["kind"] != kind]
        for rows in rows_of(kind, known, args.cache_dir):
            known += rows
            ordered = sorted(known, key=lambda row: PARTS.index(row["kind"]))
            path.write_text(json.dumps(ordered, indent=1) + "\n")
            (args.out / "README.md").write_text(markdown(ordered))


if __name__ == "__main__":
    main()
