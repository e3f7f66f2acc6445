"""The time of a plan from what an earlier sweep recorded, and what the plan says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import Corrupt
from sweeps.engine.preflight import plan_of
from sweeps.pricing.duration import estimate_duration, span
from sweeps.pricing.plan import SweepPlan
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.plan_text import NO_TIME, plan_lines

SECONDS = {"search": 10.0, "seed": 20.0, "control": 5.0, "floor": 40.0, "ceiling": 100.0}


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return SweepSpec(name="next", space=spaces.space(), places=places, storage=tmp_path / "store", max_concurrent=2)


def plan_for(spec: SweepSpec) -> SweepPlan:
    return plan_of(spec, fake_trials.surroundings())


def leave_results(spec: SweepSpec, name: str, *, age_s: float = 0.0, factor: float = 1.0) -> SweepSpec:
    """A sweep that ended `age_s` ago, with one run of each role, and a failed one that counts for nothing."""
    earlier = spec.model_copy(update={"name": name})
    earlier.save()
    config = spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    ids = {"floor": plan_for(spec).references[0], "ceiling": "ceiling"}
    done = [
        TrialRecord(trial_id=ids.get(role, f"{role}-0"), role=role, number=0, config=config, state="done", pckh_50=0.5, seconds=s * factor)
        for role, s in SECONDS.items()
    ]
    failed = replace(done[0], trial_id="e0.5-001", state="failed", seconds=9999.0)
    SweepResults(name=name, records=(*done, failed), accounting="composed", delta=1e-5).write_parquet(earlier.sweep_dir / "results")
    written = earlier.sweep_dir / "results" / "sweep.json"
    os.utime(written, times=(written.stat().st_mtime - age_s,) * 2)
    return earlier


def test_without_an_earlier_sweep_there_is_no_estimate(spec: SweepSpec) -> None:
    assert estimate_duration(spec, plan_for(spec)) is None
    assert plan_lines(spec, plan_for(spec))[-1] == NO_TIME


def test_each_planned_run_takes_what_its_kind_took(spec: SweepSpec) -> None:
    plan = plan_for(spec)
    leave_results(spec, "before")
    duration = estimate_duration(spec, plan)
    assert duration is not None
    # Two ε of four trials, two fresh seeds and a control each; a reference that did not run takes the mean of all.
    others = len(plan.references) - 2
    assert duration.trial_s == pytest.approx(2 * (4 * 10 + 2 * 20 + 5) + 40 + 100 + others * 35)
    assert (duration.at_a_time, duration.source, duration.measured) == (2, "before", 5)
    assert "2 at a time" in plan_lines(spec, plan)[-1]
    assert "5 ended runs of sweep before" in plan_lines(spec, plan)[-1]


def test_more_trials_and_other_epsilons_are_the_same_space_and_take_longer(spec: SweepSpec) -> None:
    leave_results(spec, "before")
    more = spec.model_copy(update={"space": spaces.space(sweep={"epsilons": [1.0, 4.0], "trials_per_epsilon": 8})})
    base, longer = estimate_duration(spec, plan_for(spec)), estimate_duration(more, plan_for(more))
    assert base is not None
    assert longer is not None
    assert longer.trial_s == pytest.approx(base.trial_s + 2 * 4 * 10)


def test_another_space_or_other_resources_tell_nothing(spec: SweepSpec) -> None:
    leave_results(spec, "before")
    longer = spaces.space(trial={"stages": {"public_view": {"steps": 5}, "private": {"steps": 30, "expected_batch_size": 10}}})
    for change in ({"space": longer}, {"cpus_per_trial": 4.0}):
        other = spec.model_copy(update=change)
        assert estimate_duration(other, plan_for(other)) is None


def test_a_sweep_that_recorded_no_time_tells_nothing(spec: SweepSpec) -> None:
    leave_results(spec, "before", factor=0.0)
    assert estimate_duration(spec, plan_for(spec)) is None


def test_the_sweep_that_ended_last_is_taken(spec: SweepSpec) -> None:
    leave_results(spec, "a-old", age_s=1000.0, factor=7.0)
    leave_results(spec, "b-new")
    leave_results(spec, "c-old", age_s=500.0, factor=3.0)
    duration = estimate_duration(spec, plan_for(spec))
    assert duration is not None
    assert duration.source == "b-new"


def test_on_a_cluster_the_time_of_all_trials_is_said_and_no_more(spec: SweepSpec) -> None:
    leave_results(spec, "before")
    cluster = spec.model_copy(update={"address": "auto", "max_concurrent": None})
    duration = estimate_duration(cluster, plan_for(cluster))
    assert duration is not None
    assert duration.at_a_time is None
    assert "divided by how many the cluster runs together" in duration.text()


def test_a_spec_that_does_not_read_is_named(spec: SweepSpec) -> None:
    earlier = leave_results(spec, "before")
    (earlier.sweep_dir / "spec.json").write_text("{")
    with pytest.raises(Corrupt, match=r"before/spec\.json"):
        estimate_duration(spec, plan_for(spec))
    (earlier.sweep_dir / "spec.json").write_text(json.dumps([]))
    assert estimate_duration(spec, plan_for(spec)) is None


@pytest.mark.parametrize("accounting", ["composed", "unaccounted"])
def test_a_plan_says_what_unaccounted_hides(spec: SweepSpec, accounting: str) -> None:
    said = spec.model_copy(update={"space": spaces.space(sweep={"accounting": accounting})})
    text = "\n".join(plan_lines(said, plan_for(said)))
    assert "private steps in all: 36" in text
    assert "unaccounted shows each trial's own epsilon (0.5, 2) and hides the 15 that choosing costs" in text
    assert ("no end-to-end guarantee" in text) == (accounting == "unaccounted")


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (600, "10 min"), (3 * 3600, "3.0 h")])
def test_a_span_is_in_the_unit_that_a_person_would_use(seconds: float, text: str) -> None:
    assert span(seconds) == text
