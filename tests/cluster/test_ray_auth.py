"""A Ray of our own asks for a token that is no file of anyone's; a running one is shown the token that is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.ray_runtime.ray_auth import guard_own_ray, has_token


@pytest.fixture(autouse=True)
def _no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # restored afterwards, also where the test sets them
        monkeypatch.delenv(name)


def test_a_token_is_drawn_where_there_is_none(tmp_path: Path) -> None:
    assert not has_token()
    guard_own_ray()
    first = os.environ["RAY_AUTH_TOKEN"]
    assert re.fullmatch("[0-9a-f]{64}", first)
    guard_own_ray()
    assert os.environ["RAY_AUTH_TOKEN"] == first
    assert not list(tmp_path.iterdir())


def test_a_token_that_is_there_stays_and_none_is_drawn_where_the_user_wants_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("theirs")
    guard_own_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ
    (tmp_path / ".ray" / "auth_token").unlink()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    guard_own_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ


OWN_RAY = """
import os, sys
from sweeps.ray_runtime.ray_session import ray_session
from sweeps.records.spec import SweepSpec
from search_spaces.loader import load_space
from dpcore.config import Places
spec = SweepSpec(name="a", space=load_space("quick"), places=Places(data_dir="/d", cache_dir="/c"), storage=sys.argv[1])
spec.state_dir.mkdir(parents=True)
with ray_session(spec):
    import ray
    address = ray.get_runtime_context().gcs_address
    from sweeps.internals.ray_internals import asks_for_token
    print(asks_for_token(), os.environ["RAY_AUTH_TOKEN"] != "")
    code = "import ray; ray.init('" + address + "', logging_level=50)"
    import subprocess
    other = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    print(subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, timeout=400).returncode != 0)
"""


@pytest.mark.slow
def test_a_ray_of_our_own_refuses_who_has_another_token(tmp_path: Path) -> None:
    line = [sys.executable, "-W", "ignore", "-c", OWN_RAY, str(tmp_path / "store")]
    done = subprocess.run(line, env=dict(os.environ), capture_output=True, text=True, timeout=1000, check=False)
    assert done.stdout.split() == ["True"] * 3, done.stdout + done.stderr
    assert not (tmp_path / ".ray").exists()
