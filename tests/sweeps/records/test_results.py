"""Records grow by reports, end once, and come back from Parquet as they were."""

from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord, read_results

CONFIG = TrialConfig.model_validate(
    {
        "method": "dpsgd",
        "epsilon": 0.8,
        "delta": 1e-5,
        "clip_norm": 1.0,
        "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 100},
        "stages": {"private": {"steps": 2, "expected_batch_size": 10}},
    }
)
RECORD = TrialRecord(trial_id="e0.8-000", role="search", number=0, epsilon=0.8, config=CONFIG)


def scored(number: int, score: float) -> TrialRecord:
    record = TrialRecord(trial_id=f"e0.8-{number:03d}", role="search", number=number, epsilon=0.8, config=CONFIG)
    return record.with_point(CurvePoint(2, {"val/pckh_50": score, "val/pckh_10": 0.1}, "d")).ended(seconds=1.0)


def test_a_replayed_step_changes_nothing() -> None:
    once = RECORD.with_point(CurvePoint(1, {"val/pckh_50": 0.5}))
    assert once.with_point(CurvePoint(1, {"val/pckh_50": 0.5})) is once


def test_a_later_report_replaces_a_better_one() -> None:
    """A trial releases its last weights; the best of its reports would be a choice on the evaluation split."""
    record = RECORD.with_point(CurvePoint(1, {"val/pckh_50": 0.9})).with_point(CurvePoint(2, {"val/pckh_50": 0.4}))
    assert (record.pckh_50, record.steps) == (0.4, 2)


def test_a_last_score_that_is_no_number_fails_the_trial_whatever_came_before() -> None:
    good = RECORD.with_point(CurvePoint(1, {"val/pckh_50": 0.5}))
    for metrics in ({}, {"val/pckh_50": float("nan")}):
        ended = good.with_point(CurvePoint(2, metrics)).ended(seconds=1.0)
        assert (ended.state, ended.pckh_50) == ("failed", None)


def test_the_best_is_the_first_of_equal_scores_and_never_a_failed_one() -> None:
    records = (scored(0, 0.4), scored(1, 0.6), scored(2, 0.6), scored(3, float("nan")))
    results = SweepResults(name="s", records=records, accounting="composed", delta=1e-5)
    assert results.best(0.8) is records[1]
    assert results.best(0.2) is None


def test_results_come_back_from_parquet_as_they_were(tmp_path: Path) -> None:
    records = (scored(1, 0.4), RECORD.ended(seconds=2.0, error="gone"))
    results = SweepResults(name="s", records=records, accounting="composed", delta=1e-5, sweep_epsilon=1.0, composed_epsilon=1.0, planned=2)
    results.write_parquet(tmp_path / "results")
    assert read_results(tmp_path) == results
    unpriced = replace(results, sweep_epsilon=None, composed_epsilon=None)
    unpriced.write_parquet(tmp_path / "results")
    assert read_results(tmp_path) == unpriced


def test_a_sweep_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no results"):
        read_results(tmp_path)
