"""A sweep that begins with an earlier one's settings: which, once, and what is said of their price."""

from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput, Refused
from sweeps.cli import main
from sweeps.pricing.plan import Accountant, plan_sweep
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.plan_text import plan_lines
from sweeps.report.report import build_report
from sweeps.search.studies import Studies
from sweeps.search.warm_start import draw_of, with_warm_start

TPE = {"sampler": "tpe"}
PROXY = {
    "sweep": {**TPE, "accounting": "public_proxy"},
    "trial": {"data": {**spaces.DOCUMENT["trial"]["data"], "proxy": "synthetic/proxy", "proxy_examples": 2000}},
}


def spec_of(tmp_path: Path, name: str, **sections: object) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name=name, space=spaces.space(**{"sweep": TPE, **sections}), places=places, storage=tmp_path / "store")


def results_of(spec: SweepSpec, scores: dict[float, list[tuple[float, float]]]) -> SweepResults:
    """A sweep of DP-SGD trials; ε → clip norms and the scores they had."""
    records = []
    for epsilon, tried in scores.items():
        for number, (clip_norm, score) in enumerate(tried):
            config = spec.space.trial_config(epsilon, {"method": "dpsgd", "clip_norm": clip_norm})
            records.append(TrialRecord(trial_id=f"e{epsilon:g}-{number:03d}", role="search", number=number, config=config, epsilon=epsilon))
            records[-1] = replace(records[-1], state="done", pckh_50=score)
    accounting = spec.space.sweep.accounting
    return SweepResults(name=spec.name, records=tuple(records), accounting=accounting, delta=1e-5, sweep_epsilon=2.5, composed_epsilon=2.5)


def earlier_sweep(
    tmp_path: Path, name: str = "before", *, scores: dict[float, list[tuple[float, float]]] | None = None, **sections: object
) -> SweepSpec:
    spec = spec_of(tmp_path, name, **sections)
    spec.save()
    found = {0.5: [(0.02, 0.5), (0.03, 0.7), (0.04, 0.6)], 2.0: [(0.2, 0.8), (0.9, 0.3)]} if scores is None else scores
    results_of(spec, found).write_parquet(spec.sweep_dir / "results")
    return spec


def begun(tmp_path: Path, **sections: object) -> tuple[SweepSpec, list[str]]:
    said: list[str] = []
    return with_warm_start(spec_of(tmp_path, "after", **sections), "before", say=said.append), said


def clip_norms(spec: SweepSpec, epsilon: float) -> list[float]:
    return [float(draw["clip_norm"]) for draw in spec.warm_start.draws[epsilon]]


