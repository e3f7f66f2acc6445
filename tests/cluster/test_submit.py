"""Sweeps sent to a real Ray head through its jobs API, and what is refused before anything is sent."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from e2e_support import TINY_SPACE

from dpcore.errors import BadInput
from sweeps.cli import parse_remote
from sweeps.remote.submit import check_arguments, entrypoint
from sweeps.remote.working_dir import WorkingDir, find_working_dir


@pytest.fixture
def working_dir(tmp_path: Path) -> WorkingDir:
    (tmp_path / "space.yaml").write_text(TINY_SPACE)
    (tmp_path / ".hidden.yaml").write_text(TINY_SPACE)
    return find_working_dir(tmp_path)


def test_arguments_reach_the_jobs_shell_whole() -> None:
    line = entrypoint(["my space.yaml", "--set", "split=$(rm -rf ~)", "--name", "a;b"])
    assert line == "python -m sweeps.run 'my space.yaml' --set 'split=$(rm -rf ~)' --name 'a;b'"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["space.yaml"], "--storage"),
        (["space.yaml", "--storage", "here"], "--storage"),
        (["space.yaml", "--storage", "/s", "--data-dir", "data"], "--data-dir"),
        (["space.yaml", "--storage", "/s", "--data-dir=data"], "--data-dir"),
        (["space.yaml", "--storage", "/s", "--state", "x"], "--state"),
        (["resume", "a"], "--storage"),
        ([".hidden.yaml", "--storage", "/s"], "does not go along"),
        (["../space.yaml", "--storage", "/s"], "space.yaml"),
        (["space.yaml", "--storage", "/s", "--set", "clip_nrom=1"], "clip_nrom"),
        (["space.yaml", "--storage", "/s", "--tracking-uri", "http://me:hidden-word@host:5000"], "password"),
        (["space.yaml", "--storage", "/s", "--ledger=postgresql://me:hidden-word@host/db"], "password"),
        (["space.yaml", "--storage", "s3://lab/x?secret_key=hidden-word", "--state", "/s"], "environment"),
        (["space.yaml", "--storage", "s3://lab/x", "--ledger", "postgresql://host/db"], "--state"),
        (["space.yaml", "--storage", "s3://lab/x", "--state", "relative"], "--state relative"),
    ],
)
def test_what_would_fail_there_is_refused_here(arguments: list[str], named: str, working_dir: WorkingDir) -> None:
    with pytest.raises(BadInput, match=named) as refused:
        check_arguments(arguments, working_dir, parse=parse_remote)
    assert "hidden-word" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["space.yaml", "--storage", "/s"],
        ["quick", "--storage", "/s"],
        ["resume", "a", "--storage", "/s"],
        ["quick", "--storage", "s3://lab/x", "--state", "/s"],
        ["resume", "a", "--storage", "s3://lab/x"],
        ["/mnt/a.yaml", "--storage", "/s"],
    ],
)
def test_what_the_head_understands_is_sent(arguments: list[str], working_dir: WorkingDir) -> None:
    check_arguments(arguments, working_dir, parse=parse_remote)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestOnARealHead:
    def test_a_sweep_runs_there_and_its_log_and_exit_code_come_back(
        self, ray_head: Any, small_data: Path, tiniest_space: str, tmp_path: Path
    ) -> None:
        storage, folder = tmp_path / "storage", tmp_path / "folder"
        folder.mkdir()
        (folder / "space.yaml").write_text(tiniest_space)
        sweep = ["space.yaml", "--name", "sent", "--storage", storage, "--data-dir", small_data]
        done = ray_head.dpsweep("submit", ray_head.url, "--", *sweep, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"sending \d+ files, [\d.]+ MiB", done.stderr)
        assert "PCKh" in done.stdout
        status = json.loads(ray_head.dpsweep("status", "sent", "--storage", storage, "--json").stdout)
        assert [(e["planned"], e["done"]) for e in status["epsilons"]] == [(2, 2)]
        again = ray_head.dpsweep("submit", ray_head.url, "--", "resume", "sent", "--storage", storage)
        assert again.returncode == 0, again.stdout + again.stderr
        self.check_that_the_key_is_nowhere(ray_head, storage / "sent" / "sweep.key")

    def check_that_the_key_is_nowhere(self, ray_head: Any, key: Path) -> None:
        """In no log, package or runtime environment of the session, and in nothing that the jobs API tells."""
        secret = key.read_text().strip()
        assert len(secret) >= 32
        for path in (Path("/tmp") / f"dpsweep-head-{ray_head.port}").rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert secret.encode() not in path.read_bytes(), path
        asked = urllib.request.Request(
            f"{ray_head.url}/api/jobs/", headers={"Authorization": f"Bearer {ray_head.environment['RAY_AUTH_TOKEN']}"}
        )
        with urllib.request.urlopen(asked, timeout=300) as answer:
            told = answer.read().decode()
        assert "sweeps.run" in told
        assert secret not in told
        assert ray_head.environment["RAY_AUTH_TOKEN"] not in told

    def test_a_failing_job_gives_its_exit_code(self, ray_head: Any, tmp_path: Path) -> None:
        done = ray_head.dpsweep("submit", ray_head.url, "--", "quick", "--storage", tmp_path, "--set", "data.private=no/where")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "no/where" in done.stdout

    def test_a_job_is_left_running_and_stopped(self, ray_head: Any, tmp_path: Path) -> None:
        done = ray_head.dpsweep("submit", ray_head.url, "--no-wait", "--", "quick", "--name", "stopped", "--storage", tmp_path / "s")
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        time.sleep(5)
        stopped = ray_head.dpsweep("submit", ray_head.url, "--stop", job)
        assert (stopped.returncode, stopped.stdout) == (0, f"{job}: STOPPED\n"), stopped.stderr
        unknown = ray_head.dpsweep("submit", ray_head.url, "--stop", "no_such_job")
        assert unknown.returncode == 2
        assert "no_such_job" in unknown.stderr

    def test_a_wrong_token_is_refused_clearly(self, ray_head: Any, tmp_path: Path) -> None:
        done = ray_head.dpsweep("submit", ray_head.url, "--", "quick", "--storage", tmp_path, RAY_AUTH_TOKEN="0" * 64)
        assert done.returncode == 1
        assert "token" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_address_where_nothing_answers_exits_1_and_a_wrong_one_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.cli import main

    (tmp_path / "space.yaml").write_text(TINY_SPACE)
    monkeypatch.chdir(tmp_path)
    sweep = ["--", "space.yaml", "--storage", "/s"]
    assert main(["submit", "http://127.0.0.1:9", *sweep]) == 1
    assert main(["submit", "127.0.0.1:9", *sweep]) == 2
    assert main(["submit", "no.yaml", *sweep]) == 2
    assert main(["submit", "http://127.0.0.1:9"]) == 2
    assert "Traceback" not in capsys.readouterr().err
