"""The time of a plan from the times of single steps."""

from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.errors import BadInput, Refused
from dpcore.train import timing
from dpcore.train.timing import StepTimes
from sweeps.cli import main
from sweeps.engine.preflight import plan_of
from sweeps.models.timing import one_of_each_method, timed_duration
from sweeps.records.spec import SweepSpec
from sweeps.report.plan_text import plan_lines

TIMES = StepTimes(start_s=1.0, public_step_s=0.1, view_step_s=0.2, private_step_s=2.0, evaluation_s=3.0, feature_s=0.01)


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return SweepSpec(name="new", space=spaces.space(), places=places, storage=tmp_path / "store", max_concurrent=2)


def test_the_parts_of_a_plan_add_up(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()

    def times(config: TrialConfig, runtime: RuntimeFlags, places: Places) -> StepTimes:
        seen.append(config.method)
        return TIMES

    monkeypatch.setattr(timing, "time_steps", times)
    plan = plan_of(spec, fake_trials.surroundings())
    found = timed_duration(spec, plan)
    assert seen == ["dpsgd", "feature"]
    # A trial: its start, three steps, one score. Two ε of four trials, two fresh seeds and a control, and the references.
    runs = 2 * (4 + 2 + 1) + len(plan.references)
    assert found.trial_s == pytest.approx(runs * (1 + 3 * 2 + 3))
    # Once: no public stage here, a view stage of one split to its last step, features of a thousand pictures and their views.
    assert found.once_s == pytest.approx(3000 * 0.2 + 2 * 1000 * 0.01)
    assert found.wall_s == pytest.approx(found.once_s + found.trial_s / 2)
    line = plan_lines(spec, plan, found)[-1]
    assert line == "wall time: about 12 min on 2 slots at most (some steps of 2 methods timed here on PUBLIC people)"


def test_every_private_method_of_a_space_is_timed_once(spec: SweepSpec) -> None:
    assert [config.method for config in one_of_each_method(spec.space)] == ["dpsgd", "feature"]


def test_what_runs_elsewhere_is_not_timed_here(spec: SweepSpec) -> None:
    elsewhere = spec.model_copy(update={"address": "auto"})
    with pytest.raises(Refused, match="timed on this machine's CPUs"):
        timed_duration(elsewhere, plan_of(spec, fake_trials.surroundings()))


def test_a_sweep_that_runs_takes_no_time_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quick", "--time"]) == BadInput.exit_code
    assert "--time goes with --dry-run" in capsys.readouterr().err
