"""Simulated trials: curves, failures, and repetitions that agree."""

from collections.abc import Callable, Iterator
from pathlib import Path

from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.train.attempts import Attempt
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps.engine.simulation import FAILING_SHARE, failing_trial, run_trial

TrialFunction = Callable[[TrialConfig, RuntimeFlags, Handout], Iterator[Report]]


def config_at(epsilon: float, *, clip_norm: float, learning_rate: float) -> TrialConfig:
    document = {
        "method": "dpsgd",
        "epsilon": epsilon,
        "delta": 1e-5,
        "clip_norm": clip_norm,
        "optimizer": {"learning_rate": learning_rate},
        "data": {
            "private": "synthetic/private",
            "public": "synthetic/public",
            "validation": "synthetic/validation",
            "nominal_examples": 4000,
        },
        "stages": {"private": {"steps": 100, "expected_batch_size": 256}},
    }
    return parse_config(TrialConfig, document)


def reports(
    config: TrialConfig, folder: Path, *, trial: TrialFunction = run_trial, trial_id: str = "e1-000", attempt: int = 0, every: int = 25
) -> list[Report]:
    places = Places(data_dir=folder, cache_dir=folder.parent / "cache")
    handout = handed(config, trial_id=trial_id, folder=folder, attempt=Attempt(number=attempt), places=places, key=None)
    return list(trial(config, RuntimeFlags(report_every_steps=every), handout))


def test_a_repetition_gives_the_same_reports_and_a_new_attempt_other_ones(tmp_path: Path) -> None:
    config = config_at(1.0, clip_norm=0.1, learning_rate=0.01)
    first = reports(config, tmp_path)
    assert [report.step for report in first] == [25, 50, 75, 100]
    assert [report.done for report in first] == [False, False, False, True]
    assert reports(config, tmp_path) == first
    again = reports(config, tmp_path, attempt=1)
    assert again[-1].metrics["val/pckh_50"] != first[-1].metrics["val/pckh_50"]


def test_the_curve_rises_to_the_score_and_the_budget_is_spent_on_the_way(tmp_path: Path) -> None:
    curve = reports(config_at(1.0, clip_norm=0.05, learning_rate=0.01), tmp_path / "t")
    scores = [report.metrics["val/pckh_50"] for report in curve]
    assert scores == sorted(scores)
    spent = [report.spent.epsilon for report in curve if report.spent is not None]
    assert spent == sorted(set(spent))
    assert len(spent) == len(curve)
    assert 0.999 < spent[-1] <= 1.0


def test_about_the_failing_share_of_trials_breaks_in_mid_way(tmp_path: Path) -> None:
    config = config_at(1.0, clip_norm=0.1, learning_rate=0.01)
    broken = 0
    for number in range(200):
        try:
            reports(config, tmp_path / str(number), trial=failing_trial, trial_id=f"e1-{number:03d}", every=50)
        except RuntimeError:
            broken += 1
    assert 0 < broken < 4 * FAILING_SHARE * 200
