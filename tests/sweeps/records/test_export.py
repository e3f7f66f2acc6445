"""best.yaml: what is written, what is read back, what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data import catalog
from dpcore.errors import BadInput, Refused, Unavailable
from search_spaces.loader import load_space
from sweeps.models.retrain import TrainRequest, origin_spec, train_fresh
from sweeps.records.export import ExportedConfig, best_trial, export_trial, read_exported, write_exported
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec

CONFIG = TrialConfig(
    method="dpsgd",
    data={"private": "p", "public": "q", "validation": "v", "nominal_examples": 100},
    stages={"private": {"steps": 4, "expected_batch_size": 10}},
    epsilon=0.8,
    delta=1e-5,
    clip_norm=0.1,
)
RECORD = TrialRecord(trial_id="e0.8-001", role="search", number=1, config=CONFIG, epsilon=0.8, state="done", pckh_50=0.5)
RESULTS = SweepResults(name="swept", records=(RECORD,), accounting="composed", delta=1e-5)


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    runtime = RuntimeFlags(physical_batch_size=32)
    return SweepSpec(name="swept", space=load_space("quick"), places=places, storage=tmp_path / "storage", runtime=runtime)


def test_the_file_reads_back_as_the_trial_with_runtime_and_origin(spec: SweepSpec, tmp_path: Path) -> None:
    exported = export_trial(best_trial(RESULTS, 0.8), spec)
    write_exported(exported, tmp_path / "best.yaml")
    again = read_exported(tmp_path / "best.yaml")
    assert again == exported
    assert again.config.fingerprint() == RECORD.fingerprint
    assert again.runtime.physical_batch_size == 32
    assert again.origin is not None
    assert (again.origin.sweep, again.origin.trial_id, again.origin.storage) == ("swept", "e0.8-001", spec.storage)


def test_writing_the_same_again_is_no_error_and_another_file_is_kept(spec: SweepSpec, tmp_path: Path) -> None:
    exported, out = export_trial(RECORD, spec), tmp_path / "best.yaml"
    write_exported(exported, out)
    write_exported(exported, out)
    other = exported.model_copy(update={"config": CONFIG.changed(clip_norm=0.2)})
    with pytest.raises(Refused, match="holds another config"):
        write_exported(other, out)
    assert read_exported(out) == exported


def test_an_epsilon_that_was_not_swept_names_those_that_were() -> None:
    with pytest.raises(BadInput, match=r"expected one of 0\.8"):
        best_trial(RESULTS, 0.7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {method: dpsgd}\n", "config.data: missing"),
        ("clip_norm: 1\n", "expected the keys config"),
        ("config: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("config: {}\nconfig: {}\n", "not YAML"),
        ("config: [\n", "not YAML"),
    ],
)
def test_a_wrong_file_is_one_message(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_exported(path)


def test_training_refuses_when_the_sweeps_ledger_cannot_be_reached(
    spec: SweepSpec, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        catalog,
        "open_dataset",
        lambda name, places: SimpleNamespace(members=SimpleNamespace(cohort="c"), manifest=SimpleNamespace(protected=False, ledger=None)),
    )
    exported = export_trial(RECORD, spec)
    with pytest.raises(Unavailable, match="--ledger URL"):
        origin_spec(exported, needed=True)
    spec.save()
    found = origin_spec(exported, needed=True)
    request = TrainRequest(exported=exported, spec=found, places=places, out=tmp_path / "model", ledger_url=None)
    with pytest.raises(Unavailable, match="not there"):
        train_fresh(request)
    assert not (tmp_path / "model").exists()


def test_a_config_without_an_origin_has_no_ledger_to_charge() -> None:
    with pytest.raises(Unavailable, match="names no origin"):
        origin_spec(ExportedConfig(config=CONFIG), needed=True)
