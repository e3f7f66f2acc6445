"""Sends a sweep to a Ray cluster through its jobs API, follows its log and gives back its exit code.

The job is `python -m sweeps.run ARGS` in a copy of the working directory, which comes before an installed dpsweep: what
runs is what stands here. Job metadata can be read by everyone who reaches the dashboard, so arguments with a password are
refused, and no environment variable of this machine goes along.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpcore.errors import BadInput, Unavailable
from sweeps.ray_runtime.ray_auth import knock, show_token
from sweeps.remote.working_dir import WorkingDir

DASHBOARD_PORT = 8265
TUNNEL_WITHIN_S = 60.0
ASK_EVERY_S = 1.0
ADDRESS_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")


@contextlib.contextmanager
def jobs_of(cluster: str) -> Iterator[Any]:
    """A client of a cluster's jobs API.

    Args:
        cluster: http(s)://HOST:PORT of its dashboard, or its launcher YAML, to whose head a tunnel is opened.

    Raises:
        BadInput: neither of them. Unavailable: nothing answers, or the token is not the cluster's.
    """
    if cluster.endswith((".yaml", ".yml")):
        if not Path(cluster).is_file():
            raise BadInput(f"{cluster} is not there; expected a launcher YAML or http://HOST:{DASHBOARD_PORT}")
        with _tunnel(Path(cluster)) as port:
            yield _client(f"http://127.0.0.1:{port}", cluster)
        return
    parts = urlsplit(cluster)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"cluster {cluster}: expected http://HOST:{DASHBOARD_PORT} or the launcher YAML of a cluster")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    knock(parts.hostname, port, remedy="is the dashboard forwarded? (kubectl port-forward, ray dashboard, ssh -L)")
    yield _client(cluster, cluster)


def check_arguments(arguments: Sequence[str], working_dir: WorkingDir, *, parse: Callable[[Sequence[str]], argparse.Namespace]) -> None:
    """Finds here what would fail there: mistakes in the space or its options, and paths that mean nothing on the head.

    Args:
        arguments: of `dpsweep run`, or `resume` and its arguments.
        working_dir: what goes along.
        parse: reads the arguments as the head will read them.

    Raises:
        BadInput: a mistake, a relative `--storage` or `--data-dir`, a space file that does not go along, a password.
        SystemExit: 2, argparse's own answer to a wrong option.
    """
    from search_spaces.loader import load_space
    from sweeps.storage.bucket import is_uri

    if any(PASSWORD.search(argument) for argument in arguments):
        raise BadInput(
            "an argument holds a password, which everyone who reaches the cluster's dashboard could read; give it to the cluster: "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or ~/.mlflow/credentials on the head, ~/.pgpass for a database"
        )
    args = parse(arguments)
    if is_uri(args.storage):
        _check_bucket(args)
    for option, value in (
        ("--storage", args.storage),
        ("--data-dir", getattr(args, "data_dir", None)),
        ("--state", getattr(args, "state", None)),
    ):
        given = any(argument.partition("=")[0] == option for argument in arguments)
        if (given or option == "--storage") and "://" not in str(value) and not os.path.isabs(str(value)):
            raise BadInput(f"{option} {value}: a job runs in a folder that is thrown away; give an absolute path that every node sees")
    space = getattr(args, "space", None)
    if space is None or os.path.isabs(space):
        return
    load_space(
        working_dir.folder / space if (working_dir.folder / space).is_file() else space,
        assignments=args.set,
        epsilons=args.epsilons,
        trials=args.trials,
    )
    if (working_dir.folder / space).is_file() and Path(os.path.normpath(space)) not in working_dir.files:
        raise BadInput(
            f"{space} does not go along with the job (hidden, ignored by git, or outside {working_dir.folder}); put it elsewhere"
        )


def _check_bucket(args: argparse.Namespace) -> None:
    from sweeps.storage.bucket import check_uri

    check_uri(args.storage)
    if hasattr(args, "space") and args.state is None:  # `resume` finds it in the bucket
        raise BadInput(f"--storage {args.storage} is a bucket: give --state, the absolute path of a folder that stays, for study and key")


def submit(client: Any, arguments: Sequence[str], working_dir: WorkingDir) -> str:
    """Sends the working directory and starts the job; returns its id.

    Raises:
        Unavailable: the cluster does not take it.
    """
    with tempfile.TemporaryDirectory() as folder, _answers():
        package = Path(folder) / "working_dir.zip"
        working_dir.pack(package)
        return str(client.submit_job(entrypoint=entrypoint(arguments), runtime_env={"working_dir": str(package)}))


def run_there(client: Any, command: Sequence[str]) -> str:
    """Runs a command of the cluster's own dpsweep on the head and returns what it said.

    Raises:
        Unavailable: the cluster does not take it.
    """
    said: list[str] = []
    with _answers():
        job = str(client.submit_job(entrypoint=shlex.join(command)))
    follow(client, job, said.append)
    return "".join(said)


def entrypoint(arguments: Sequence[str]) -> str:
    """The job's shell line. Not `python sweeps/run.py`: that would put sweeps/ itself first on the path of imports."""
    return shlex.join(["python", "-m", "sweeps.run", *arguments])


