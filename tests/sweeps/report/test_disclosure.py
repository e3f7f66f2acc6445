"""The policy of a sweep under attack: kept beside its results, set against accuracy, drawn, and said in every claim."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcore.config import AttackSettings, Places
from dpcore.disclosure import measure
from dpcore.disclosure.measure import Measured, Samples
from dpcore.errors import BadInput
from dpcore.privacy.disclosure import Disclosure, Reading
from search_spaces.loader import load_space
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report import disclosure_sheet
from sweeps.report.disclosure import (
    ALL_SPLITS,
    PolicyDisclosure,
    disclosure_rows,
    disclosure_table,
    measure_policy,
    read_policy,
    save_policy,
)
from sweeps.report.disclosure_sheet import save_disclosure_sheet
from sweeps.report.figures import draw_disclosure

SPACE = """
sweep: {epsilons: [2, 8], delta: 1.0e-3, trials_per_epsilon: 3, sampler: random, accounting: composed}
references: {disclosure: {steps: 7}}
splits: {pixels: {transform: pixelate, cell_px: 8}, blur: {transform: gaussian_blur, sigma_px: 1}}
trial:
  data: {private: p, public: q, validation: v, nominal_examples: 200}
  stages: {public: {steps: 20}, public_view: {steps: 10}, private: {steps: 8, expected_batch_size: 40}}
search:
  method: {choice: [dpsgd, feature]}
  split: {choice: [pixels, blur], when: {method: feature}}
  clip_norm: {float: [0.1, 1.0], log: true}
