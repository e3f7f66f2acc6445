"""The table of a grid in a paper's layout, and when the paper's own numbers stand in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spaces

from dpcore.config import Places, TrialConfig
from dpcore.data.manifest import MANIFEST_NAME, FileEntry, Manifest
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.published import numbers
from sweeps.report.published.grid_table import differences, grid_table
from sweeps.report.report import build_report

CLIP_NORMS, STRATEGIES = [0.01, 0.1], ["none", "backbone"]
SEARCH: dict[str, Any] = {
    "method": {"choice": ["dpsgd", "feature"]},
    "split": {"choice": ["blur"], "when": {"method": ["feature"]}},
    "clip_norm": {"choice": CLIP_NORMS},
    "model.freeze": {"choice": STRATEGIES},
}
GRID = {"epsilons": [0.2, 0.8], "trials_per_epsilon": None, "sampler": "grid"}


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(sweep=GRID, search=SEARCH), places=places, storage=tmp_path / "store")


def score_at(strategy: str, clip_norm: float, method: str, epsilon: float) -> float:
    return round(0.4 + 0.1 * STRATEGIES.index(strategy) - clip_norm / 3 + 0.03 * (method == "feature") + 0.05 * epsilon, 4)


def results_of(spec: SweepSpec) -> SweepResults:
    records, space = [], spec.space
    for epsilon in space.sweep.epsilons:
        for number, draw in enumerate(space.grid(epsilon)):
            config = space.trial_config(epsilon, draw)
            score = score_at(str(config.model.freeze), float(config.clip_norm or 0), config.method, epsilon)
            name = f"e{epsilon:g}-{number:03d}"
            records.append(
                TrialRecord(
                    trial_id=name, role="search", number=number, config=config, epsilon=epsilon, state="done", pckh_50=score, steps=3
                )
            )
    return SweepResults(
        name="s", records=tuple(records), accounting="composed", delta=1e-5, sweep_epsilon=2.5, composed_epsilon=2.5, protected=False
    )


def test_rows_are_strategies_and_clipping_norms_and_columns_methods(spec: SweepSpec) -> None:
    table = grid_table(results_of(spec), spec)
    assert table is not None
    header, rows = table.scores
    assert header == ["setting", "", "DP-SGD", "feature"]
    assert rows == [
        ["none, C = 0.01", "", "40.7 43.7", "43.7 46.7"],
        ["none, C = 0.1", "", "37.7 40.7", "40.7 43.7"],
        ["backbone, C = 0.01", "", "50.7 53.7", "53.7 56.7"],
        ["backbone, C = 0.1", "", "47.7 50.7", "50.7 53.7"],
    ]
    assert "at ε = 0.2, 0.8" in table.notes[0]
    assert "the network is small" in table.notes[1]
    assert "synthetic/private is not the part of MPII that they used, or is not on this machine" in table.notes[1]


def test_what_failed_is_a_dash_and_floors_stand_by_strategy(spec: SweepSpec) -> None:
    results = results_of(spec)
    records = [replace(one, state="failed") if one.trial_id == "e0.2-000" else one for one in results.records]
    first = records[0].config
    floor = first.changed(method="public_only", epsilon=None, delta=None, clip_norm=None)
    records.append(TrialRecord(trial_id="floor", role="floor", number=0, config=floor, state="done", pckh_50=0.371))
    table = grid_table(replace(results, records=tuple(records)), spec)
    assert table is not None
    assert table.scores[1][0][2] == "– 43.7"
    assert table.bars == (["strategy", "", "floor", "ceiling"], [["none", "", "37.1", "–"], ["backbone", "", "–", "–"]])


def dataset(folder: Path, people: int, origin: str) -> None:
    entry = FileEntry(name="shard-00000.arrow", sha256="0" * 64, rows=people)
    facts = {"name": folder.name, "role": "PUBLIC", "protected": False, "height_px": 64, "width_px": 64, "origin": origin}
    manifest = Manifest(**facts, count=people, files=(entry,), digest="1" * 64)
    folder.mkdir(parents=True)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")


@pytest.fixture
def as_published(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A grid whose data have the sizes of MPII's parts, and whose network is taken for the published one."""
    dataset(spec.places.data_dir / "mpii/train", numbers.TRAIN_PEOPLE, "hrnet train.json")
    dataset(spec.places.data_dir / "mpii/val", numbers.VALIDATION_PEOPLE, "hrnet valid.json")
    monkeypatch.setattr(numbers, "BACKBONE", "small")
    monkeypatch.setattr(numbers, "HEAD", "marginal")
    monkeypatch.setattr(numbers, "INPUT_PX", (64, 64))
    table = {("none", 0.01): numbers.PCKH[("ft", 0.01)]}
    monkeypatch.setattr(numbers, "PCKH", table)
    monkeypatch.setattr(numbers, "FLOOR_AND_CEILING", {"none": (83.61, 89.36)})
    data = {**spec.space.trial["data"], "private": "mpii/train", "validation": "mpii/val"}
    return spec.model_copy(update={"space": spaces.space(sweep=GRID, search=SEARCH, trial={"data": data})})


