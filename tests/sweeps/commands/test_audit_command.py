"""`dpsweep audit`: exit codes, the JSON document, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpcore.config import TrialConfig
from dpcore.privacy import mechanism as mechanism_module
from sweeps.cli import main
from sweeps.records.export import ExportedConfig, render_yaml

CONFIG = TrialConfig(
    method="dpsgd",
    data={"private": "p", "public": "q", "validation": "v", "nominal_examples": 100},
    stages={"private": {"steps": 3, "expected_batch_size": 100}},
    epsilon=4.0,
    delta=1e-5,
    clip_norm=0.1,
)


def written(folder: Path, document: Any, name: str = "best.yaml") -> str:
    path = folder / name
    path.write_text(render_yaml(document))
    return str(path)


def test_a_kept_claim_is_exit_0_and_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, ExportedConfig(config=CONFIG).model_dump(mode="json"))
    assert main(["audit", path, "--audit", "mechanism", "--canaries", "2000", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["verdict"] == "consistent"
    assert 0.0 <= document["epsilon_lower"] <= document["epsilon"] <= 4.0
    assert document["confidence"] == 0.9999
    assert [(one["kind"], one["n"]) for one in document["audits"]] == [("mechanism", 2000)]
    assert "mechanism, full batch 100 %" in err


def test_a_broken_one_is_exit_1_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[..., Any] = mechanism_module.add_noise
    monkeypatch.setattr(
        mechanism_module,
        "add_noise",
        lambda bounded, *, noise_multiplier, stream: honest(bounded, noise_multiplier=0.4 * noise_multiplier, stream=stream),
    )
    path = written(tmp_path, CONFIG.model_dump(mode="json"), "trial.yaml")
    assert main(["audit", path, "--audit", "mechanism", "--canaries", "2000"]) == 1
    assert "violated: ε = " in capsys.readouterr().out


def test_bad_input_is_exit_2_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_claim = CONFIG.changed(method="nonprivate", epsilon=None, delta=None, clip_norm=None)
    assert main(["audit", written(tmp_path, no_claim.model_dump(mode="json"))]) == 2
    assert "infinite" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "absent.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["audit", written(tmp_path, CONFIG.model_dump(mode="json")), "--canaries", "7"]) == 2
    assert "at least 1000" in capsys.readouterr().err
