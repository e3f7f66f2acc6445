"""`dpsweep audit`: attacks a trial's claim with synthetic canaries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from sweeps.commands import arguments
from sweeps.report.text import number, print_json, render_table
from sweeps.terminal.lines import warn
from sweeps.terminal.working import working

KINDS: tuple[Literal["mechanism", "trainer", "repeated"], ...] = ("mechanism", "trainer", "repeated")
_REPORTED_SHARE = 0.1


def add_parsers(commands: Any) -> None:
    """Declares `audit`."""
    audit = commands.add_parser("audit", help="attack a trial's claim with synthetic canaries", description=audit_command.__doc__)
    audit.add_argument("config", metavar="CONFIG", type=Path, help="best.yaml, or the YAML of one trial")
    audit.add_argument(
        "--audit",
        metavar="KIND",
        choices=(*KINDS, "all"),
        action="append",
        help="mechanism, trainer, repeated or all; may be given more than once (default: mechanism and trainer)",
    )
    audit.add_argument(
        "--canaries", metavar="N", type=arguments.whole_number(1), default=300_000, help="observations of the mechanism (default 300000)"
    )
    audit.add_argument(
        "--trainer-canaries", metavar="N", type=arguments.whole_number(1), default=5000, help="canaries in the training run (default 5000)"
    )
    audit.add_argument("--runs", metavar="N", type=arguments.whole_number(1), default=600, help="repeated tiny runs (default 600)")
    audit.add_argument(
        "--confidence", metavar="P", type=arguments.delta, default=0.9999, help="confidence of a refutation (default 0.9999)"
    )
    audit.add_argument(
        "--cache-dir", metavar="DIR", type=Path, default=None, help="folder that stores calibrations (default: they are computed again)"
    )
    arguments.add_json(audit)
    audit.set_defaults(execute=audit_command)


def audit_command(args: argparse.Namespace) -> int:
    """Attacks the claim of a trial and prints the ε that the attacks refute. Exit 0 if the claim stands, 1 if it is violated.

    Only synthetic canaries are used: no data are read and no ledger is charged. A check that refutes the claim is repeated with four
    times the canaries before it counts.
    """
    from dpcore.__main__ import read_trial
    from dpcore.audit.verdict import DEFAULT_KINDS, AuditRequest, run_audit

    config, runtime = read_trial(args.config)
    asked = args.audit or DEFAULT_KINDS
    request = AuditRequest(
        config=config,
        runtime=runtime,
        kinds=tuple(kind for kind in KINDS if kind in asked or "all" in asked),
        canaries={"mechanism": args.canaries, "trainer": args.trainer_canaries, "repeated": args.runs},
        confidence=args.confidence,
        cache_dir=args.cache_dir,
    )
    with working("auditing"):
        report = run_audit(request, _Progress())
    if args.json:
        print_json(report.document())
    else:
        rows = [[f.check, f.proof, f"{f.canaries}", number(f.epsilon), number(f.bound), _word(f.violated)] for f in report.findings]
        print(render_table(["audit", "bound by", "n", "claimed ε", "refuted ε", "verdict"], rows))
        print(f"{_word(report.violated)}: ε = {number(report.epsilon)} claimed at δ = {report.delta:.3g}, ", end="")
        print(f"ε ≥ {number(report.epsilon_lower)} shown at confidence {report.confidence:g}. Synthetic canaries: nothing is charged.")
    return 1 if report.violated else 0


def _word(violated: bool) -> str:
    return "violated" if violated else "consistent"


class _Progress:
    """One line on stderr per tenth of a check."""

    def __init__(self) -> None:
        self._shown = ("", 0.0)

    def __call__(self, name: str, share: float) -> None:
        before, shown = self._shown
        if name != before:
            shown = 0.0
        if share >= 1.0 or share >= shown + _REPORTED_SHARE:
            warn(f"audit: {name} {100 * share:.0f} %")
            shown = share
        self._shown = (name, shown)