def test_the_published_numbers_stand_below_ours_where_data_and_network_are_the_same(as_published: SweepSpec) -> None:
    results = results_of(as_published)
    table = grid_table(results, as_published)
    assert table is not None
    assert table.scores[1][:3] == [
        ["none, C = 0.01", "", "40.7 43.7", "43.7 46.7"],
        ["  published", "", "63.9 78.2", "75.5 80.4"],
        ["none, C = 0.1", "", "37.7 40.7", "40.7 43.7"],
    ]
    assert table.bars[1][0] == ["none", "", "–", "–", "83.6", "89.4"]
    assert "arXiv:2504.10190" in table.notes[-1]
    assert "no bar" in table.notes[-1]
    report = build_report(results, spec=as_published)
    assert "none, C = 0.01        40.7 43.7  43.7 46.7\n  published           63.9 78.2  75.5 80.4" in report.text()
    assert "|   published | 63.9 78.2 | 75.5 80.4 |" in report.markdown()
    assert "## Method, ε and clipping norm" in report.markdown()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model.freeze": "none", "model.backbone": "small", "model.head": "flat"}, "head or crop size are others"),
        ({"data.validation": "mpii/train"}, "mpii/train is not the part of MPII that they used"),
        ({"data.private": "elsewhere"}, "elsewhere is not the part of MPII that they used, or is not on this machine"),
        ({"data.proxy": "mpii/train", "data.proxy_examples": 9}, "is not the part of MPII"),
    ],
)
def test_other_data_or_another_network_are_named(as_published: SweepSpec, change: dict[str, Any], why: str) -> None:
    config: TrialConfig = as_published.space.trial_config(0.2, {"method": "dpsgd", "clip_norm": 0.1, "model.freeze": "none"})
    assert differences(config, as_published.places) == ()
    assert why in "; ".join(differences(config.changed(**change), as_published.places))


def test_published_numbers_stand_beside_no_other_metric(as_published: SweepSpec) -> None:
    results = results_of(as_published)
    curve = (CurvePoint(3, {"val/oks_ap": 0.371}),)
    others = tuple(replace(one, metric="oks_ap", curve=curve) for one in results.records)
    table = grid_table(replace(results, records=others), as_published)
    assert table is not None
    assert table.scores[1][0] == ["none, C = 0.01", "", "37.1 37.1", "37.1 37.1"]
    assert len(table.scores[1]) == 4
    assert "theirs is PCKh@0.5" in table.notes[-1]


def test_a_search_that_is_no_such_grid_has_no_table(tmp_path: Path) -> None:
    spec = SweepSpec(name="s", space=spaces.space(), places=Places(data_dir=tmp_path, cache_dir=tmp_path), storage=tmp_path / "store")
    empty = SweepResults(name="s", records=(), accounting="composed", delta=1e-5, sweep_epsilon=0.0, composed_epsilon=0.0, protected=False)
    assert grid_table(empty, spec) is None


def test_the_numbers_are_those_of_the_reference() -> None:
    assert numbers.published_pckh("ft", 0.01, "feature_projected", 0.8) == pytest.approx(0.819)
    assert numbers.published_pckh("full_ft", 1.0, "projected", 0.6) == pytest.approx(0.119)
    assert numbers.published_pckh("scratch", 0.1, "dpsgd", 0.2) is None
    assert numbers.published_floor_and_ceiling("scratch") == pytest.approx((0.1799, 0.7689))
    assert all(len(row) == len(numbers.METHODS) and all(len(cell) == 4 for cell in row) for row in numbers.PCKH.values())