def follow(client: Any, job: str, write: Callable[[str], None]) -> int:
    """Writes a job's log as it comes, over lost connections, and returns the job's exit code (1 where it was stopped).

    Raises:
        Unavailable: the cluster no longer answers.
    """
    written = 0
    while True:
        with _answers():
            ended = client.get_job_status(job).is_terminal()
            written = asyncio.run(_tail(client, job, write, written))
            if ended:
                info = client.get_job_info(job)
                if str(info.status) == "SUCCEEDED":
                    return 0
                return info.driver_exit_code or 1
        time.sleep(ASK_EVERY_S)


def stop(client: Any, job: str) -> str:
    """Stops a job, waits until it has ended and returns how it ended.

    Raises:
        BadInput: no such job. Unavailable: the cluster does not answer.
    """
    with _answers(job):
        client.stop_job(job)
        while not (status := client.get_job_status(job)).is_terminal():
            time.sleep(ASK_EVERY_S)
    return str(status)


async def _tail(client: Any, job: str, write: Callable[[str], None], skip: int) -> int:
    """Writes the log beyond its first `skip` characters until the connection ends; returns how many it has in all."""
    import aiohttp

    seen = 0
    try:
        async for lines in client.tail_job_logs(job):
            new = lines[max(0, skip - seen) :]
            seen += len(lines)
            if new:
                write(new)
    except (aiohttp.ClientError, RuntimeError) as error:
        if "does not exist" in str(error):
            raise
    return max(seen, skip)


@contextlib.contextmanager
def _answers(job: str | None = None) -> Iterator[None]:
    """Turns what the client raises into our errors."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise Unavailable(
            f"the cluster does not accept this machine's token: {str(error).splitlines()[0]}\n"
            "  copy the cluster's token to ~/.ray/auth_token (mode 0600) or set RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token"
        ) from None
    except (ConnectionError, RuntimeError, requests.exceptions.RequestException) as error:
        if job is not None and "does not exist" in str(error):
            raise BadInput(f"the cluster knows no job {job}") from None
        raise Unavailable(f"the cluster's jobs API: {str(error).splitlines()[0]}") from None


def _client(address: str, named: str) -> Any:
    for variable in ADDRESS_VARIABLES:  # they would replace the address that was asked for
        os.environ.pop(variable, None)
    show_token()
    from ray.job_submission import JobSubmissionClient

    with _answers():
        return JobSubmissionClient(address)


@contextlib.contextmanager
def _tunnel(config: Path) -> Iterator[int]:
    """Forwards a free local port to the dashboard on the loopback of a launcher cluster's head."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    line = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "dashboard",
        str(config),
        "--port",
        str(port),
        "--remote-port",
        str(DASHBOARD_PORT),
    ]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        ssh = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            _wait_for(port, ssh, said, config)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ssh.pid, signal.SIGTERM)
            ssh.wait()


def _wait_for(port: int, ssh: subprocess.Popen[bytes], said: Any, config: Path) -> None:
    end = time.monotonic() + TUNNEL_WITHIN_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if ssh.poll() is not None or time.monotonic() > end:
            said.seek(0)
            last = "\n  ".join(said.read().strip().splitlines()[-5:])
            raise Unavailable(f"no way to the head of {config}; is the cluster up (`ray up {config}`)? What ssh said:\n  {last}")
        time.sleep(0.2)