def test_each_epsilon_takes_the_two_best_of_the_nearest_one(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    spec, said = begun(tmp_path, sweep={**TPE, "epsilons": [0.6, 1.5, 8.0]})
    assert [clip_norms(spec, epsilon) for epsilon in (0.6, 1.5, 8.0)] == [[0.03, 0.04], [0.2, 0.9], [0.2, 0.9]]
    assert not said


def test_they_are_enqueued_once_and_a_resume_does_not_need_the_earlier_sweep(tmp_path: Path) -> None:
    earlier = earlier_sweep(tmp_path)
    spec, _ = begun(tmp_path)
    first = [Studies(spec).ask(0.5, number).config.clip_norm for number in range(1)]
    (earlier.sweep_dir / "spec.json").unlink()
    spec.save()
    again = SweepSpec.load("after", spec.storage)
    assert again == spec
    studies = Studies(again)
    first += [studies.ask(0.5, number).config.clip_norm for number in range(1, 8)]
    assert first[:2] == [0.03, 0.04]
    assert (first.count(0.03), first.count(0.04)) == (1, 1)


def test_a_setting_that_does_not_fit_is_named_and_left_out(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    search = {**spaces.DOCUMENT["search"], "clip_norm": {"float": [0.035, 1.0], "log": True}}
    spec, said = begun(tmp_path, search=search)
    assert clip_norms(spec, 0.5) == [0.04]
    assert said == ["dpsweep: --warm-start before: e0.5-001 does not fit the space at epsilon 0.5; it is left out"]


def test_a_split_of_the_same_name_that_is_another_split_does_not_fit(tmp_path: Path) -> None:
    space = spaces.space(sweep=TPE)
    draw = {"method": "feature", "split": "blur", "clip_norm": 0.5, "public_weight": 0.5}
    config = space.trial_config(0.5, draw)
    assert draw_of(space, 0.5, config) == draw
    weaker = spaces.space(sweep=TPE, splits={"blur": {"transform": "gaussian_blur", "sigma_px": 2}})
    assert draw_of(weaker, 0.5, config)["split"] is None


def test_no_such_sweep_and_one_without_a_finished_trial_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no sweep before"):
        begun(tmp_path)
    earlier_sweep(tmp_path, scores={})
    with pytest.raises(BadInput, match="none of its search trials has a score"):
        begun(tmp_path)


def test_the_command_names_what_is_missing_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quick", "--warm-start", "nope", "--storage", str(tmp_path), "--dry-run"]) == 2
    assert "no sweep nope" in capsys.readouterr().err


def test_a_private_selection_is_refused_because_its_draws_must_be_independent(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    law = {"mean_trials": 3, "shape": 1}
    sealed = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": law, "sampler": "random"}
    with pytest.raises(Refused, match="priced for independent draws"):
        begun(tmp_path, sweep=sealed)


@pytest.mark.parametrize(("sampler", "why"), [("random", "promises independent draws"), ("grid", "runs a fixed list")])
def test_other_samplers_are_refused(tmp_path: Path, sampler: str, why: str) -> None:
    earlier_sweep(tmp_path)
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.1, 0.2, 0.3, 0.4]}}
    with pytest.raises(Refused, match=why):
        begun(tmp_path, sweep={"sampler": sampler}, search=search)


def test_a_rehearsal_takes_nothing_that_private_results_chose(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    with pytest.raises(Refused, match="public_proxy promises that choosing costs nothing"):
        begun(tmp_path, **PROXY)


def test_nor_by_way_of_a_rehearsal_that_did(tmp_path: Path) -> None:
    earlier_sweep(tmp_path, "private")
    rehearsal = earlier_sweep(tmp_path, **PROXY)
    spec, _ = begun(tmp_path, **PROXY)
    assert not spec.warm_start.is_private
    tainted = spec.warm_start.model_copy(update={"sweeps": ("private",), "is_private": True})
    rehearsal.model_copy(update={"warm_start": tainted}).save()
    with pytest.raises(Refused, match="public_proxy promises that choosing costs nothing"):
        begun(tmp_path, **PROXY)


def test_a_sweep_that_another_ledger_was_charged_for_is_refused(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    elsewhere = spec_of(tmp_path, "after").model_copy(update={"ledger_url": "sqlite:///elsewhere.sqlite"})
    with pytest.raises(Refused, match="charged to another ledger"):
        with_warm_start(elsewhere, "before", say=print)


def test_plan_and_report_say_what_the_price_does_not_hold(tmp_path: Path) -> None:
    earlier_sweep(tmp_path)
    spec, _ = begun(tmp_path)
    words = "begun with settings that before chose on private results. The price of after covers only its own trials"
    plan = plan_sweep(spec.space, Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent))
    assert any(line.startswith(words) for line in plan_lines(spec, plan))
    report = build_report(results_of(spec, {0.5: [(0.1, 0.5)]}), spec=spec)
    assert words in report.text()
    assert words in report.markdown()
    assert words[1:] in report.price.caption()


def test_settings_from_a_rehearsal_cost_nothing_and_that_is_said(tmp_path: Path) -> None:
    earlier_sweep(tmp_path, **PROXY)
    spec, _ = begun(tmp_path)
    report = build_report(results_of(spec, {0.5: [(0.1, 0.5)]}), spec=spec)
    assert "begun with settings of before, which were chosen on PUBLIC data at no cost" in report.text()


def test_the_names_of_all_earlier_sweeps_are_kept(tmp_path: Path) -> None:
    earlier_sweep(tmp_path, "first")
    second = with_warm_start(earlier_sweep(tmp_path), "first", say=print)
    second.save()
    spec, _ = begun(tmp_path)
    assert spec.warm_start.sweeps == ("before", "first")
    assert "settings that before, first chose" in spec.warm_start.text("after")
