"""The preset `paper_grid` from MPII's own file to the table, on a tiny stand-in: small network, few steps, everything else as it is."""

import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials
import pytest
from mpii_stand_in import write_mpii
from one_process import OneProcess
from ruamel.yaml import YAML

from dpcore.config import Places, RuntimeFlags
from search_spaces.loader import build_space
from search_spaces.presets import preset_path
from search_spaces.space import SpaceFile, set_value
from sweeps.cli import main
from sweeps.engine import driver
from sweeps.engine.driver import run_sweep
from sweeps.pricing.plan import dp_accountant
from sweeps.records.spec import SweepSpec
from sweeps.report.report import build_report

SMALLER: dict[str, Any] = {
    "sweep.epsilons": [0.77],
    "sweep.delta": 1.3e-3,
    "references.winner_seeds": 0,
    "trial.data": {"private": "mpii/train", "public": "mpii/public", "validation": "mpii/val", "nominal_examples": 80},
    "trial.model": {"backbone": "small", "head": "flat", "input_height_px": 64, "input_width_px": 48, "split_ratio": 2.0},
    "trial.stages.public.steps": 5,
    "trial.stages.public.batch_size": 16,
    "trial.stages.public_view": {"until": "converged", "max_steps": 5, "batch_size": 16},
    "trial.stages.private": {"steps": 3, "expected_batch_size": 8},
    "trial.subspace": {"examples": 16, "refresh_steps": 2},
}


def small_grid() -> SpaceFile:
    document = YAML(typ="safe", pure=True).load(preset_path("paper_grid").read_text(encoding="utf-8"))
    for path, value in SMALLER.items():
        set_value(document, path, value)
    search = document["search"]
    search["clip_norm"] = {"choice": [0.1]}
    search["model.freeze"] = {"choice": ["ft", "scratch"]}
    search["subspace.rank"]["choice"] = [4]
    return build_space(document, name="paper_grid")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """The grid over people who were imported from .mat files, with Ray's part in this process."""

    @contextmanager
    def session(spec: SweepSpec) -> Any:
        yield 1

    monkeypatch.setattr(driver, "ray_session", session)
    monkeypatch.setattr(driver, "run_tune", OneProcess())
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    for seed, (name, count, role) in enumerate((("train", 80, "PRIVATE"), ("val", 30, "PUBLIC"), ("public", 70, "PUBLIC")), 1):
        labels, images = write_mpii(tmp_path / name, count=count, seed=seed)
        target = ["--out", str(places.data_dir / "mpii" / name), "--role", role, *(["--stand-in"] if role == "PRIVATE" else [])]
        source = ["--annotations", str(labels), "--images", str(images), "--single-person", "--height", "64", "--width", "48"]
        assert main(["data", "import", "mpii", *source, *target]) == 0
    runtime = RuntimeFlags(physical_batch_size=16)
    return SweepSpec(name="tiny", space=small_grid(), places=places, storage=tmp_path / "store", runtime=runtime)


def test_the_grid_of_the_preset_runs_from_mpiis_own_file_to_the_table(spec: SweepSpec) -> None:
    around = replace(fake_trials.surroundings(), accountant=dp_accountant(spec.places.cache_dir))
    results = run_sweep(spec, around)
    assert {record.state for record in results.records} == {"done"}
    assert len(results.of_role("search")) == 4 * 2
    assert all(record.config.evaluation.flip for record in results.records)
    assert [record.trial_id for record in results.of_role("ceiling")] == ["ceiling-ft", "ceiling-scratch"]
    report = build_report(results, spec=spec)
    assert report.grid is not None
    header, rows = report.grid.scores
    assert header == ["setting", "", "DP-SGD", "projected", "feature", "feature projected"]
    assert [row[0] for row in rows] == ["ft, C = 0.1", "scratch, C = 0.1"]
    assert all(re.fullmatch(r"\d+\.\d", cell) for row in rows for cell in row[2:])
    assert [row[0] for row in report.grid.bars[1]] == ["ft", "scratch"]
    assert all(cell != "–" for row in report.grid.bars[1] for cell in row[2:])
    assert "the network is small, theirs is TinyViT-5M" in report.text()
    assert "## Method, ε and clipping norm" in report.markdown()
