"""Checks everything that could end a sweep hours later. Each check gives one line, with a remedy if it fails."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dpcore.durable import made_folders, remove_empty
from dpcore.errors import BadInput, Unavailable
from sweeps.internals.ray_internals import asks_for_token, check_launcher_config
from sweeps.ray_runtime.ray_auth import default_token_path
from sweeps.remote.node_facts import NodeFacts, ask_nodes
from sweeps.storage.bucket import Bucket, below, is_uri

CheckState = Literal["ok", "warn", "fail"]
SKEW_WARN_S, SKEW_FAIL_S = 2.0, 60.0
FREE_WARN_BYTES, FREE_FAIL_BYTES = 10 * 2**30, 2**30
EXPERIMENT = "dpsweep-doctor"
LOOPBACK = re.compile(r"^(127\.|::1|localhost)")


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check. It has a remedy if it is not ok."""

    name: str
    state: CheckState
    found: str
    remedy: str | None = None

    def text(self) -> str:
        """A line for people, with the remedy on the next."""
        line = f"{self.state:<5} {self.name:<10} {self.found}"
        return line if self.remedy is None else f"{line}\n{'':<16} → {self.remedy}"


def examine(address: str | None, *, storage: Path | str, tracking_uri: str | None) -> list[Check]:
    """All checks on a running Ray, or on a Ray that is started here if `address` is None."""
    from sweeps.ray_runtime.ray_session import connected

    checks: list[Check] = []
    try:
        with connected(address):
            checks += [check_ray(address), check_auth()]
            checks += check_nodes(_ask(storage), storage=storage)
    except Unavailable as error:
        checks.append(
            Check(name="ray", state="fail", found=str(error), remedy="start Ray (`ray up`, `ray start --head`) or name another --address")
        )
    if tracking_uri is not None:
        checks.append(check_mlflow(tracking_uri))
    return checks


