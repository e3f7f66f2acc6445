"""Everything that a sweep and its libraries wrote is read: the real Ray, MLflow and Optuna, on protected people and on a private
selection, with a Ray of the sweep's own and with one that was running already and keeps its files."""

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from walk_trials import PICTURE

HERE = Path(__file__).parent
RAY = str(Path(sys.executable).parent / "ray")
WITHIN_S = 840
CLOCKS = (b"time_this_iter_s", b"time_total_s", b"time_since_restore", b"last_result_time")
"""Under which names Ray keeps how long a step took."""


@dataclass(frozen=True)
class Walk:
    """A finished sweep, below a root that holds its temporary folder and its home, and what its trials knew."""

    root: Path
    kind: str
    printed: str
    truth: tuple[dict[str, Any], ...]

    @property
    def state(self) -> Path:
        return self.root / "store" / "s"

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """Every file but the datasets' own, with tables unpacked."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.is_symlink() and self.root / "data" not in path.parents:
                yield path, str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()

    def holders(self, *wanted: bytes) -> list[str]:
        """Where any of the byte strings stands."""
        found = [(path, one) for path, content in self.files() for one in wanted if one in content]
        return [f"{path.relative_to(self.root)}: {one[:40]!r}" for path, one in found]


def forms(number: float) -> tuple[bytes, ...]:
    """A number as text and as a table, a pickle and a database keep it."""
    return repr(number)[:12].encode(), struct.pack("<d", number), struct.pack(">d", number)


def environment(root: Path, **more: str) -> dict[str, str]:
    """A home, a temporary folder and a truth of their own. The truth lies outside the walk."""
    (root / "home").mkdir(exist_ok=True)
    (root / "t").mkdir(exist_ok=True)
    own = {
        "HOME": root / "home",
        "TMPDIR": root / "t",
        "RAY_TMPDIR": root / "t",
        "WALK_TRUTH": f"{root}.truth",
        "PYTHONPATH": HERE,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, **{name: str(value) for name, value in own.items()}, "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def begin(root: Path, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    line = [sys.executable, "-W", "ignore", str(HERE / "walk_sweep.py"), str(root), *arguments]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0)


def walk_of(root: Path, kind: str, *, joined: bool) -> Walk:
    env = environment(root, **({"RAY_AUTH_MODE": "disabled"} if joined else {}))
    arguments = [kind]
    if joined:
        port = str(free_port())
        head = ["start", "--head", "--port", port, "--num-cpus", "2", "--temp-dir", str(root / "t" / "ray"), "--include-dashboard=false"]
        subprocess.run([RAY, *head, "--disable-usage-stats"], env=env, check=True, capture_output=True, timeout=300)
        arguments.append(f"127.0.0.1:{port}")
    try:
        process = begin(root, *arguments, env=env)
        printed, _ = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0, printed[-6000:]
    finally:
        if joined:
            stop_head(root / "t" / "ray")
    truth = tuple(json.loads(line) for line in Path(f"{root}.truth").read_text().splitlines())
    return Walk(root=root, kind=kind, printed=printed, truth=truth)


def stop_head(folder: Path) -> None:
    """Ends the processes of the Ray in a folder; each is known by that folder on its command line."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line:
            os.kill(int(process.name), signal.SIGTERM)


@pytest.fixture
def root() -> Iterator[Path]:
    """Short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.truth").unlink(missing_ok=True)


def check_key(walk: Walk) -> None:
    """The sweep key in each of its forms, in no file but its own."""
    text = (walk.state / "sweep.key").read_bytes().strip()
    raw = bytes.fromhex(text.decode())
    found = walk.holders(text, raw, base64.b64encode(raw), base64.urlsafe_b64encode(raw))
    assert {one.partition(":")[0] for one in found} == {"store/s/sweep.key"}


def check_nothing_left(walk: Walk, *, joined: bool) -> None:
    """No folder of Ray's, no clock of a step, nothing in the home."""
    assert not (walk.state / ".ray").exists()
    assert not (walk.state / "ray.json").exists()
    assert not list((walk.root / "t").glob("dpsweep-*"))
    assert walk.holders(*CLOCKS) == []
    assert not list((walk.root / "home").rglob("ray_results"))
    if not joined:
        assert not [path for path in (walk.root / "t").rglob("*") if "ray" in path.name.lower()]


