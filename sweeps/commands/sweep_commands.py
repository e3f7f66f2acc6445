"""Commands on a whole sweep: `run`, `resume`, `status`, `ledger`, `report`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.commands import arguments
from sweeps.report.text import number, percent, print_json, render_table

if TYPE_CHECKING:
    from sweeps.api.results import Results
    from sweeps.records.spec import SweepSpec

DRIVER_SILENT_S = 120.0
"""A driver gives a sign of life every five seconds, and may wait three minutes for a locked ledger."""


def add_parsers(commands: Any, *, address: str | None) -> None:
    """Declares the sweep's commands; `address` is the default of `run --address`."""
    _add_run(commands, address)
    resume = commands.add_parser("resume", help="continue an interrupted sweep")
    arguments.add_sweep(resume)
    resume.add_argument(
        "--new-attempt", action="store_true", help="under other packages: open runs go on with fresh noise, and are charged again"
    )
    resume.set_defaults(execute=resume_command)

    status = commands.add_parser("status", help="show how far a sweep is")
    arguments.add_sweep(status)
    arguments.add_json(status)
    status.set_defaults(execute=status_command)

    cancel = commands.add_parser("cancel", help="end a running sweep, or one trial of it")
    arguments.add_sweep(cancel)
    cancel.add_argument("trial", metavar="TRIAL", nargs="?", default=None, help="a running trial; default: the whole sweep")
    cancel.set_defaults(execute=cancel_command)

    ledger = commands.add_parser("ledger", help="show what was promised to the private dataset")
    arguments.add_sweep(ledger)
    how = ledger.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON document")
    how.add_argument("--verify", action="store_true", help="check every line; exit 1 and name the line if something is wrong")
    how.add_argument("--restore", action="store_true", help="write lost lines back from the witness, and a damaged ledger anew")
    how.add_argument("--renew-witness", action="store_true", help="where the witness alone was lost: make it anew, and note that in a line")
    ledger.set_defaults(execute=ledger_command)

    report = commands.add_parser("report", help="write table, figure and price of a sweep")
    arguments.add_sweep(report)
    report.add_argument("--out", metavar="DIR", type=Path, default=None, help="default: report/ in the sweep's folder")
    report.add_argument(
        "--show-sealed",
        action="store_true",
        help="show the sealed ceiling; this is a release without privacy, so the ledger's ε is ∞ from then on",
    )
    report.set_defaults(execute=report_command)


