"""`dpsweep doctor`: each check finds what it is for and says what to do, and all of them hold on a Ray that is well."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpcore.errors import BadInput
from sweeps.remote import doctor
from sweeps.remote.node_facts import MARKER, NodeFacts, storage_error
from sweeps.storage.bucket import Bucket

GIB = 2**30
WELL = NodeFacts(
    node="10.0.0.1", versions={"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"}, free_bytes={"/mnt": 50 * GIB, "/tmp": 40 * GIB}
)
OTHER = replace(WELL, node="10.0.0.2")
ROOT = Path(__file__).parents[2]


def states(checks: list[doctor.Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_nodes_that_are_well_pass_every_check() -> None:
    checks = doctor.check_nodes([WELL, OTHER], storage=Path("/mnt"))
    assert states(checks) == dict.fromkeys(("storage", "filesystem", "packages", "versions", "gpus", "clocks", "disk"), "ok")
    assert all(check.remedy is None for check in checks)
    assert doctor.is_healthy(checks)


@pytest.mark.parametrize(
    ("ill", "name", "state", "named"),
    [
        (replace(OTHER, versions={**WELL.versions, "torch": "2.12.0"}), "versions", "fail", "torch 2.13.0 on 10.0.0.1, 2.12.0 on 10.0.0.2"),
        (replace(OTHER, versions={"python": "3.11.7", "ray": "2.60.0"}), "versions", "fail", "torch .*not installed on 10.0.0.2"),
        (replace(OTHER, strangers=("the package sweeps is not dpsweep's own",)), "packages", "fail", "10.0.0.2: the package sweeps"),
        (replace(OTHER, ray_gpus=1), "gpus", "fail", "10.0.0.2: Ray has 1, torch sees 0"),
        (replace(OTHER, torch_gpus=1), "gpus", "warn", "10.0.0.2: Ray has 0, torch sees 1"),
        (replace(OTHER, storage_error="cannot be written (Permission denied)"), "storage", "fail", "/mnt on 10.0.0.2 cannot be written"),
        (replace(OTHER, storage_type="nfs4"), "filesystem", "warn", "nfs4 on 10.0.0.2: the SQLite ledger there keeps no write-ahead log"),
        (replace(OTHER, clock_skew_s=-5.0, clock_error_s=0.5), "clocks", "warn", "10.0.0.2 is off by 4.5 s"),
        (replace(OTHER, clock_skew_s=90.0), "clocks", "fail", "10.0.0.2 is off by 90.0 s"),
        (replace(OTHER, free_bytes={"/tmp": 5 * GIB}), "disk", "warn", "5.0 GiB .*10.0.0.2"),
        (replace(OTHER, free_bytes={"/tmp": GIB // 2}), "disk", "fail", "0.5 GiB .*10.0.0.2"),
        (replace(OTHER, error="ModuleNotFoundError: sweeps"), "node", "fail", "10.0.0.2: ModuleNotFoundError"),
    ],
)
def test_a_node_that_is_not_well_is_named_with_a_remedy(ill: NodeFacts, name: str, state: str, named: str) -> None:
    checks = doctor.check_nodes([WELL, ill], storage=Path("/mnt"))
    found = {check.name: check for check in checks if check.state != "ok"}
    assert found.keys() == {name}
    assert found[name].state == state
    assert re.search(named, found[name].found), found[name].found
    assert found[name].remedy
    assert "→" in found[name].text()
    assert doctor.is_healthy(checks) == (state == "warn")


def test_a_clock_whose_question_took_long_is_not_called_skewed() -> None:
    assert doctor.check_clocks([replace(WELL, clock_skew_s=8.0, clock_error_s=10.0)]).state == "ok"


@pytest.mark.parametrize(
    ("token", "host", "state"), [(True, "10.0.0.1:6379", "ok"), (False, "10.0.0.1:6379", "fail"), (False, "127.0.0.1:6379", "warn")]
)
def test_a_ray_that_anyone_may_use_is_called_so(token: bool, host: str, state: str) -> None:
    assert doctor.judge_auth(token=token, host=host).state == state


@pytest.mark.parametrize("scheme", ["", "file://", "fsspec+local://"])
def test_a_storage_that_is_another_one_there_is_not_shared(scheme: str, tmp_path: Path) -> None:
    storage = f"{scheme}{tmp_path}"
    assert storage_error(storage, "mark", "node") == "is not the folder that the others see"
    (tmp_path / MARKER).write_text("another")
    assert storage_error(storage, "mark", "node") == "is another folder of the same name"
    (tmp_path / MARKER).write_text("mark")
    assert storage_error(storage, "mark", "node") is None
    assert (tmp_path / "node").is_file()


def test_a_bucket_that_does_not_answer_is_a_finding_with_a_remedy() -> None:
    error = storage_error("s3://lab/x?endpoint_override=127.0.0.1:9&scheme=http&region=here", "mark", "node")
    assert error is not None
    assert error.startswith("cannot be used (the storage s3://lab/x?")
    check = doctor.check_storage([replace(WELL, storage_error=error)], "s3://lab/x")
    assert (check.state, check.remedy is not None and "credentials" in check.remedy) == ("fail", True)


def test_the_nodes_meet_in_a_folder_of_the_bucket_that_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def ask(place: str) -> list[NodeFacts]:
        Bucket.open(place).write(MARKER, b"mark")
        seen.append(storage_error(place, "mark", "node"))
        return [WELL]

    monkeypatch.setattr(doctor, "ask_nodes", ask)
    assert doctor._ask(f"file://{tmp_path}") == [WELL]
    assert seen == [None]
    assert list(tmp_path.iterdir()) == []


def test_mlflow_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert [doctor.check_mlflow(uri).state for _ in range(2)] == ["ok", "ok"]
    client = MlflowClient(uri)
    experiment: Any = client.get_experiment_by_name(doctor.EXPERIMENT)
    assert client.search_runs([experiment.experiment_id]) == []
    unreachable = doctor.check_mlflow("http://127.0.0.1:9")
    assert unreachable.state == "fail"
    assert unreachable.remedy


def test_a_launcher_file_is_checked_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = (ROOT / "cluster" / "local.yaml").read_text()
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    (left,) = doctor.check_launcher_file(path)
    assert (left.name, left.state) == ("file", "fail")
    assert "REPLACE_HEAD_IP" in left.found
    for word in ("REPLACE_HEAD_IP", "REPLACE_WORKER_IP", "REPLACE_SSH_USER"):
        text = text.replace(word, "x")
    path.write_text(text)
    assert states(doctor.check_launcher_file(path)) == {"file": "ok", "token": "fail"}
    path.write_text(text + "\nsetup_command: []\n")
    (wrong,) = doctor.check_launcher_file(path)
    assert (wrong.state, "setup_command" in wrong.found) == ("fail", True)
    path.write_text("a: [")
    with pytest.raises(BadInput, match="not YAML"):
        doctor.check_launcher_file(path)
    with pytest.raises(BadInput, match="does not exist"):
        doctor.check_launcher_file(tmp_path / "no.yaml")


def test_a_token_that_others_can_read_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "auth_token"
    path.write_text("t")
    path.chmod(0o644)
    assert doctor.check_token_file(path).state == "fail"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert doctor.check_token_file(path).state == "ok"


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestOnARealHead:
    def test_a_head_that_is_well_passes_and_nothing_is_left(self, ray_head: Any, tmp_path: Path) -> None:
        storage, address = tmp_path / "storage", f"127.0.0.1:{ray_head.port}"
        done = ray_head.dpsweep(
            "doctor", "--address", address, "--storage", storage, "--tracking-uri", f"sqlite:///{tmp_path}/m.db", "--json"
        )
        document = json.loads(done.stdout)
        failed = [check for check in document["checks"] if check["state"] == "fail" and check["name"] != "disk"]
        assert not failed
        assert [check["name"] for check in document["checks"]] == [
            "ray",
            "auth",
            "storage",
            "filesystem",
            "packages",
            "versions",
            "gpus",
            "clocks",
            "disk",
            "mlflow",
        ]
        assert done.returncode == (0 if document["healthy"] else 1)
        assert not storage.exists()

    def test_a_storage_that_cannot_be_written_fails(self, ray_head: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = ray_head.dpsweep("doctor", "--address", f"127.0.0.1:{ray_head.port}", "--storage", tmp_path / "file" / "storage")
        assert done.returncode == 1
        assert "fail  storage" in done.stdout

    def test_without_the_token_it_says_so(self, ray_head: Any, tmp_path: Path) -> None:
        done = ray_head.dpsweep("doctor", "--address", f"127.0.0.1:{ray_head.port}", "--storage", tmp_path, RAY_AUTH_TOKEN="0" * 64)
        assert done.returncode == 1, done.stderr
        assert "fail  ray" in done.stdout
        assert "Traceback" not in done.stderr


def test_an_address_where_nothing_answers_fails_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sweeps.cli import main

    assert main(["doctor", "--address", "127.0.0.1:9", "--storage", str(tmp_path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["checks"][0]["name"] == "ray"
    assert document["checks"][0]["remedy"]
    assert main(["doctor", "--cluster", "x.yaml", "--storage", "relative"]) == 2
    assert os.listdir(tmp_path) == []