"""


def found(name: str, pckh: float, *others: str, ssim: float = 0.5) -> Disclosure:
    reading = Reading(attacker=f"{name} learned", pckh_50=pckh, psnr_db=21.5, ssim=ssim, hidden_psnr_db=21.5, hidden_ssim=ssim)
    values: dict[str, Any] = {"pckh_original": 0.6, "pckh_blind": 0.2, "hidden_frac": 1.0, "trained_on": 9, "tested_on": 9}
    return Disclosure(splits=(name, *others), readings=(reading,), datasets=("q", "v"), **values)


POLICY = PolicyDisclosure(splits=(found("pixels", 0.3), found("blur", 0.58)), joint=found("pixels", 0.59, "blur"))


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    (tmp_path / "space.yaml").write_text(SPACE)
    return SweepSpec(name="shown", space=load_space(tmp_path / "space.yaml"), places=places, storage=tmp_path / "storage")


def record(spec: SweepSpec, trial_id: str, score: float, **values: Any) -> TrialRecord:
    role, epsilon = ("floor", None) if trial_id.startswith("floor") else ("search", 2.0)
    draw = {"method": "feature", "clip_norm": 1.0, **values} if epsilon else {"method": "public_only", "start": "public_view", **values}
    config = spec.space.trial_config(epsilon, draw)
    return TrialRecord(trial_id=trial_id, role=role, number=0, config=config, epsilon=epsilon, state="done", pckh_50=score)


def results(spec: SweepSpec) -> SweepResults:
    records = (
        record(spec, "floor-pixels", 0.41, split="pixels"),
        record(spec, "floor-blur", 0.45, split="blur"),
        record(spec, "e2-000", 0.5, split="blur"),
        record(spec, "e2-001", 0.52, split="blur"),
    )
    return SweepResults(name="shown", records=records, accounting="composed", delta=1e-3)


def test_a_policy_survives_the_disk(tmp_path: Path) -> None:
    assert read_policy(tmp_path) is None
    save_policy(POLICY, tmp_path)
    assert read_policy(tmp_path) == POLICY
    (tmp_path / "results" / "disclosure.json").write_text('{"splits": [], "more": 1}')
    with pytest.raises(BadInput):
        read_policy(tmp_path)


def test_each_split_stands_beside_the_accuracy_that_it_allows(spec: SweepSpec) -> None:
    pixels, blur, both = disclosure_rows(POLICY, results(spec), (2.0, 8.0))
    assert (pixels.floor, blur.floor, both.floor) == (0.41, 0.45, None)
    assert pixels.by_epsilon == {2.0: None, 8.0: None}
    assert blur.by_epsilon == {2.0: 0.52, 8.0: None}
    assert both.name == ALL_SPLITS


def test_the_table_flags_what_nearly_shows_the_image(spec: SweepSpec) -> None:
    header, cells = disclosure_table(disclosure_rows(POLICY, results(spec), (2.0,)))
    assert [row[header.index("disclosure")] for row in cells] == ["0.25", "0.95", "0.97"]
    assert [row[-1] for row in cells] == ["", "close", "close"]
    assert {len(row) for row in cells} == {len(header)}


def test_the_figure_has_every_split_that_was_measured(spec: SweepSpec) -> None:
    rows = disclosure_rows(POLICY, results(spec), (2.0,))
    figure = draw_disclosure(rows, {"ceiling": 0.6}, title="t", caption="c")
    assert {text.get_text() for text in figure.axes[0].texts} == {"pixels", "blur", ALL_SPLITS}
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert any("floor" in label for label in labels)
    assert any("ε = 2" in label for label in labels)


def test_every_split_and_their_join_are_measured_with_the_settings_of_the_space(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    settings: list[AttackSettings] = []

    def open_laboratory(config: Any, given: AttackSettings, **_: Any) -> None:
        settings.append(given)

    def attack(splits: Any, laboratory: None) -> Measured:
        asked.append(tuple(split.name for split in splits))
        one, *others = asked[-1]
        return Measured(disclosure=found(one, 0.58, *others), folder=Path())

    monkeypatch.setattr(measure.Laboratory, "open", open_laboratory)
    monkeypatch.setattr(measure, "measure_disclosure", attack)
    said: list[str] = []
    made = measure_policy(spec, said.append)
    assert made is not None
    assert asked == [("pixels",), ("blur",), ("pixels", "blur")]
    assert settings == [AttackSettings(steps=7)]
    assert made.policy.of_all.splits == ("pixels", "blur")
    assert sum("nearly shows" in line for line in said) == 3


def test_nothing_is_measured_where_it_is_not_wanted_or_nothing_is_split(tmp_path: Path, spec: SweepSpec) -> None:
    off = load_space(tmp_path / "space.yaml", assignments=["references.disclosure=false"])
    assert measure_policy(spec.model_copy(update={"space": off}), print) is None
    plain = load_space(tmp_path / "space.yaml", assignments=["method=dpsgd"])
    assert not plain.splits_in_use or measure_policy(spec.model_copy(update={"space": off}), print) is None


def measured(tmp_path: Path, *, synthetic: bool) -> Measured:
    people = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    np.savez(tmp_path / "samples.npz", originals=people, published=people, restored=people)
    (tmp_path / "meta.json").write_text(json.dumps({"synthetic": synthetic, "tested_on": "v", "datasets": []}))
    return Measured(disclosure=found("pixels", 0.3), folder=tmp_path)


def test_synthetic_people_are_shown_openly_and_photographs_wait_for_mlflow(tmp_path: Path) -> None:
    open_sheet = save_disclosure_sheet([measured(tmp_path, synthetic=True)], shown=tmp_path / "shown", sealed=tmp_path / "sealed")
    assert open_sheet.path == tmp_path / "shown" / disclosure_sheet.FILE
    assert open_sheet.path.read_bytes().startswith(b"\x89PNG")
    assert not open_sheet.mlflow_only
    assert not (tmp_path / "sealed").exists()
    (tmp_path / "shown" / disclosure_sheet.FILE).unlink()
    sealed = save_disclosure_sheet([measured(tmp_path, synthetic=False)], shown=tmp_path / "shown", sealed=tmp_path / "sealed")
    assert sealed.mlflow_only
    assert sealed.path.parent.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "shown").iterdir()) == []


def test_a_line_says_its_numbers_and_its_flag() -> None:
    people = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    samples = Samples(originals=people, published=people, restored=people, synthetic=True, dataset="v")
    figure = disclosure_sheet.draw_disclosure_sheet([(found("pixels", 0.3), samples), (found("blur", 0.58), samples)])
    first, second = (figure.axes[row * 10].texts[0].get_text() for row in range(2))
    assert "disclosure 0.25" in first
    assert "nearly" not in first
    assert "nearly shows the image" in second
