"""python -m dpcore: one trial from a YAML file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpcore.__main__ import main
from dpcore.config import Places, TrialConfig
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import draw_record

Make = Callable[..., TrialConfig]


def test_a_config_file_runs_and_prints_one_json_line_per_report(
    train_places: Places, make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(json.dumps({"config": make_config("public_only").model_dump(mode="json"), "runtime": {"threads": 1}}))
    places = ["--data-dir", str(train_places.data_dir), "--cache-dir", str(train_places.cache_dir)]
    assert main([str(path), *places, "--out", str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["done"] for line in lines] == [True]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["pckh_50"] == lines[0]["metrics"]["val/pckh_50"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method: dpsgd\nmethod: feature\n", "duplicate key"),
        ("!!python/object/apply:os.system [ls]\n", "constructor"),
        ("- 1\n", "expected a mapping"),
        ("methud: dpsgd\n", "did you mean method"),
    ],
)
def test_bad_files_end_with_one_message_and_exit_code_2(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(content)
    assert main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_private_run_on_protected_data_is_refused_where_no_ledger_is_charged(
    make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(json.dumps(make_config("dpsgd").model_dump(mode="json")))
    for name, role, protected in (("public", "PUBLIC", False), ("private", "PRIVATE", True), ("validation", "PUBLIC", False)):
        header = DatasetHeader(name=name, role=role, protected=protected, height_px=64, width_px=64, origin="a test")  # type: ignore[arg-type]
        seed = len(name)
        write_shards(tmp_path / name, [draw_record("public", seed=seed, index=index) for index in range(2)], header=header)
    assert main([str(path), "--data-dir", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]) != 0
    assert "private is protected" in capsys.readouterr().err
