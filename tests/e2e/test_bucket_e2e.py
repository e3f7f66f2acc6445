"""A whole small sweep whose storage is a bucket, and everything that a user does with it afterwards, by real commands."""

import json
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli
from ruamel.yaml import YAML

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_sweep_in_a_bucket_is_run_shown_replayed_trained_and_scored(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(TINY_SPACE)
    storage, state, best = f"fsspec+local://{tmp_path / 'bucket'}", tmp_path / "state", tmp_path / "best.yaml"
    refused = cli("run", tmp_path / "space.yaml", "--name", "small", "--storage", storage)
    assert (refused.returncode, "--state DIR" in refused.stderr) == (2, True)
    out = cli.ok("run", tmp_path / "space.yaml", "--name", "small", "--storage", storage, "--state", state, "--max-concurrent", 2)
    assert f"--storage {storage}" in out
    status = json.loads(cli.ok("status", "small", "--storage", storage, "--json"))
    assert [(e["planned"], e["done"]) for e in status["epsilons"]] == [(3, 3)] * 2
    cli.ok("ledger", "small", "--storage", storage, "--verify")
    told = json.loads(cli.ok("best", "small", "--epsilon", 8, "--storage", storage, "--out", best, "--json"))
    assert YAML(typ="safe").load(best)["origin"]["storage"] == storage
    replayed = json.loads(cli.ok("train", best, "--replay", "--out", tmp_path / "replayed", "--json"))
    assert replayed["pckh_50"] == told["pckh_50"]
    trial = f"{storage}/small/checkpoints/{told['trial_id']}"
    assert json.loads(cli.ok("evaluate", trial, "--data", "tiny/validation", "--json"))["pckh_50"] == told["pckh_50"]
    fresh = json.loads(cli.ok("train", best, "--out", tmp_path / "fresh", "--json"))
    assert fresh["fingerprint"] == told["fingerprint"]
    assert "train small" in cli.ok("ledger", "small", "--storage", storage)
    cli.ok("resume", "small", "--storage", storage)
    cli.ok("report", "small", "--storage", storage)
    assert (tmp_path / "bucket" / "small" / "report" / "report.md").read_bytes() == (state / "small" / "report" / "report.md").read_bytes()
    state.rename(tmp_path / "moved")
    assert json.loads(cli.ok("best", "small", "--epsilon", 8, "--storage", storage, "--json")) == told
    lost = cli("train", best, "--out", tmp_path / "another")
    assert (lost.returncode, "is not on this machine" in lost.stderr) == (1, True)
    cli.ok("status", "small", "--storage", storage, "--state", tmp_path / "moved")
