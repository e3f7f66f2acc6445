"""Commands on a whole sweep: `run`, `resume`, `status`, `ledger`, `report`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.report.text import print_json
from sweeps.terminal.lines import counted, show, warn
from sweeps.terminal.screen import redrawn
from sweeps.terminal.working import working

if TYPE_CHECKING:
    from sweeps.api.results import Results
    from sweeps.records.spec import SweepSpec

PRIVATE_PAGE_SAYS = (
    "It shows private pictures, and is for the owner of the data alone: mode 0600, in a folder of mode 0700, sent to no bucket and no "
    "tracker. Whoever gets this file sees these people. Nothing is charged, and no model's claim covers what the page shows."
)
WATCH_EVERY_S = 5.0
"""As often as a driver gives a sign of life."""


def add_parsers(commands: Any, *, address: str | None) -> None:
    """Declares the sweep's commands; `address` is the default of `run --address`."""
    _add_run(commands, address)
    resume = commands.add_parser("resume", **described("resume"))
    arguments.add_sweep(resume)
    resume.add_argument(
        "--new-attempt", action="store_true", help="under other packages: open runs go on with fresh noise, and are charged again"
    )
    arguments.add_notify(resume)
    resume.set_defaults(execute=resume_command)

    status = commands.add_parser("status", **described("status"))
    arguments.add_sweep(status)
    how = status.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again every few seconds, until nothing runs; Ctrl-C ends the look alone")
    arguments.add_json(how)
    status.add_argument(
        "--every", metavar="S", type=arguments.positive_number, default=WATCH_EVERY_S, help="with --watch: seconds between (default 5)"
    )
    status.set_defaults(execute=status_command)

    cancel = commands.add_parser("cancel", **described("cancel"))
    arguments.add_sweep(cancel)
    cancel.add_argument("trial", metavar="TRIAL", nargs="?", default=None, help="a running trial; default: the whole sweep")
    cancel.set_defaults(execute=cancel_command)

    ledger = commands.add_parser("ledger", **described("ledger"))
    arguments.add_sweep(ledger)
    how = ledger.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON document")
    how.add_argument("--lines", action="store_true", help="show every line; without it: who was promised what, and the room that is left")
    how.add_argument("--verify", action="store_true", help="check every line; exit 1 and name the line if something is wrong")
    how.add_argument("--restore", action="store_true", help="write lost lines back from the witness, and a damaged ledger anew")
    how.add_argument("--renew-witness", action="store_true", help="where the witness alone was lost: make it anew, and note that in a line")
    ledger.set_defaults(execute=ledger_command)

    report = commands.add_parser("report", **described("report"))
    arguments.add_sweep(report)
    report.add_argument("--out", metavar="DIR", type=Path, default=None, help="default: report/ in the sweep's folder")
    report.add_argument(
        "--show-sealed",
        action="store_true",
        help="show the sealed ceiling; this is a release without privacy, so the ledger's ε is ∞ from then on",
    )
    report.add_argument(
        "--show-private",
        action="store_true",
        help="write a second page with the winners' predictions on private pictures, for the owner of the data alone (mode 0600)",
    )
    report.set_defaults(execute=report_command)


