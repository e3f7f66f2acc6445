"""`submit` sends a sweep to a cluster, `doctor` checks a machine or cluster, and `ui` shows sweeps in MLflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.report.text import print_json

ParseRemote = Callable[[Sequence[str]], argparse.Namespace]

USAGE = "dpsweep submit CLUSTER [--no-wait] -- SPACE [OPTIONS of dpsweep run]  |  dpsweep submit CLUSTER --stop JOB"


def add_parsers(commands: Any, *, parse_remote: ParseRemote) -> None:
    """Declares the commands. `parse_remote` reads the arguments of a job as the head of the cluster will read them."""
    submit = commands.add_parser(
        "submit", help="send a sweep to a Ray cluster", usage=USAGE, epilog="instead of SPACE: `resume NAME --storage DIR`"
    )
    submit.add_argument("cluster", metavar="CLUSTER", help="http://HOST:8265, or the YAML that `ray up` was given")
    submit.add_argument("--no-wait", action="store_true", help="print the job's id and exit; by default the log is followed")
    submit.add_argument("--stop", metavar="JOB", default=None, help="stop a job; its sweep can be resumed")
    submit.set_defaults(execute=partial(submit_command, parse_remote=parse_remote))

    doctor = commands.add_parser(
        "doctor", help="check what would stop a sweep hours later: Ray, GPUs, storage, clocks, MLflow, disk, versions"
    )
    where = doctor.add_mutually_exclusive_group()
    where.add_argument("--cluster", metavar="FILE", type=Path, default=None, help="the YAML that `ray up` was given")
    where.add_argument("--address", metavar="auto|HOST:PORT", default=None, help="address of a running Ray (default: start one here)")
    arguments.add_storage(doctor)
    doctor.add_argument("--tracking-uri", metavar="URI", default=None, help="address of an MLflow server or database")
    arguments.add_json(doctor)
    doctor.set_defaults(execute=doctor_command)

    ui = commands.add_parser("ui", help="serve MLflow's pages over the sweeps of a storage, on this machine only; Ctrl-C ends it")
    arguments.add_storage(ui)
    ui.add_argument("--state", metavar="DIR", type=Path, default=None, help="if the storage is a bucket: the folder of its sweeps' state")
    ui.add_argument("--tracking-uri", metavar="URI", default=None, help="an MLflow server or database (default: SQLite in the storage)")
    ui.add_argument("--port", metavar="N", type=arguments.whole_number(1), default=5000, help="default 5000")
    ui.set_defaults(execute=ui_command)


def submit_command(args: argparse.Namespace, *, parse_remote: ParseRemote) -> int:
    """Sends the working directory and a sweep to a cluster. Its exit code is that of the job."""
    from sweeps.remote.submit import check_arguments, follow, jobs_of, stop, submit
    from sweeps.remote.working_dir import find_working_dir, mebibytes

    if bool(args.after_dashes) == (args.stop is not None):
        raise BadInput(f"expected either a sweep or --stop JOB: {USAGE}")
    if args.stop is not None:
        with jobs_of(args.cluster) as client:
            print(f"{args.stop}: {stop(client, args.stop)}")
        return 0
    working_dir = find_working_dir(Path.cwd())
    check_arguments(args.after_dashes, working_dir, parse=parse_remote)
    working_dir.check_size()
    for line in working_dir.stays:
        print(f"dpsweep: stays here: {line}", file=sys.stderr)
    with jobs_of(args.cluster) as client:
        print(f"dpsweep: sending {len(working_dir.files)} files, {mebibytes(working_dir.size_bytes)}", file=sys.stderr)
        job = submit(client, args.after_dashes, working_dir)
        if args.no_wait:
            print(job)
            return 0
        print(f"dpsweep: job {job}; ctrl-C leaves it running, `dpsweep submit {args.cluster} --stop {job}` ends it", file=sys.stderr)
        return follow(client, job, lambda text: print(text, end="", flush=True))


def doctor_command(args: argparse.Namespace) -> int:
    """Checks everything that a sweep depends on. Exit 1 if something would end it."""
    from sweeps.remote.doctor import document_of, examine, examine_cluster, is_healthy
    from sweeps.storage.bucket import check_uri, is_uri
    from sweeps.tracking.mlflow_connection import take_credentials

    uri = None if args.tracking_uri is None else take_credentials(args.tracking_uri)
    storage = check_uri(args.storage) if is_uri(args.storage) else Path(args.storage)
    if args.cluster is not None:
        checks = examine_cluster(args.cluster, storage=storage, tracking_uri=uri)
    else:
        checks = examine(args.address, storage=storage if is_uri(storage) else Path(storage).absolute(), tracking_uri=uri)
    if args.json:
        print_json(document_of(checks))
    else:
        print("\n".join(check.text() for check in checks))
    return 0 if is_healthy(checks) else 1


def ui_command(args: argparse.Namespace) -> int:
    """Serves MLflow's pages until Ctrl-C. An MLflow server has its own pages, so only its address is printed."""
    from sweeps.storage.bucket import is_uri
    from sweeps.tracking.mlflow_connection import take_credentials
    from sweeps.tracking.ui import show, store_of, study_lines

    if args.state is None and is_uri(args.storage) and args.tracking_uri is None:
        raise BadInput(
            f"--storage {args.storage} is a bucket; the runs of its sweeps are in their state: give --state DIR or --tracking-uri URI"
        )
    storage = args.state if args.state is not None else Path(args.storage)
    uri = store_of(storage) if args.tracking_uri is None else take_credentials(args.tracking_uri)
    for line in study_lines(storage):
        print(line)
    if uri.startswith(("http://", "https://")):
        print(f"MLflow: {uri}")
    else:
        show(uri, port=args.port, say=lambda line: print(line, flush=True))
    return 0
