"""Proxy and sealed sweeps by the real commands, with real trials."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli

from sweeps.ledger.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROXY = TINY_SPACE.replace("accounting: composed", "accounting: public_proxy").replace(
    "private: tiny/private,", "private: tiny/private, proxy: tiny/proxy, proxy_examples: 100,"
)
SELECTION = TINY_SPACE.replace("trials_per_epsilon: 3, ", "").replace(
    "accounting: composed", "accounting: private_selection, selection: {mean_trials: 3, shape: 1}"
)


def charges(storage: Path) -> list[str]:
    return [line.trial_id for line in Ledger(f"sqlite:///{storage / 'ledger.sqlite'}").lines() if line.kind == "reserve"]


def test_a_proxy_sweep_charges_nothing_and_its_training_on_the_private_data_does(
    cli: Cli, write_space: Callable[[str], Path], tmp_path: Path
) -> None:
    storage, best, proxy = tmp_path / "storage", tmp_path / "best.yaml", cli.data_dir / "tiny" / "proxy"
    cli.ok("data", "synth", "--domain", "public", "--count", "100", "--seed", "7", "--role", "PUBLIC", "--out", proxy)
    cli.ok("run", write_space(PROXY), "--name", "proxy", "--storage", storage, "--epsilons", "8", timeout_s=1000)
    assert charges(storage) == []
    told = json.loads(cli.ok("best", "proxy", "--epsilon", 8, "--storage", storage, "--out", best, "--json"))
    assert told["epsilon_spent"] in (None, 0.0)
    trained = json.loads(cli.ok("train", best, "--out", tmp_path / "model", "--json"))
    assert 0 < trained["epsilon_spent"] <= 8
    assert charges(storage) == [trained["trial_id"]]
    cli.ok("ledger", "proxy", "--storage", storage, "--verify")


def test_a_sealed_selection_shows_its_winner_and_nobody_else(cli: Cli, write_space: Callable[[str], Path], tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    out = cli.ok("run", write_space(SELECTION), "--name", "sealed", "--storage", storage, "--epsilons", "8", timeout_s=1000)
    assert "mean" in out
    status = json.loads(cli.ok("status", "sealed", "--storage", storage, "--json"))
    assert status["sweep_epsilon"] > 8
    assert len([trial for trial in charges(storage) if not trial.startswith("seed")]) == 1
    told = json.loads(cli.ok("best", "sealed", "--epsilon", 8, "--storage", storage, "--json"))
    with sqlite3.connect(storage / "mlflow.db") as database:
        rows = database.execute("select value from tags where key = 'role'").fetchall()
        keys = database.execute("select value from tags where key = 'trial_id'").fetchall()
    assert sum(role == "search" for (role,) in rows) == 1
    assert told["trial_id"] in {key for (key,) in keys}
    left = sorted(path.name for path in (storage / "sealed" / "checkpoints").iterdir() if path.name.startswith("e8"))
    assert left == [told["trial_id"]]
    cli.ok("ledger", "sealed", "--storage", storage, "--verify")