def _add_run(commands: Any, address: str | None) -> None:
    run = commands.add_parser("run", **described("run"))
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
    run.add_argument("--json", action="store_true", help="with --dry-run: print the plan as one JSON document")
    run.add_argument("--time", action="store_true", help="with --dry-run: time some steps of each method here, on PUBLIC people")
    arguments.add_notify(run)
    arguments.add_places(run)
    run.set_defaults(execute=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Runs a sweep from a search space."""
    from sweeps.api.sweep import plan, run
    from sweeps.remote.notifying import notified

    if args.json and not args.dry_run:
        raise BadInput("--json goes with --dry-run: a sweep's results are `dpsweep status --json` and `dpsweep best --json`")
    if args.time and not args.dry_run:
        raise BadInput("--time goes with --dry-run: a sweep that runs shows how long it still takes")
    spec = build_spec(args)
    if args.dry_run:
        doing = "planning, and timing some steps of each method" if args.time else "planning: calibrating the noise of each ε"
        with working(doing):
            planned = plan(spec, time=args.time)
        if args.json:
            print_json(planned.document())
        else:
            show(str(planned))
        return 0
    with notified(spec.name, args.notify) as ending:
        ending.results = results = run(spec)
    return announce(results)


def build_spec(args: argparse.Namespace) -> SweepSpec:
    """The spec of `run`'s arguments: each option is the flag of its name."""
    from sweeps.api.specs import SweepOptions, new_spec

    options: Any = {name: value for name, value in vars(args).items() if name in SweepOptions.__annotations__}
    return new_spec(args.space, **options)


def resume_command(args: argparse.Namespace) -> int:
    """Continues an interrupted sweep. Nothing is repeated."""
    from sweeps.api.sweep import resume
    from sweeps.remote.notifying import notified

    with notified(args.name, args.notify) as ending:
        ending.results = results = resume(args.name, storage=args.storage, state=args.state, new_attempt=args.new_attempt)
    return announce(results)


def announce(results: Results) -> int:
    """Prints the report. Exit 1 if the sweep ended before its plan or no private trial finished."""
    show(results.report().text())
    if results.stopped_by is not None:
        warn(f"dpsweep: the sweep ended before its plan: {results.stopped_by}")
        return 1
    if results.has_winner:
        return 0
    warn(f"dpsweep: no private trial came to its end: {results.failures or 'none was run'}")
    return 1


def report_command(args: argparse.Namespace) -> int:
    """Writes the report's page, text, figures and tables again and prints the table."""
    from sweeps.api.results import report

    with working("drawing the report"):
        written = report(
            args.name, storage=args.storage, state=args.state, out=args.out, show_sealed=args.show_sealed, show_private=args.show_private
        )
    show(f"{written}\n")
    page, *others = written.files
    show(f"written: {page}, {', '.join(path.name for path in others)}")
    if written.private_page is not None:
        show(f"written: {written.private_page}\n{PRIVATE_PAGE_SAYS}")
    return 0


def status_command(args: argparse.Namespace) -> int:
    """Shows how far a sweep is, whether its driver is running or not."""
    from sweeps.api.sweep import status
    from sweeps.report.overview.standing import standing_text

    def look() -> dict[str, Any]:
        return status(args.name, storage=args.storage, state=args.state)

    if args.watch:
        return watch(look, lambda document: standing_text(args.name, document), every_s=args.every)
    document = look()
    if args.json:
        print_json(document)
    else:
        show(standing_text(args.name, document))
    return 0


def watch(look: Callable[[], dict[str, Any]], text: Callable[[dict[str, Any]], str], *, every_s: float) -> int:
    """Shows what a look gives again and again, until nothing runs: in place on a terminal, else whenever it differs."""
    shown = ""
    with redrawn() as draw:
        while True:
            document = look()
            now = text(document)
            if now != shown:
                draw(now)
            shown = now
            if document["state"] not in ("running", "finishing") or document["driver"] is None:
                return 0
            time.sleep(every_s)


def cancel_command(args: argparse.Namespace) -> int:
    """Ends a running sweep, or one of its trials."""
    from sweeps.api.sweep import cancel

    show(cancel(args.name, args.trial, storage=args.storage, state=args.state))
    return 0


def ledger_command(args: argparse.Namespace) -> int:
    """Shows the ledger of a sweep: every line of its storage and the sweep's ε; with --verify, checks them."""
    from sweeps.api.ledgers import read_ledger, renew_witness, restore_lines

    where = {"storage": args.storage, "state": args.state}
    if args.restore:
        show(f"{counted(restore_lines(args.name, **where), 'line')} written back from the witness")
    if args.renew_witness:
        line = renew_witness(args.name, **where)
        print(f"line {line.number}: {line.outcome}")
    with working("pricing the ledger"):
        reading = read_ledger(args.name, **where, priced_anew=args.verify)
    if args.json:
        print_json(reading.document())
        return 0
    if args.lines:
        print(reading.lines_text())
    elif not args.verify:
        show(reading.summary_text())
    for one in reading.totals:
        show(f"all reservations on the dataset: {one.text()}")
    if reading.findings:
        show("no total: the ledger does not verify")
    for finding in reading.findings:
        warn(f"dpsweep: {finding}")
    show("verified" if reading.is_sound else counted(len(reading.findings), "finding"))
    return 0 if reading.is_sound else 1
