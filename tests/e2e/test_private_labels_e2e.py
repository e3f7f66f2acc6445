"""A sweep whose labels are private, references included, by the real command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli

pytestmark = pytest.mark.timeout(1200)  # whole sweeps, on machines that others use too

SPACE = TINY_SPACE.replace("trial:\n", "trial:\n  labels: private\n  teacher: {steps: 10, batch_size: 16, min_confidence: 0.2}\n")


@pytest.mark.slow
def test_a_sweep_with_private_labels_ends_with_its_references_and_says_so(
    cli: Cli, write_space: Callable[[str], Path], tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    space = write_space(SPACE.replace("choice: [dpsgd, feature]", "choice: [feature]"))
    out = cli.ok("run", space, "--name", "sealed", "--storage", storage, "--epsilons", "8", timeout_s=1000)
    for word in ("floor", "ceiling", "control"):
        assert word in out
    status = json.loads(cli.ok("status", "sealed", "--storage", storage, "--json"))
    assert [(e["planned"], e["done"], e["failed"]) for e in status["epsilons"]] == [(3, 3, 0)]
    cli.ok("ledger", "sealed", "--storage", storage, "--verify")
    best = tmp_path / "best.yaml"
    told = json.loads(cli.ok("best", "sealed", "--epsilon", 8, "--storage", storage, "--out", best, "--json"))
    replayed = json.loads(cli.ok("train", best, "--replay", "--out", tmp_path / "replayed", "--json"))
    assert replayed["pckh_50"] == told["pckh_50"]


def test_a_dataset_cut_from_labels_is_refused_before_anything_is_written(
    cli: Cli, write_space: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = cli.data_dir / "annotated" / "private"
    cli.ok("data", "synth", "--domain", "private", "--count", "80", "--role", "PRIVATE", "--out", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "crops": "labels"}))
    space = write_space(SPACE.replace("tiny/private", "annotated/private"))
    done = cli("run", space, "--name", "bad", "--storage", tmp_path / "storage")
    assert done.returncode == 2
    assert "labels private: the crops of" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "storage").exists()
