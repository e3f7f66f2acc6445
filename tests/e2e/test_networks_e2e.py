"""Sweeps over networks from elsewhere: the documentation's own file, and a network of timm."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from e2e_support import Cli

GUIDE = Path(__file__).parents[2] / "docs" / "networks.md"
SMALLER = {"synthetic/": "tiny/", "4000": "200", "delta: 1.0e-5": "delta: 1.0e-3", "expected_batch_size: 64": "expected_batch_size: 40"}
"""What makes the documentation's space fit the small data of these tests; nothing else of it is changed."""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def small_space(text: str) -> str:
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    return text


def run(cli: Cli, folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """A command as somebody types it in that folder."""
    return subprocess.run([*cli.command, *line], cwd=folder, env=cli.environment, capture_output=True, text=True, timeout=1000, check=False)


def swept(cli: Cli, folder: Path, space: str) -> dict[str, object]:
    """A sweep of three trials; the model.json of its best one."""
    (folder / "own.yaml").write_text(space)
    done = run(cli, folder, "run", "own.yaml", "--name", "own", "--max-concurrent", "1")
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"parameters train \(model\.freeze ft\)", done.stderr)
    assert run(cli, folder, "ledger", "own", "--verify").returncode == 0
    best = json.loads(run(cli, folder, "best", "own", "--epsilon", "8", "--json").stdout)
    assert 0 < best["epsilon_spent"] <= 8
    (model,) = (folder / "sweep_results").rglob(f"{best['trial_id']}/model/model.json")
    document: dict[str, object] = json.loads(model.read_text())
    return document


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_documented_network_is_swept_as_documented(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text(block("python"))
    document = swept(cli, tmp_path, small_space(block("yaml")))
    assert set(document["topology"]["code"]) == {"my_network"}  # type: ignore[index, call-overload]
    (tmp_path / "my_network.py").unlink()
    gone = run(cli, tmp_path, "run", "own.yaml", "--name", "again")
    assert gone.returncode == 2
    assert "my_network must lie in the working directory" in gone.stderr
    assert not (tmp_path / "sweep_results" / "again").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_network_of_timm_is_swept(cli: Cli, tmp_path: Path) -> None:
    space = small_space(block("yaml")).replace(
        '"my_network:build", batch_norm: group_norm', '"timm:mobilenetv3_small_050", batch_norm: frozen'
    )
    document = swept(cli, tmp_path, space)
    assert len(document["topology"]["safety"]["frozen_statistics"]) == 34  # type: ignore[index, call-overload]