def _add_run(commands: Any, address: str | None) -> None:
    run = commands.add_parser("run", help="sweep a search space")
    run.add_argument("space", metavar="SPACE", help="a preset's name or the path of a space file")
    run.add_argument("--name", metavar="N", type=arguments.sweep_name, default=None, help="default: the space's name")
    run.add_argument("--epsilons", metavar="E,E", type=arguments.epsilon_list, default=None, help="instead of sweep.epsilons")
    run.add_argument(
        "--trials", metavar="N", type=arguments.whole_number(1), default=None, help="per ε, instead of sweep.trials_per_epsilon"
    )
    run.add_argument("--set", metavar="path=value", type=arguments.assignment, action="append", default=[], help="fix a path of the space")
    run.add_argument("--seed", metavar="S", type=arguments.whole_number(0), default=None, help="seed of everything public (default 0)")
    run.add_argument(
        "--address", metavar="auto|HOST:PORT", default=address, help=f"address of a running Ray (default: {address or 'start one here'})"
    )
    run.add_argument(
        "--max-concurrent", metavar="N", type=arguments.whole_number(1), default=None, help="largest number of trials at a time"
    )
    run.add_argument("--cpus-per-trial", metavar="X", type=arguments.positive_number, default=None, help="default 1")
    run.add_argument(
        "--gpus-per-trial", metavar="X", type=arguments.not_negative, default=None, help="default 0; above 0, trials compute on cuda"
    )
    run.add_argument(
        "--max-failures",
        metavar="N",
        type=arguments.whole_number(0),
        default=None,
        help="how often a trial is retried after its worker died (default 2)",
    )
    run.add_argument(
        "--trial-timeout",
        metavar="S",
        type=arguments.positive_number,
        default=None,
        help="a trial that reports nothing for S seconds is ended and retried (default: from the silences so far, 30 min at least)",
    )
    arguments.add_storage(run)
    run.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder of study, key and spool (default: the sweep's folder; a URI needs one)",
    )
    run.add_argument(
        "--tracking-uri", metavar="URI", default=None, help="address of an MLflow server or database (default: SQLite in the storage)"
    )
    run.add_argument(
        "--study-storage", metavar="URL", default=None, help="a database for Optuna's studies (default: a journal in the state)"
    )
    run.add_argument("--ledger", metavar="URL", default=None, help="SQLAlchemy URL of the ledger (default: SQLite in the storage)")
    run.add_argument("--warm-start", metavar="NAME", default=None, help="begin with the best settings of an earlier sweep of this storage")
    run.add_argument("--dry-run", action="store_true", help="print the plan and its price; start nothing, charge nothing")
    arguments.add_places(run)
    run.set_defaults(execute=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Runs a sweep from a search space."""
    from sweeps.api.sweep import plan, run

    spec = build_spec(args)
    if args.dry_run:
        print(plan(spec))
        return 0
    return announce(run(spec))


def build_spec(args: argparse.Namespace) -> SweepSpec:
    """The spec of `run`'s arguments: each option is the flag of its name."""
    from sweeps.api.specs import SweepOptions, new_spec

    options: Any = {name: value for name, value in vars(args).items() if name in SweepOptions.__annotations__}
    return new_spec(args.space, **options)


def resume_command(args: argparse.Namespace) -> int:
    """Continues an interrupted sweep. Nothing is repeated."""
    from sweeps.api.sweep import resume

    return announce(resume(args.name, storage=args.storage, state=args.state, new_attempt=args.new_attempt))


def announce(results: Results) -> int:
    """Prints the report. Exit 1 if the sweep ended before its plan or no private trial finished."""
    print(results.report().text())
    if results.stopped_by is not None:
        print(f"dpsweep: the sweep ended before its plan: {results.stopped_by}", file=sys.stderr)
        return 1
    if results.has_winner:
        return 0
    print(f"dpsweep: no private trial came to its end: {results.failures or 'none was run'}", file=sys.stderr)
    return 1


def report_command(args: argparse.Namespace) -> int:
    """Writes report.md and its figures again and prints the table."""
    from sweeps.api.results import report

    written = report(args.name, storage=args.storage, state=args.state, out=args.out, show_sealed=args.show_sealed)
    print(written)
    print()
    text, *figures = written.files
    print(f"written: {text}, {', '.join(path.name for path in figures)}")
    return 0


def status_command(args: argparse.Namespace) -> int:
    """Shows how far a sweep is, whether its driver is running or not."""
    from sweeps.api.sweep import status
    from sweeps.pricing.duration import span

    document = status(args.name, storage=args.storage, state=args.state)
    if args.json:
        print_json(document)
        return 0
    counts = ("planned", "running", "done", "pruned", "failed")
    rows = [
        [f"{one['epsilon']:g}", "", *[str(one[key]) for key in counts], percent(one["best"]), _leader(one["leader"])]
        for one in document["epsilons"]
    ]
    reason = "" if document["reason"] is None else f": {document['reason']}"
    print(f"sweep {args.name}: {document['state']}{reason}")
    print(render_table(["ε", "", *counts, f"best {document['metric']} %", "leader"], rows))
    planned = document["sweep_epsilon_planned"]
    print(f"sweep ε so far: {number(document['sweep_epsilon'])} of {number(planned)} planned ({document['accounting']})")
    if document["promise"] is not None:
        print(f"counted {document['promise']}")
    for one in document["running"]:
        print(f"running: {one['trial_id']}" + ("" if one["silent_s"] is None else f", last sign of life {span(one['silent_s'])} ago"))
    driver = document["driver"]
    if driver is not None and driver["silent_s"] > DRIVER_SILENT_S:
        print(
            f"the driver (process {driver['pid']} on {driver['host']}) has given no sign of life for {span(driver['silent_s'])}; if it is "
            f"stuck, `dpsweep cancel {args.name}` ends it and `dpsweep resume {args.name}` goes on"
        )
    if document["next"] is not None:
        print(document["next"])
    if document["seconds_left"]:
        print(f"time left: about {span(document['seconds_left'])}, estimated from the trials that have ended")
    return 0


def cancel_command(args: argparse.Namespace) -> int:
    """Ends a running sweep, or one of its trials."""
    from sweeps.api.sweep import cancel

    print(cancel(args.name, args.trial, storage=args.storage, state=args.state))
    return 0


def _leader(leader: dict[str, str] | None) -> str:
    return "" if leader is None else f"{leader['trial_id']} ({leader['method']})"


def ledger_command(args: argparse.Namespace) -> int:
    """Shows the ledger of a sweep: every line of its storage and the sweep's ε; with --verify, checks them."""
    from sweeps.api.ledgers import read_ledger, renew_witness, restore_lines

    where = {"storage": args.storage, "state": args.state}
    if args.restore:
        print(f"{restore_lines(args.name, **where)} lines were written back from the witness")
    if args.renew_witness:
        line = renew_witness(args.name, **where)
        print(f"line {line.number}: {line.outcome}")
    reading = read_ledger(args.name, **where, priced_anew=args.verify)
    if args.json:
        print_json(reading.document())
        return 0
    if not args.verify:
        rows = [
            [
                str(line.number),
                line.kind,
                line.sweep,
                line.trial_id,
                line.dataset,
                "–" if line.event == "note" else number(math.inf if line.epsilon is None else line.epsilon),
                line.outcome or "–",
                line.at,
            ]
            for line in reading.lines
        ]
        print(render_table(["line", "kind", "sweep", "trial", "dataset", "ε", "outcome", "at"], rows))
    for one in reading.totals:
        print(f"all reservations on the dataset: {one.text()}")
    if reading.findings:
        print("no total: the ledger does not verify")
    for finding in reading.findings:
        print(f"dpsweep: {finding}", file=sys.stderr)
    print("verified" if reading.is_sound else f"{len(reading.findings)} findings")
    return 0 if reading.is_sound else 1
