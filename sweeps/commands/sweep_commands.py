"""Commands on a whole sweep: `run`, `resume`, `status`, `ledger`, `report`."""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.commands import arguments
from sweeps.records.spec import DEFAULT_STORAGE
from sweeps.report.text import number, percent, print_json, render_table
from sweeps.storage.bucket import is_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpcore.privacy.accounting import Spending
    from sweeps.pricing.plan import SweepPlan
    from sweeps.pricing.regimes import RegimePrice
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec
    from sweeps.tracking.tracker import Tracker


def add_parsers(commands: Any, *, address: str | None) -> None:
    """Declares the sweep's commands; `address` is the default of `run --address`."""
    _add_run(commands, address)
    resume = commands.add_parser("resume", help="continue an interrupted sweep")
    arguments.add_sweep(resume)
    resume.set_defaults(execute=resume_command)

    status = commands.add_parser("status", help="show how far a sweep is")
    arguments.add_sweep(status)
    arguments.add_json(status)
    status.set_defaults(execute=status_command)

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
    run.add_argument("--seed", metavar="S", type=arguments.whole_number(0), default=0, help="seed of everything public (default 0)")
    run.add_argument(
        "--address", metavar="auto|HOST:PORT", default=address, help=f"address of a running Ray (default: {address or 'start one here'})"
    )
    run.add_argument(
        "--max-concurrent", metavar="N", type=arguments.whole_number(1), default=None, help="largest number of trials at a time"
    )
    run.add_argument("--cpus-per-trial", metavar="X", type=arguments.positive_number, default=1.0)
    run.add_argument("--gpus-per-trial", metavar="X", type=arguments.not_negative, default=0.0)
    run.add_argument(
        "--max-failures",
        metavar="N",
        type=arguments.whole_number(0),
        default=2,
        help="how often a trial is retried after its worker died (default 2)",
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
    spec = build_spec(args)
    if args.warm_start is not None:
        from sweeps.search.warm_start import with_warm_start

        spec = with_warm_start(spec, args.warm_start, say=lambda line: print(line, file=sys.stderr))
    if args.dry_run:
        print_plan(spec)
        return 0
    from sweeps.engine.driver import run_sweep
    from sweeps.tracking.tracker import check_tracking

    if spec.tracking_uri is not None:
        check_tracking(spec.tracking_uri)
    return announce(spec, run_sweep(spec, summarize=partial(summarize, spec)))


def build_spec(args: argparse.Namespace) -> SweepSpec:
    """The spec of `run`'s arguments; touches no file.

    Raises:
        BadInput: a mistake in the space or an argument.
    """
    from dpcore.config import RuntimeFlags, parse_config
    from search_spaces.loader import load_space
    from sweeps.records.spec import SweepSpec
    from sweeps.search.stopping import reporting_flags
    from sweeps.tracking.mlflow_connection import take_credentials

    space = load_space(args.space, assignments=args.set, epsilons=args.epsilons, trials=args.trials)
    device = "cuda" if args.gpus_per_trial > 0 else "cpu"
    return parse_config(
        SweepSpec,
        {
            "name": args.name or space.name,
            "space": space,
            "seed": args.seed,
            "runtime": RuntimeFlags(device=device, threads=max(1, int(args.cpus_per_trial)), **reporting_flags(space)),
            "places": arguments.places_of(args),
            "storage": args.storage,
            "state": _state_of(args),
            "address": args.address,
            "max_concurrent": args.max_concurrent,
            "cpus_per_trial": args.cpus_per_trial,
            "gpus_per_trial": args.gpus_per_trial,
            "max_failures": args.max_failures,
            "tracking_uri": None if args.tracking_uri is None else take_credentials(args.tracking_uri),
            "study_url": args.study_storage,
            "ledger_url": args.ledger,
        },
    )


def _state_of(args: argparse.Namespace) -> Path | None:
    """`--state`. May be left out with a bucket and a ledger in a database: both survive this machine, so a local folder is enough."""
    if args.state is None and args.ledger is not None and is_uri(args.storage):
        return Path(DEFAULT_STORAGE)
    state: Path | None = args.state
    return state


def print_plan(spec: SweepSpec) -> None:
    """Prints trials, noise, steps, price and, if known, time of a sweep that has not begun."""
    from sweeps.engine.driver import plan_of

    plan = plan_of(spec)
    rows = []
    for group in plan.groups:
        spending = group.spending
        noise = ["–", "–", "–", "0"]
        if spending is not None:
            noise = [number(spending.sampling_prob), number(spending.noise_multiplier), str(spending.steps), number(group.price)]
        elif group.spendings:
            noise = [_range(group.spendings, name) for name in ("sampling_prob", "noise_multiplier", "steps")] + ["–"]
        rows.append([f"{group.epsilon:g}", "", f"{group.trials:g}", str(group.reruns), str(group.control), *noise])
    mean = " on average" if spec.space.sweep.regime.is_selection else ""
    print(f"plan of {spec.name}: {plan.trials:g} runs{mean}, {', '.join(plan.references) or 'no references'} once")
    print()
    print(render_table(["ε", "", "trials", "fresh seeds", "controls", "q", "noise multiplier", "steps", "price at this ε"], rows))
    print()
    print(render_table(["accounting", "what it rests on", "sweep ε"], [_price_row(price, plan) for price in plan.prices]))
    print()
    print("\n".join(plan_lines(spec, plan)))


def _range(spendings: Sequence[Spending], name: str) -> str:
    values = [float(getattr(one, name)) for one in spendings]
    return f"{number(min(values))} to {number(max(values))}"


def _price_row(price: RegimePrice, plan: SweepPlan) -> list[str]:
    mark = "→ " if price.accounting == plan.accounting else "  "
    return [f"{mark}{price.accounting}", price.basis, "–" if price.epsilon is None else number(price.epsilon)]


def plan_lines(spec: SweepSpec, plan: SweepPlan) -> list[str]:
    """The totals of the plan: steps, the price (also the one that `unaccounted` hides), the cap, and the time."""
    from sweeps.pricing.duration import estimate_duration
    from sweeps.pricing.validation import validation_line
    from sweeps.search.stopping import plan_stopping, what_stopping_saves

    lines = []
    if all(group.spending is not None for group in plan.groups):
        steps = sum((group.trials + group.reruns) * group.spending.steps for group in plan.groups if group.spending is not None)
        lines.append(f"private steps in all: {steps:g}")
    lines.append(plan.headline)
    if spec.warm_start is not None:
        lines.append(spec.warm_start.text(spec.name))
    trained = ", ".join(f"{number(final)} at ε = {group.epsilon:g}" for final, group in zip(plan.finals, plan.groups, strict=True))
    kept = ", for which the filter keeps room" if plan.basis.filter is not None else " beside this"
    lines.append(f"final training (dpsweep train): {trained}{kept}")
    if plan.composed_epsilon is not None:
        targets = ", ".join(f"{group.epsilon:g}" for group in plan.groups)
        lines.append(
            f"unaccounted shows each trial's own epsilon ({targets}) and hides the {plan.composed_epsilon:.3g} that choosing costs"
        )
    if plan.epsilon_total is not None:
        lines.append(f"cap: epsilon_total {plan.epsilon_total:g}")
    stopping = plan_stopping(spec.space, spec.runtime.report_every_steps)
    if stopping is not None:
        lines.append(what_stopping_saves(stopping, plan.accounting))
    lines.append(validation_line(spec.space, spec.places.cache_dir))
    duration = estimate_duration(spec, plan)
    lines.append("wall time: no earlier run to estimate from" if duration is None else duration.text())
    return lines


def resume_command(args: argparse.Namespace) -> int:
    """Continues an interrupted sweep. Nothing is repeated."""
    from sweeps.engine.driver import resume_sweep

    spec = arguments.spec_of(args)
    return announce(spec, resume_sweep(args.name, args.storage, state=args.state, summarize=partial(summarize, spec)))


def summarize(spec: SweepSpec, results: SweepResults, tracker: Tracker) -> None:
    """Writes the report, curves and contact sheets, and sends them to the tracker while it is open."""
    from sweeps.report.contact_sheet import save_contact_sheets
    from sweeps.report.curves import save_epsilon_curves
    from sweeps.report.report import build_report, write_report

    report = build_report(results, spec=spec)
    folder = spec.sweep_dir / "report"
    figures = (*write_report(report, folder), *save_epsilon_curves(results, folder))
    sheets = save_contact_sheets(results, spec, shown=folder, sealed=spec.state_dir / "sealed")
    for sheet in sheets:
        if sheet.reason is not None:
            print(f"dpsweep: ε = {sheet.epsilon:g}: {sheet.reason}", file=sys.stderr)
    tracker.summary(results, report.markdown(), figures, sheets)


def announce(spec: SweepSpec, results: SweepResults) -> int:
    """Prints the report. Exit 1 if the sweep ended before its plan or no private trial finished."""
    from sweeps.report.report import build_report

    report = build_report(results, spec=spec)
    print(report.text())
    if results.stopped_by is not None:
        print(f"dpsweep: the sweep ended before its plan: {results.stopped_by}", file=sys.stderr)
        return 1
    return 0 if any(one.winner is not None for one in report.comparisons) else 1


def report_command(args: argparse.Namespace) -> int:
    """Writes report.md and its figures again and prints the table."""
    from dataclasses import replace

    from sweeps.pricing.plan import dp_accountant, priced
    from sweeps.pricing.sealed import unseal_ceiling, was_unsealed
    from sweeps.records.charged import open_ledger
    from sweeps.records.publication import REPORT, publish
    from sweeps.records.results import read_results
    from sweeps.report.curves import save_epsilon_curves
    from sweeps.report.report import build_report, write_report

    spec = arguments.spec_of(args)
    results = read_results(spec.sweep_dir)
    if results.composed_epsilon is None:
        results = priced(results, open_ledger(spec, read_only=True), dp_accountant())
    if args.show_sealed:
        results = unseal_ceiling(results, spec)
    if args.show_sealed or (results.of_role("sealed_ceiling") and was_unsealed(spec)):
        results = replace(results, composed_epsilon=math.inf, sweep_epsilon=None)
    report = build_report(results, spec=spec)
    folder = args.out if args.out is not None else spec.sweep_dir / "report"
    figures = (*write_report(report, folder), *save_epsilon_curves(results, folder))
    if args.out is None:
        publish(spec, REPORT)
    print(report.text())
    print()
    print(f"written: {folder / 'report.md'}, {', '.join(path.name for path in figures)}")
    return 0


def status_command(args: argparse.Namespace) -> int:
    """Shows how far a sweep is, whether its driver is running or not."""
    from sweeps.pricing.duration import span
    from sweeps.report.status import sweep_status

    spec = arguments.spec_of(args)
    document = sweep_status(spec)
    if args.json:
        print_json(document)
        return 0
    counts = ("planned", "running", "done", "pruned", "failed")
    rows = [
        [f"{one['epsilon']:g}", "", *[str(one[key]) for key in counts], percent(one["best"]), _leader(one["leader"])]
        for one in document["epsilons"]
    ]
    print(f"sweep {spec.name}: {document['state']}")
    print(render_table(["ε", "", *counts, "best PCKh@0.5 %", "leader"], rows))
    planned = document["sweep_epsilon_planned"]
    print(f"sweep ε so far: {number(document['sweep_epsilon'])} of {number(planned)} planned ({spec.space.sweep.accounting})")
    if document["seconds_left"]:
        print(f"time left: about {span(document['seconds_left'])}, estimated from the trials that have ended")
    return 0


def _leader(leader: dict[str, str] | None) -> str:
    return "" if leader is None else f"{leader['trial_id']} ({leader['method']})"


def ledger_command(args: argparse.Namespace) -> int:
    """Shows the ledger of a sweep: every line of its storage and the sweep's ε; with --verify, checks them."""
    from dataclasses import asdict

    from dpcore.privacy.composition import epsilon_of_charge, price
    from sweeps.ledger.database import file_of
    from sweeps.ledger.restoring import restore
    from sweeps.records.charged import neighbours_of, open_ledger

    spec = arguments.spec_of(args)
    if args.restore:
        written = restore(spec.resolved_ledger_url, (spec.ledger_witness, *neighbours_of(spec)))
        print(f"{written} lines were written back from the witness")
    if args.renew_witness:
        line = open_ledger(spec, must_exist=True).renew_witness()
        print(f"line {line.number}: {line.outcome}")
    ledger = open_ledger(spec, must_exist=True, read_only=file_of(spec.resolved_ledger_url) is not None)
    lines = ledger.lines()
    cohorts = {line.cohort for line in lines if line.sweep == spec.name}
    total = max((ledger.epsilon_total(spec.space.delta, price, cohort=cohort) for cohort in cohorts), default=0.0)
    findings = ledger.verify(epsilon_of_charge)
    if args.json:
        print_json({"lines": [asdict(line) for line in lines], "epsilon_total": total, "verified": not findings})
        return 0
    if not args.verify:
        rows = [
            [
                str(line.number),
                line.kind,
                line.sweep,
                line.trial_id,
                line.dataset,
                number(math.inf if line.epsilon is None else line.epsilon),
                line.outcome or "–",
                line.at,
            ]
            for line in lines
        ]
        print(render_table(["line", "kind", "sweep", "trial", "dataset", "ε", "outcome", "at"], rows))
    print(f"ε of all reservations on the dataset: {number(total)} at δ = {spec.space.delta:.3g}")
    for finding in findings:
        print(f"dpsweep: {finding}", file=sys.stderr)
    print("verified" if not findings else f"{len(findings)} findings")
    return 1 if findings else 0
