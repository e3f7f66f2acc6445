"""Learning curves from records made by hand."""

from dataclasses import replace
from pathlib import Path

from dpcore.config import TrialConfig
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.report.curves import points_of, save_epsilon_curves, save_trial_curve

DATA = {"private": "p", "public": "q", "validation": "v", "nominal_examples": 100}
STEPS = {"private": {"steps": 4, "expected_batch_size": 10}}


def record_of(trial_id: str, *scores: float, role: str = "search", epsilon: float | None = 0.8, method: str = "dpsgd") -> TrialRecord:
    privacy = {"epsilon": epsilon, "delta": 1e-3, "clip_norm": 1.0} if method == "dpsgd" else {}
    curve = tuple(CurvePoint(2 * (at + 1), {"val/pckh_50": score, "train/loss": 9.0}) for at, score in enumerate(scores))
    config = TrialConfig(method=method, data=DATA, stages=STEPS, **privacy)
    score = scores[-1] if scores else None
    return TrialRecord(
        trial_id=trial_id, role=role, number=0, config=config, epsilon=epsilon, state="done", pckh_50=score, steps=4, curve=curve
    )


def test_a_curve_is_the_score_by_step_without_reports_that_have_none() -> None:
    record = record_of("a", 0.1, 0.2)
    assert points_of(replace(record, curve=(*record.curve, CurvePoint(9, {"train/loss": 1.0})))) == [(2, 0.1), (4, 0.2)]


def test_one_point_is_no_curve(tmp_path: Path) -> None:
    assert save_trial_curve(record_of("a", 0.1), tmp_path) is None
    assert save_trial_curve(record_of("a"), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_an_ended_trials_curve_is_drawn_once(tmp_path: Path) -> None:
    path = save_trial_curve(record_of("a", 0.1, 0.2), tmp_path)
    assert path == tmp_path / "a.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = path.stat().st_mtime_ns
    assert save_trial_curve(record_of("a", 0.1, 0.2), tmp_path) == path
    assert path.stat().st_mtime_ns == drawn


def test_each_epsilon_with_a_curve_has_one_figure_equal_the_second_time(tmp_path: Path) -> None:
    records = (
        record_of("floor", 0.3, role="floor", epsilon=None, method="nonprivate"),
        record_of("ceiling", 0.3, 0.6, role="ceiling", epsilon=None, method="nonprivate"),
        record_of("e0.8-000", 0.1, 0.2),
        record_of("e0.8-001", 0.1, 0.4),
        record_of("seed-e0.8-1", 0.1, 0.35, role="seed"),
        record_of("e8-000", 0.1, epsilon=8.0),
    )
    results = SweepResults(name="drawn", records=records, accounting="composed", delta=1e-5)
    paths = save_epsilon_curves(results, tmp_path)
    assert [path.name for path in paths] == ["curves_eps_0.8.png"]
    first = paths[0].read_bytes()
    assert save_epsilon_curves(results, tmp_path)[0].read_bytes() == first