RELEASED = ("cache/accounting/", "data/public/", "data/validation/", "store/mlflow.db", "store/mlartifacts/", "home/")
"""What other users may read after a protected sweep: PUBLIC people, prices, and what MLflow was told."""


def is_open(path: Path, root: Path) -> bool:
    """Whether another user reaches a file: it and every folder above it let them."""
    return all(one.stat().st_mode & 0o077 for one in (path, *path.parents) if one.is_relative_to(root) and one != root)


def check_closed(walk: Walk) -> None:
    """Whatever the umask leaves, nobody else reaches what is not released. Of the caches, those of PUBLIC people alone are open: they
    have 24 and 12 rows, the clinic has 48."""
    found = [path for path, _ in walk.files() if is_open(path, walk.root) and path.stat().st_size]
    names = {str(path.relative_to(walk.root)): path for path in found}
    rest = {name: path for name, path in names.items() if not name.startswith(RELEASED)}
    rows = {name: len(np.load(path, mmap_mode="r")) for name, path in rest.items() if name.endswith(".npy")}
    assert set(rows.values()) == {24, 12}
    folders = {str(Path(name).parent) for name in rows}
    public_stage = {name for name in rest if name.startswith("cache/stages/")}
    assert len({Path(name).parent for name in public_stage}) == 1
    assert [name for name in rest if str(Path(name).parent) not in folders and name not in public_stage] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
def test_on_protected_people_no_file_tells_times_pictures_or_what_is_sealed(root: Path, joined: bool) -> None:
    walk = walk_of(root, "composed", joined=joined)
    assert "e4.3-001 failed ValueError" in walk.printed
    sealed = {value for line in walk.truth for value in line["sealed"].values()}
    assert len(sealed) > 2
    check_key(walk)
    check_nothing_left(walk, joined=joined)
    if not joined:
        check_closed(walk)
    assert PICTURE not in walk.printed
    assert {one.partition(":")[0] for one in walk.holders(PICTURE.encode())} == {"store/s/sealed/errors.txt"}
    holders = {one.partition(":")[0] for value in sealed for one in walk.holders(*forms(value))}
    assert holders <= {"store/s/sealed/ceiling.json"}
    assert not [path for path in (walk.state / "sealed").rglob("*") if path.is_file() and path.stat().st_mode & 0o077]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
def test_of_a_private_selection_no_file_tells_of_a_loser(root: Path, joined: bool) -> None:
    walk = walk_of(root, "selection", joined=joined)
    winner = next(line.split()[0] for line in walk.printed.splitlines() if line.startswith("e1.7-"))
    losers = [line for line in walk.truth if line["trial_id"] != winner]
    assert losers
    check_key(walk)
    check_nothing_left(walk, joined=joined)
    for loser in losers:
        numbers = [*loser["settings"], loser["sealed"]["val/pckh_50"]]
        assert walk.holders(loser["trial_id"].encode(), *(form for number in numbers for form in forms(number))) == []
    assert not any(loser["trial_id"] in walk.printed for loser in losers)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_killed_driver_left_of_ray_is_removed_by_the_next_command(root: Path) -> None:
    env = environment(root)
    process = begin(root, "selection", env=env)
    end = time.monotonic() + WITHIN_S
    while not (root / "store" / "s" / ".ray" / "tune").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)
    process.kill()
    process.communicate()
    around = Path(json.loads((root / "store" / "s" / "ray.json").read_text())["folder"])
    assert around.stat().st_mode & 0o077 == 0
    line = [sys.executable, "-W", "ignore", "-m", "sweeps.cli", "status", "s", "--storage", str(root / "store")]
    subprocess.run(line, env=env, check=True, capture_output=True, timeout=WITHIN_S)
    assert not around.exists()
    assert not (root / "store" / "s" / ".ray").exists()
    assert not (root / "store" / "s" / "ray.json").exists()
