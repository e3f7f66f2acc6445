"""Training from best.yaml: charged before it begins, resumed under one reservation, its key gone at the end."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_trials
import spaces

from dpcore.config import Places
from dpcore.data import catalog
from dpcore.errors import Refused
from sweeps import retrain
from sweeps.export import ExportedConfig
from sweeps.ledger import Ledger
from sweeps.retrain import KEY_FILE, TrainRequest, train_fresh


@pytest.fixture
def request_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainRequest:
    """A config that a person wrote, on a dataset that needs no file, with a trial of milliseconds."""

    def trial(config: Any, runtime: Any, *, folder: Path, **given: Any) -> Iterator[Any]:
        for report in fake_trials.run_trial(config, runtime, folder=folder, **given):
            if report.done:
                last = {"pckh_50": report.metrics["val/pckh_50"], "pckh_10": 0.1, "epsilon_spent": config.epsilon}
                known = {"epsilon_target": config.epsilon, "delta": config.delta, "method": config.method}
                result = {**last, **known, "trial_id": given["trial_id"], "fingerprint": config.fingerprint()}
                (folder / "result.json").write_text(json.dumps(result))
            yield report

    monkeypatch.setattr(retrain, "run_trial", trial)
    monkeypatch.setattr(retrain, "plan_privacy", fake_trials.plan)
    monkeypatch.setattr(retrain, "price", fake_trials.compose)
    monkeypatch.setattr(catalog, "open_dataset", lambda name, places: SimpleNamespace(members=SimpleNamespace(cohort="d" * 8)))
    return TrainRequest(
        exported=ExportedConfig(config=spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})),
        spec=None,
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        out=tmp_path / "out",
        ledger_url=f"sqlite:///{tmp_path / 'ledger.sqlite'}",
    )


def lines_of(request: TrainRequest) -> list[str]:
    return [line.kind for line in Ledger(str(request.ledger_url)).lines()]


def test_a_training_that_ended_leaves_no_key_beside_its_model(request_of_a_file: TrainRequest) -> None:
    result = train_fresh(request_of_a_file, resume=False)
    assert not (request_of_a_file.out / KEY_FILE).exists()
    assert lines_of(request_of_a_file) == ["reserve", "settle"]
    assert train_fresh(request_of_a_file, resume=True) == result
    assert lines_of(request_of_a_file) == ["reserve", "settle"]


def test_an_interrupted_training_goes_on_with_its_key_under_its_reservation(
    request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrain.run_trial

    def interrupted(*given: Any, **named: Any) -> Iterator[Any]:
        yield next(iter(whole(*given, **named)))
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_fresh(request_of_a_file, resume=False)
    assert lines_of(request_of_a_file) == ["reserve"]
    monkeypatch.setattr(retrain, "run_trial", whole)
    train_fresh(request_of_a_file, resume=True)
    starts = (request_of_a_file.out / "starts.txt").read_text().splitlines()
    assert len(starts) == 2
    assert len(set(starts)) == 1
    assert lines_of(request_of_a_file) == ["reserve", "settle"]


def test_another_config_does_not_continue_in_the_folder_of_one_that_ended(request_of_a_file: TrainRequest) -> None:
    train_fresh(request_of_a_file, resume=False)
    other = ExportedConfig(config=request_of_a_file.config.changed(clip_norm=0.2))
    changed = TrainRequest(**{**request_of_a_file.__dict__, "exported": other})
    with pytest.raises(Refused, match="begun with another config"):
        train_fresh(changed, resume=True)
