"""What every node of a Ray cluster says of itself: asked by one task per node, held against each other by `doctor`."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dpcore.errors import DpsweepError
from sweeps.ledger.database import network_type
from sweeps.storage.bucket import Bucket, is_uri

PACKAGES = ("dpsweep", "ray", "torch", "mlflow", "optuna", "dp-accounting", "numpy", "pyarrow")
MARKER = "marker"
NOT_THE_SAME = "is not the folder that the others see"
ANSWER_WITHIN_S = 120.0
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
FIND_STRANGERS = (
    "import json; from dpsweep.neighbours import changed_files, foreign_packages; print(json.dumps(foreign_packages() or changed_files()))"
)
"""By a process of its own: `dpsweep` stands above this room, and the question is what a fresh process finds."""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One node's answer.

    Attributes:
        node: its address. error: why it did not answer; everything else is then empty.
        versions: package (and python) to version, as installed there.
        ray_gpus: GPUs that Ray hands out there. torch_gpus: GPUs that torch finds there.
        strangers: what was put in the place of dpsweep's own packages there, each with the remedy.
        storage_type: of the network file system that the storage lies on there; None for a local one or a bucket.
        storage_error: why the storage cannot be written or is another one than the asker's; None: it can, and is not.
        free_bytes: of the storage and of the folder of temporary files.
        clock_skew_s: its clock less the asker's. clock_error_s: half the time that the question took, a bound on the skew's error.
    """

    node: str
    error: str | None = None
    versions: dict[str, str]
    ray_gpus: float = 0.0
    torch_gpus: int = 0
    strangers: tuple[str, ...] = ()
    storage_type: str | None = None
    storage_error: str | None = None
    free_bytes: dict[str, int]
    clock_skew_s: float = 0.0
    clock_error_s: float = 0.0


def ask_nodes(folder: Path | str) -> list[NodeFacts]:
    """Asks every living node of the connected Ray.

    Args:
        folder: an empty folder of the storage, by the path or URI that every node is to see; what is written there stays.

    Raises:
        BadInput, Unavailable: it is a bucket that cannot be written from here.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = os.urandom(16).hex()
    _write(folder, MARKER, mark)
    facts = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if not node["Alive"]:
            continue
        here = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}
        try:
            answer = ray.get(ray.remote(describe_node).options(**here).remote(str(folder), mark, node["NodeID"]), timeout=ANSWER_WITHIN_S)
            asked = time.time()
            clock = ray.get(ray.remote(read_clock).options(**here).remote(), timeout=ANSWER_WITHIN_S)
            took = time.time() - asked
        except (RayError, GetTimeoutError) as error:
            reason = str(error).strip().splitlines()[-1]
            facts.append(NodeFacts(node=node["NodeManagerAddress"], error=reason, versions={}, free_bytes={}))
            continue
        unseen = answer["storage_error"] or _unseen(folder, node["NodeID"])
        skew = {"clock_skew_s": clock - asked - took / 2, "clock_error_s": took / 2}
        ray_gpus = float(node["Resources"].get("GPU", 0))
        facts.append(NodeFacts(node=node["NodeManagerAddress"], ray_gpus=ray_gpus, **{**answer, **skew, "storage_error": unseen}))
    return facts


def describe_node(folder: str, mark: str, name: str) -> dict[str, Any]:
    """What a node finds: runs there."""
    places = {Path(os.environ.get("TMPDIR", "/tmp")), *([] if is_uri(folder) else [_existing(Path(folder))])}
    return {
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        "torch_gpus": _torch_gpus(),
        "strangers": _strangers(),
        "storage_type": None if is_uri(folder) else network_type(Path(folder)),
        "storage_error": storage_error(folder, mark, name),
        "free_bytes": {str(place): shutil.disk_usage(place).free for place in places},
    }


def read_clock() -> float:
    """A node's time in seconds: a question so short that its answer is not older than the way back."""
    return time.time()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _torch_gpus() -> int:
    """In a process of its own, since Ray hides the GPUs from a task that asked for none."""
    shown = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COUNT_GPUS], env=shown, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def _strangers() -> tuple[str, ...]:
    """What was put in the place of dpsweep's own packages, with the remedy."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FIND_STRANGERS], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return tuple(json.loads(done.stdout))
    return (f"dpsweep cannot be imported: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}",)


def storage_error(folder: Path | str, mark: str, name: str) -> str | None:
    """Why a folder or bucket is not the asker's, or cannot be written; leaves a file of that name there where it is and can."""
    try:
        if _read(folder, MARKER) != mark:
            return "is another folder of the same name"
        _write(folder, name, mark)
    except FileNotFoundError:
        return NOT_THE_SAME
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    except DpsweepError as error:
        return f"cannot be used ({error})"
    return None


def _unseen(folder: Path | str, name: str) -> str | None:
    try:
        _read(folder, name)
    except FileNotFoundError:
        return NOT_THE_SAME
    return None


def _read(folder: Path | str, name: str) -> str:
    return Bucket.open(str(folder)).read(name).decode() if is_uri(folder) else (Path(folder) / name).read_text(encoding="utf-8")


def _write(folder: Path | str, name: str, text: str) -> None:
    if is_uri(folder):
        Bucket.open(str(folder)).write(name, text.encode())
    else:
        (Path(folder) / name).write_text(text, encoding="utf-8")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
