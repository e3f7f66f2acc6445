"""Contact sheets from a real saved model, and which pictures they may show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcore.config import Places, TrialConfig
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.errors import Refused
from dpcore.model.network import build_network
from dpcore.train.saved import MODEL_FOLDER, save_model
from search_spaces.loader import load_space
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report import contact_sheet
from sweeps.report.contact_sheet import choose_source, predict_crops, save_contact_sheets

PEOPLE = 20


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return SweepSpec(name="shown", space=load_space("quick", epsilons=[0.8]), places=places, storage=tmp_path / "storage")


@pytest.fixture
def stand_in(places: Places, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twenty synthetic people in the place of the embedded validation data."""
    synth(places.data_dir / "stand_in", "private", count=PEOPLE, seed=3, role="PUBLIC")
    monkeypatch.setattr(contact_sheet, "STAND_IN", "stand_in")
    return "stand_in"


def write_photographs(places: Places, name: str, *, role: str = "PUBLIC", size_px: int = 64) -> str:
    """A dataset that says of itself that it was imported; its pictures are drawn all the same."""

    def records() -> list[Record]:
        drawn = [draw_record("private", seed=5, index=index) for index in range(PEOPLE)]
        return [replace(one, image=np.resize(one.image, (size_px, size_px, 3))) for one in drawn]

    header = DatasetHeader(name=name, role=role, protected=False, height_px=size_px, width_px=size_px, origin="hrnet train.json")
    write_shards(places.data_dir / name, iter(records()), header=header)
    return name


def config_of(validation: str, *, size_px: int = 64) -> TrialConfig:
    return TrialConfig(
        method="dpsgd",
        data={"private": "p", "public": "q", "validation": validation, "nominal_examples": 100},
        model={"backbone": "small", "input_height_px": size_px, "input_width_px": size_px},
        stages={"private": {"steps": 4, "expected_batch_size": 10}},
        epsilon=0.8,
        delta=1e-3,
        clip_norm=1.0,
    )


def results_of(spec: SweepSpec, config: TrialConfig, *, with_model: bool = True) -> SweepResults:
    winner = TrialRecord(trial_id="e0.8-000", role="search", number=0, config=config, epsilon=0.8, state="done", pckh_50=0.613)
    if with_model:
        network = build_network(config.model, spec.places, generator=torch.Generator().manual_seed(0))
        folder = spec.checkpoint_dir(winner.trial_id) / MODEL_FOLDER
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(folder, network, config=config, meta={})
    return SweepResults(name="shown", records=(winner,), accounting="composed", delta=1e-5)


def save(spec: SweepSpec, results: SweepResults, tmp_path: Path) -> contact_sheet.ContactSheet:
    (sheet,) = save_contact_sheets(results, spec, shown=tmp_path / "shown", sealed=tmp_path / "sealed")
    return sheet


def test_synthetic_people_are_shown_openly(spec: SweepSpec, stand_in: str, tmp_path: Path) -> None:
    sheet = save(spec, results_of(spec, config_of(stand_in)), tmp_path)
    assert sheet.path == tmp_path / "shown" / "contact_sheet_eps_0.8.png"
    assert sheet.path.read_bytes().startswith(b"\x89PNG")
    assert (sheet.mlflow_only, sheet.reason) == (False, None)
    assert not (tmp_path / "sealed").exists()


def test_photographs_make_way_for_synthetic_people_of_the_models_input_size(spec: SweepSpec, stand_in: str, tmp_path: Path) -> None:
    photographs = write_photographs(spec.places, "photographs")
    assert choose_source(config_of(photographs), spec.places).name == stand_in
    sheet = save(spec, results_of(spec, config_of(photographs)), tmp_path)
    assert sheet.reason == "crops of stand_in instead of photographs from photographs"
    assert not sheet.mlflow_only


def test_photographs_of_another_size_are_for_mlflow_alone(spec: SweepSpec, tmp_path: Path) -> None:
    config = config_of(write_photographs(spec.places, "photographs", size_px=32), size_px=32)
    sheet = save(spec, results_of(spec, config), tmp_path)
    assert sheet.mlflow_only
    assert sheet.path == tmp_path / "sealed" / "contact_sheet_eps_0.8.png"
    assert (tmp_path / "sealed").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "shown").exists()


def test_private_pictures_are_refused_with_the_reason_and_stop_nothing(spec: SweepSpec, stand_in: str, tmp_path: Path) -> None:
    config = config_of(write_photographs(spec.places, "patients", role="PRIVATE"))
    with pytest.raises(Refused, match="patients is PRIVATE"):
        choose_source(config, spec.places)
    sheet = save(spec, results_of(spec, config), tmp_path)
    assert sheet.path is None
    assert "patients is PRIVATE and not synthetic" in (sheet.reason or "")
    assert not (tmp_path / "shown").exists()
    assert not (tmp_path / "sealed").exists()


def test_a_winner_without_its_model_says_so(spec: SweepSpec, stand_in: str, tmp_path: Path) -> None:
    sheet = save(spec, results_of(spec, config_of(stand_in), with_model=False), tmp_path)
    assert sheet.path is None
    assert "model.json" in (sheet.reason or "")


def test_an_epsilon_without_a_winner_has_no_sheet(spec: SweepSpec, tmp_path: Path) -> None:
    none = SweepResults(name="shown", records=(), accounting="composed", delta=1e-5)
    assert save_contact_sheets(none, spec, shown=tmp_path, sealed=tmp_path) == ()


def test_the_crops_are_evenly_spaced_and_the_title_says_whose_they_are(
    spec: SweepSpec, stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}
    draw = contact_sheet.draw_sheet

    def watch(dataset: object, rows: np.ndarray, predictions: np.ndarray, *, title: str) -> object:
        seen.update(rows=rows.tolist(), shape=predictions.shape, title=title)
        return draw(dataset, rows, predictions, title=title)

    monkeypatch.setattr(contact_sheet, "draw_sheet", watch)
    save(spec, results_of(spec, config_of(stand_in)), tmp_path)
    assert seen["rows"] == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 19]
    assert seen["shape"] == (16, 16, 2)
    for word in ("e0.8-000", "dpsgd", "ε = 0.8", "61.3 %", "stand_in"):
        assert word in str(seen["title"])


def test_predictions_are_those_of_the_saved_weights(spec: SweepSpec, stand_in: str) -> None:
    results_of(spec, config_of(stand_in))
    source = choose_source(config_of(stand_in), spec.places)
    folder = spec.checkpoint_dir("e0.8-000")
    all_rows, _ = predict_crops(folder, source.dataset, np.arange(4))
    np.testing.assert_allclose(predict_crops(folder, source.dataset, np.array([2]))[0][0], all_rows[2], atol=1e-3)
    assert np.isfinite(all_rows).all()


def test_predictions_of_scored_people_are_those_of_their_cached_features(spec: SweepSpec, stand_in: str) -> None:
    results_of(spec, config_of(stand_in))
    source = choose_source(config_of(stand_in), spec.places)
    folder, rows = spec.checkpoint_dir("e0.8-000"), np.array([1, 3])
    cached, _ = predict_crops(folder, source.dataset, rows, features_in=spec.places)
    np.testing.assert_allclose(cached, predict_crops(folder, source.dataset, rows)[0], atol=0.3)
    assert list((spec.places.cache_dir / "features").iterdir())