def examine_cluster(config: Path, *, storage: Path | str, tracking_uri: str | None) -> list[Check]:
    """Checks a launcher file here, then everything on its cluster by a job on the head.

    Raises:
        BadInput: the file does not exist, or the storage is not an absolute path.
    """
    if not is_uri(storage) and not Path(storage).is_absolute():
        raise BadInput(f"--storage {storage}: give an absolute path that every node of the cluster can see")
    from sweeps.remote.submit import jobs_of, run_there

    checks = check_launcher_file(config)
    if any(check.state == "fail" for check in checks):
        return checks
    arguments = ["doctor", "--address", "auto", "--json", "--storage", str(storage)]
    arguments += [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
    try:
        with jobs_of(str(config)) as client:
            said = run_there(client, ["python", "-m", "dpsweep", *arguments])
    except Unavailable as error:
        return [*checks, Check(name="cluster", state="fail", found=str(error), remedy=f"bring it up: ray up {config}")]
    document = re.search(r"^\{$.*?^\}$", said, re.MULTILINE | re.DOTALL)
    if document is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        return [
            *checks,
            Check(name="cluster", state="fail", found=f"doctor on the head said {last}", remedy=f"bring it up to date: ray up {config}"),
        ]
    return [*checks, *(Check(**check) for check in json.loads(document.group(0))["checks"])]


def check_ray(address: str | None) -> Check:
    """The version and address of the connected Ray, and how many nodes it has."""
    import ray

    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    where = ray.get_runtime_context().gcs_address
    started = "" if address is not None else ", started for this check"
    return Check(name="ray", state="ok", found=f"{ray.__version__} at {where}, {nodes} node{'s' if nodes != 1 else ''}{started}")


def check_auth() -> Check:
    """Whether the connected Ray asks who is there."""
    import ray

    host = str(ray.get_runtime_context().gcs_address)
    return judge_auth(token=asks_for_token(), host=host)


def judge_auth(*, token: bool, host: str) -> Check:
    """Checks for a token: without one, Ray runs the code of anyone who can reach it."""
    if token:
        return Check(name="auth", state="ok", found="Ray asks for a token")
    remedy = "make a token (`ray get-auth-token --generate`, mode 0600) and start every node with RAY_AUTH_MODE=token"
    state: CheckState = "warn" if LOOPBACK.match(host) else "fail"
    return Check(name="auth", state=state, found=f"anyone who reaches {host} can run code there", remedy=remedy)


def check_nodes(nodes: Sequence[NodeFacts] | str, *, storage: Path | str) -> list[Check]:
    """All checks from the facts of the nodes. If they could not be asked, `nodes` is a text with the reason."""
    if isinstance(nodes, str):
        return [Check(name="storage", state="fail", found=nodes, remedy="name a folder that can be written: --storage DIR")]
    answered = [node for node in nodes if node.error is None]
    silent = [
        Check(
            name="node",
            state="fail",
            found=f"{node.node}: {node.error}",
            remedy="install dpsweep there (cluster/install.sh), or remove the node",
        )
        for node in nodes
        if node.error is not None
    ]
    judges: tuple[Callable[[Sequence[NodeFacts]], Check], ...] = (
        check_file_system,
        check_packages,
        check_versions,
        check_gpus,
        check_clocks,
        check_disk,
    )
    return [*silent, check_storage(answered, storage), *(judge(answered) for judge in judges)]


def check_storage(nodes: Sequence[NodeFacts], storage: Path | str) -> Check:
    """Checks that every node reads what the driver wrote, and that the driver reads what every node wrote."""
    wrong = [f"{storage} on {node.node} {node.storage_error}" for node in nodes if node.storage_error is not None]
    if wrong:
        remedy = "mount one file system (NFS, EFS, a shared volume) there on every node, writable by Ray's user"
        if is_uri(storage):
            remedy = "give every node the network and the credentials for it (a role, or the client's environment variables)"
        return Check(name="storage", state="fail", found="; ".join(wrong), remedy=remedy)
    kind, many = "bucket" if is_uri(storage) else "folder", "s" if len(nodes) != 1 else ""
    return Check(name="storage", state="ok", found=f"{storage} is one {kind} for {len(nodes)} node{many}, writable")


def check_file_system(nodes: Sequence[NodeFacts]) -> Check:
    """Says where the storage lies on a network file system: SQLite keeps no write-ahead log there, and the locks of several hosts are
    not always kept."""
    found = {node.node: node.storage_type for node in nodes if node.storage_type is not None}
    if not found:
        return Check(name="filesystem", state="ok", found="the storage is a local disk or a bucket")
    shown = ", ".join(f"{kind} on {node}" for node, kind in found.items())
    return Check(
        name="filesystem",
        state="warn",
        found=f"the storage is {shown}: the SQLite ledger there keeps no write-ahead log, and is safe for one host at a time",
        remedy="where several hosts run sweeps at once, keep the ledger on a server: --ledger postgresql+psycopg://HOST/DATABASE",
    )


def check_packages(nodes: Sequence[NodeFacts]) -> Check:
    """Checks that no other project has overwritten one of dpsweep's packages; `pip install sweeps` does that without a word."""
    found = [f"{node.node}: {text}" for node in nodes for text in node.strangers]
    if found:
        remedy = "put dpsweep's own files back on every node that is named, and keep the other project in another environment"
        return Check(name="packages", state="fail", found="; ".join(found), remedy=remedy)
    return Check(name="packages", state="ok", found="sweeps, search_spaces and dpcore are dpsweep's own")


def check_versions(nodes: Sequence[NodeFacts]) -> Check:
    """Checks that all nodes have equal packages. Ray refuses other versions, and a replay elsewhere needs equal arithmetic."""
    differing = []
    for package in dict.fromkeys(name for node in nodes for name in node.versions):
        found = {node.node: node.versions.get(package, "not installed") for node in nodes}
        if len(set(found.values())) > 1 or "not installed" in found.values():
            differing.append(f"{package} " + ", ".join(f"{version} on {node}" for node, version in found.items()))
    if differing:
        remedy = "install the pins of cluster/constraints.txt on every node (cluster/install.sh does), then start Ray again"
        return Check(name="versions", state="fail", found="; ".join(differing), remedy=remedy)
    shown = nodes[0].versions if nodes else {}
    return Check(
        name="versions", state="ok", found=", ".join(f"{name} {shown[name]}" for name in ("python", "ray", "torch") if name in shown)
    )


def check_gpus(nodes: Sequence[NodeFacts]) -> Check:
    """Checks that torch can use the GPUs that Ray hands out."""
    wrong = [f"{node.node}: Ray has {node.ray_gpus:g}, torch sees {node.torch_gpus}" for node in nodes if node.ray_gpus != node.torch_gpus]
    if wrong:
        remedy = "install the CUDA build of torch and a driver for it, or start Ray there with --num-gpus as torch sees them"
        worse = any(node.ray_gpus > node.torch_gpus for node in nodes)
        return Check(name="gpus", state="fail" if worse else "warn", found="; ".join(wrong), remedy=remedy)
    return Check(name="gpus", state="ok", found=f"{sum(node.torch_gpus for node in nodes)} seen by torch and by Ray")


def check_clocks(nodes: Sequence[NodeFacts]) -> Check:
    """Checks the clocks, which date the ledger and order MLflow's points. A skew must exceed the time that the question takes."""
    skews = {node.node: max(0.0, abs(node.clock_skew_s) - node.clock_error_s) for node in nodes}
    worst = max(skews.values(), default=0.0)
    if worst <= SKEW_WARN_S:
        return Check(name="clocks", state="ok", found=f"within {max(worst, 0.1):.1f} s")
    node = max(skews, key=lambda name: skews[name])
    state: CheckState = "fail" if worst > SKEW_FAIL_S else "warn"
    return Check(name="clocks", state=state, found=f"{node} is off by {worst:.1f} s", remedy="run chrony or ntpd on every node")


def check_disk(nodes: Sequence[NodeFacts]) -> Check:
    """Checks that the storage and the folder of temporary files have space for checkpoints and caches."""
    free = [(size, f"{place} on {node.node}") for node in nodes for place, size in node.free_bytes.items()]
    if not free:
        return Check(name="disk", state="fail", found="no node answered", remedy="see the other lines")
    size, place = min(free)
    found = f"{size / 2**30:.1f} GiB free at least ({place})"
    if size >= FREE_WARN_BYTES:
        return Check(name="disk", state="ok", found=found)
    state: CheckState = "fail" if size < FREE_FAIL_BYTES else "warn"
    return Check(name="disk", state=state, found=found, remedy="free some space: `dpsweep data purge` empties caches")


def check_mlflow(uri: str) -> Check:
    """Whether a run can be made, written to and taken away again."""
    from mlflow.exceptions import MlflowException

    from sweeps.tracking.mlflow_connection import connect

    try:
        client = connect(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        run = client.create_run(client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id)
        client.log_metric(run.info.run_id, "written", 1.0)
        client.delete_run(run.info.run_id)
    except (Unavailable, MlflowException) as error:
        remedy = "start the server (cluster/README.md); user and password: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return Check(name="mlflow", state="fail", found=str(error).splitlines()[0], remedy=remedy)
    return Check(name="mlflow", state="ok", found=f"{uri} takes runs")


def check_launcher_file(path: Path) -> list[Check]:
    """Checks a launcher file against Ray's schema, for words that were not replaced, and the token that it copies.

    Raises:
        BadInput: the file does not exist, or it is not YAML.
    """
    from jsonschema import ValidationError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected the YAML for `ray up`")
    text = path.read_text(encoding="utf-8")
    left = sorted(set(re.findall(r"REPLACE_\w+", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))))
    if left:
        return [
            Check(
                name="file", state="fail", found=f"{path} still has {', '.join(left)}", remedy="replace these words by what they describe"
            )
        ]
    try:
        parser = YAML(typ="safe", pure=True)
        parser.version = (1, 1)  # what Ray reads
        config = parser.load(text)
        check_launcher_config(config)
    except YAMLError as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except (ValidationError, ValueError, KeyError) as error:
        return [Check(name="file", state="fail", found=f"{path}: {str(error).splitlines()[0]}", remedy="see Ray's cluster YAML reference")]
    return [Check(name="file", state="ok", found=f"{path} fits Ray's schema"), check_token_file(default_token_path())]


def check_token_file(path: Path) -> Check:
    """Checks the token that the launcher copies to the nodes: it exists, and only its owner can read it."""
    make = f"(umask 077; ray get-auth-token --generate > /dev/null)  # writes {path}"
    if not path.is_file():
        return Check(name="token", state="fail", found=f"there is no {path}", remedy=make)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Check(name="token", state="fail", found=f"other users can read {path}", remedy=f"chmod 600 {path}")
    return Check(name="token", state="ok", found=f"only its owner can read {path}")


def is_healthy(checks: Sequence[Check]) -> bool:
    """Whether no check failed."""
    return all(check.state != "fail" for check in checks)


def document_of(checks: Sequence[Check]) -> dict[str, Any]:
    """What `--json` prints."""
    return {"healthy": is_healthy(checks), "checks": [asdict(check) for check in checks]}


def _ask(storage: Path | str) -> list[NodeFacts] | str:
    """Asks the nodes with a folder in the storage, and removes it; the storage too, where it was not there and is empty."""
    if is_uri(storage):
        return _ask_in_bucket(str(storage))
    storage = Path(storage)
    made: list[Path] = []
    try:
        made = made_folders(storage)
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=storage))
    except OSError as error:
        remove_empty(made)
        return f"{storage} cannot be written: {error.strerror}"
    try:
        os.chmod(folder, 0o777)  # Ray's user on another node may be another one
        return ask_nodes(folder)
    finally:
        shutil.rmtree(folder)
        remove_empty(made)


def _ask_in_bucket(uri: str) -> list[NodeFacts] | str:
    place = below(uri, f".doctor-{secrets.token_hex(8)}")
    try:
        bucket = Bucket.open(place)
        try:
            return ask_nodes(place)
        finally:
            bucket.remove()
    except (BadInput, Unavailable) as error:
        return str(error)
