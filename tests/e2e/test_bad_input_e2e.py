"""Bad input: one clear message on stderr, the promised exit code, no traceback, nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli

pytestmark = pytest.mark.timeout(1200)  # whole sweeps, on machines that others use too

REPLACEMENTS: dict[str, tuple[str, str, str]] = {
    "unknown key": ("trials_per_epsilon", "trials_per_epsilom", "trials_per_epsilon"),
    "rank above the public examples": (
        "search:\n  method: {choice: [dpsgd, feature]}",
        "search:\n  subspace.rank: {choice: [9999], when: {method: projected}}\n  method: {choice: [projected, feature]}",
        "9999",
    ),
    "epsilon zero": ("epsilons: [2, 8]", "epsilons: [0, 8]", "epsilon"),
    "epsilon below zero": ("epsilons: [2, 8]", "epsilons: [-1, 8]", "epsilon"),
    "epsilon NaN": ("epsilons: [2, 8]", "epsilons: [.nan, 8]", "epsilon"),
    "bounds reversed": ("float: [0.1, 1.0]", "float: [1.0, 0.1]", "clip_norm"),
    "log from zero": ("float: [0.1, 1.0]", "float: [0.0, 1.0]", "clip_norm"),
    "a tag that would run code": ("sampler: random", "sampler: !!python/object/apply:os.system [true]", "tag"),
    "duplicate key": ("sampler: random", "sampler: random, sampler: tpe", "sampler"),
    "missing data folder": ("tiny/private", "nowhere/private", "nowhere/private"),
    "unknown split": ("choice: [pixels_8]", "choice: [pixels_9]", "pixels_9"),
}


@pytest.mark.parametrize("mistake", REPLACEMENTS)
def test_a_wrong_space_is_refused_by_name_and_leaves_nothing(
    mistake: str, cli: Cli, write_space: Callable[[str], Path], tmp_path: Path
) -> None:
    old, new, named = REPLACEMENTS[mistake]
    assert old in TINY_SPACE
    space, storage = write_space(TINY_SPACE.replace(old, new)), tmp_path / "storage"
    done = cli("run", space, "--name", "bad", "--storage", storage)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not storage.exists() or not list(storage.iterdir())


def test_a_missing_space_and_an_unknown_preset_are_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "quikc", "--storage", tmp_path / "storage")
    assert done.returncode == 2
    assert "quick" in done.stderr
    assert not (tmp_path / "storage").exists()


def test_a_corrupt_shard_is_refused_and_named(cli: Cli, write_space: Callable[[str], Path], tmp_path: Path) -> None:
    folder = cli.data_dir / "torn" / "private"
    cli.ok("data", "synth", "--domain", "private", "--count", "8", "--role", "PRIVATE", "--out", folder)
    shard = next(p for p in sorted(folder.iterdir()) if p.suffix == ".arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    done = cli("run", write_space(TINY_SPACE.replace("tiny/private", "torn/private")), "--storage", tmp_path / "storage")
    assert done.returncode == 2
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "storage").exists()


def test_an_unreachable_ray_address_exits_1_and_leaves_nothing(cli: Cli, write_space: Callable[[str], Path], tmp_path: Path) -> None:
    done = cli("run", write_space(TINY_SPACE), "--name", "far", "--storage", tmp_path / "storage", "--address", "127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "storage" / "far").exists()


def test_an_unreachable_mlflow_uri_exits_1_and_leaves_nothing(cli: Cli, write_space: Callable[[str], Path], tmp_path: Path) -> None:
    done = cli("run", write_space(TINY_SPACE), "--name", "far", "--storage", tmp_path / "storage", "--tracking-uri", "http://127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "storage" / "far").exists()
