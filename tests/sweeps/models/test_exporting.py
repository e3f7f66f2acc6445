"""A folder that a model leaves in stands alone, carries its claim in every part, and holds nothing of the sweep."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dpcore.durable import read_json
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.train.header import read_header
from dpcore.train.saved import load_model
from sweeps.cli import main
from sweeps.models.claims import load_claim, warning_about
from sweeps.models.exporting import export_folder


def test_an_export_loads_alone_with_its_claim_in_the_weights_too(claimed_model: Path, tmp_path: Path) -> None:
    made = load_claim(claimed_model)
    (claimed_model / "notes.txt").write_text("private")
    assert export_folder(claimed_model.parent, tmp_path / "out") == made
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "claim.json", "model.json", "model.safetensors"]
    shutil.rmtree(claimed_model)
    assert load_claim(tmp_path / "out") == made
    assert json.loads(read_header(tmp_path / "out" / "model.safetensors").texts["claim"]) == made.model_dump(mode="json")
    assert load_model(tmp_path / "out").config.method == "dpsgd"


def test_an_export_tells_the_released_result_and_no_metric_time_or_machine(claimed_model: Path, tmp_path: Path) -> None:
    export_folder(claimed_model, tmp_path / "out")
    assert read_json(tmp_path / "out" / "model.json")["meta"] == {
        "method": "dpsgd", "trial_id": "e0.5-003", "pckh_50": 0.4137, "pckh_10": None,
    }  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        for words in (b"train/loss", b"seconds", b"threads"):
            assert words not in path.read_bytes()


def test_weights_that_lost_their_folder_still_say_what_they_claimed(claimed_model: Path, tmp_path: Path) -> None:
    export_folder(claimed_model, tmp_path / "out")
    (tmp_path / "out" / "claim.json").unlink()
    document = read_json(tmp_path / "out" / "model.json")
    del document["claim"]
    (tmp_path / "out" / "model.json").write_text(json.dumps(document))
    warning = str(warning_about(tmp_path / "out"))
    assert "its claim was cut off" in warning
    assert "a copy in model.safetensors says: ε = " in warning


def test_a_claim_altered_in_every_json_file_is_noticed_by_the_weights(claimed_model: Path, tmp_path: Path) -> None:
    export_folder(claimed_model, tmp_path / "out")
    for name in ("claim.json", "model.json"):
        document = json.loads((tmp_path / "out" / name).read_text())
        (document["claim"] if name == "model.json" else document)["claim"]["epsilon"] = 0.1
        (tmp_path / "out" / name).write_text(json.dumps(document))
    with pytest.raises(Corrupt, match=r"its copy in model\.safetensors differ"):
        load_claim(tmp_path / "out")


def test_a_model_without_its_claim_or_with_other_weights_does_not_leave(claimed_model: Path, tmp_path: Path) -> None:
    whole = (claimed_model / "claim.json").read_bytes()
    (claimed_model / "claim.json").unlink()
    with pytest.raises(BadInput, match="its claim was cut off"):
        export_folder(claimed_model, tmp_path / "out")
    (claimed_model / "claim.json").write_bytes(whole)
    weights = load_file(claimed_model / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, claimed_model / "model.safetensors")
    with pytest.raises(Corrupt, match=r"not those that model\.json was written for"):
        export_folder(claimed_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_privacy_on_protected_people_does_not_leave(claimed_model: Path, tmp_path: Path) -> None:
    for name in ("claim.json", "model.json"):
        document = json.loads((claimed_model / name).read_text())
        (document["claim"] if name == "model.json" else document)["claim"] |= {"epsilon": None, "no_guarantee": "its ε is infinite."}
        (claimed_model / name).write_text(json.dumps(document))
    with pytest.raises(Refused, match=r"its ε is infinite.*neither exported nor registered"):
        export_folder(claimed_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_overwrites_nothing(claimed_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(claimed_model), "--out", str(out)]) == 0
    assert "ε = " in capsys.readouterr().out
    assert main(["claim", str(out)]) == 0
    assert main(["export", str(claimed_model), "--out", str(out)]) == 2
    assert main(["export", str(claimed_model)]) == 2
    assert "--out DIR or --onnx FILE" in capsys.readouterr().err
