"""The studies of a sweep: what they remember, and how little an ask and a tell write."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_trials
import optuna
import pytest
import spaces

from dpcore.config import Places
from dpcore.durable import without_sum
from search_spaces.space import Choice, FloatRange, IntRange
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.search.studies import Studies, distribution_of, suggest
from sweeps.search.tpe import STARTUP, SharedTPESampler


def spec_of(tmp_path: Path, *, name: str = "s", **sections: object) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name=name, space=spaces.space(**sections), places=places, storage=tmp_path / "store")


def scored(record: TrialRecord) -> TrialRecord:
    point = CurvePoint(3, {"val/pckh_50": fake_trials.score_of(record.config)})
    return record.with_point(point).ended(seconds=1.5)


def finish(studies: Studies, epsilon: float, number: int) -> TrialRecord:
    record = scored(studies.ask(epsilon, number))
    studies.tell(record)
    return record


def test_an_ask_and_a_tell_are_one_write_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = Studies(spec_of(tmp_path, sweep={"sampler": "tpe"}))
    writes: list[int] = []
    journal = studies._storage._backend
    write = journal._write
    monkeypatch.setattr(journal, "_write", lambda lines: (writes.append(len(lines)), write(lines)))
    record = studies.ask(0.5, 0)
    assert len(writes) == 1
    studies.tell(scored(record))
    assert len(writes) == 2


def test_what_a_driver_told_the_next_one_remembers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    studies = Studies(spec)
    done = finish(studies, 0.5, 0)
    failed = replace(studies.ask(0.5, 1), state="failed", error="out of memory", seconds=2.0)
    studies.tell(failed, replaced=True)
    running = studies.ask(2.0, 0)
    found = {record.trial_id: (record, replaced) for record, replaced in Studies(spec).records()}
    assert found.keys() == {"e0.5-000", "e0.5-001", "e2-000"}
    assert found["e0.5-000"] == (replace(done, curve=(), steps=0, pckh_50=None), False)
    assert found["e0.5-001"] == (failed, True)
    assert found["e2-000"] == (replace(running, state="running"), False)


def test_tpe_shares_trials_over_the_epsilons_and_other_samplers_are_independent(tmp_path: Path) -> None:
    for sampler, kind in (("tpe", SharedTPESampler), ("random", optuna.samplers.RandomSampler)):
        studies = Studies(spec_of(tmp_path / sampler, sweep={"sampler": sampler}))
        assert {type(study.sampler) for study in studies._studies.values()} == {kind}
        assert type(studies._references.sampler) is optuna.samplers.RandomSampler


def neighbours_of(studies: Studies, epsilon: float) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in studies._studies[epsilon].get_trials(deepcopy=False) if "from" in trial.user_attrs]


def in_turn(studies: Studies, rounds: range) -> None:
    for number in rounds:
        for epsilon in studies._studies:
            finish(studies, epsilon, number)


def best_params(studies: Studies, epsilon: float) -> list[dict[str, Any]]:
    trials = [trial for trial in studies._studies[epsilon].get_trials(deepcopy=False) if "from" not in trial.user_attrs]
    return [dict(trial.params) for trial in sorted(trials, key=lambda trial: trial.value or 0.0, reverse=True)]


def test_the_best_of_the_nearest_epsilon_are_tried_once_after_the_start_up_and_not_again_on_resume(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"sampler": "tpe", "epsilons": [0.5, 2.0, 16.0]})
    studies = Studies(spec)
    in_turn(studies, range(STARTUP))
    assert not neighbours_of(studies, 0.5)
    expected = best_params(studies, 2.0)[:2]
    asked = studies.ask(0.5, STARTUP)
    assert {trial.user_attrs["from"] for trial in neighbours_of(studies, 0.5)} == {"s/epsilon-2"}
    assert [trial.system_attrs["fixed_params"] for trial in neighbours_of(studies, 0.5)] == expected
    assert asked.config.clip_norm == expected[0]["clip_norm"]
    resumed = Studies(spec)
    in_turn(resumed, range(STARTUP + 1, STARTUP + 4))
    assert [len(neighbours_of(resumed, epsilon)) for epsilon in (0.5, 2.0, 16.0)] == [2, 2, 2]
    assert {trial.user_attrs["from"] for trial in neighbours_of(resumed, 16.0)} == {"s/epsilon-2"}


def test_trials_that_were_stopped_early_are_past_the_start_up_but_give_a_neighbour_nothing(tmp_path: Path) -> None:
    studies = Studies(spec_of(tmp_path, sweep={"sampler": "tpe"}))
    for number in range(STARTUP):
        for epsilon in (0.5, 2.0):
            record = studies.ask(epsilon, number)
            record = record.with_point(CurvePoint(1, {"val/pckh_50": 0.5 if number == 3 else 0.6}))
            studies.report(record)
            studies.tell(record.ended(seconds=1.0, stopped=number != 3))
    studies.ask(0.5, STARTUP)
    (given,) = neighbours_of(studies, 0.5)
    assert given.system_attrs["fixed_params"] == studies._studies[2.0].get_trials(deepcopy=False)[3].params


def test_a_neighbours_setting_that_is_not_admissible_here_is_passed_over(tmp_path: Path) -> None:
    narrow = {0.5: {"clip_norm": {"float": [0.01, 0.02], "log": True}}}
    studies = Studies(spec_of(tmp_path, sweep={"sampler": "tpe"}, search_at=narrow))
    in_turn(studies, range(STARTUP))
    studies.ask(0.5, STARTUP)
    assert all(0.01 <= trial.system_attrs["fixed_params"]["clip_norm"] <= 0.02 for trial in neighbours_of(studies, 0.5))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_that_break_a_constraint_are_told_pruned_by_optunas_own_word_and_never_counted(tmp_path: Path, sampler: str) -> None:
    spec = spec_of(tmp_path, sweep={"sampler": sampler}, constraints=["clip_norm < 0.04 or method == dpsgd"])
    studies = Studies(spec)
    records = [finish(studies, 0.5, number) for number in range(14)]
    assert all(record.config.clip_norm < 0.04 or record.config.method == "dpsgd" for record in records)
    assert len(list(studies.records())) == 14
    trials = studies._studies[0.5].get_trials(deepcopy=False)
    refused = [trial for trial in trials if "record" not in trial.user_attrs]
    assert refused
    for trial in refused:
        assert trial.state.name == "PRUNED"
        assert trial.constraints == {"constraints": 1.0}
        assert trial.params["clip_norm"] >= 0.04
        assert "constraint `clip_norm < 0.04 or method == dpsgd` does not hold (clip_norm" in trial.user_attrs["refused"]
    assert [trial.state.name for trial in trials if "record" in trial.user_attrs] == ["COMPLETE"] * 14


def test_a_grid_skips_the_points_that_break_a_constraint(tmp_path: Path) -> None:
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.07, 0.3, 1.1]}, "subspace.examples": {"choice": [16, 64]}}
    constraints = ["clip_norm * subspace.examples < 30"]
    spec = spec_of(tmp_path, sweep={"sampler": "grid", "trials_per_epsilon": None}, search=search, constraints=constraints)
    studies = Studies(spec)
    records = [studies.ask(2.0, number) for number in range(5)]
    drawn = {(record.config.clip_norm, record.config.subspace.examples) for record in records}
    assert drawn == {(0.07, 16), (0.07, 64), (0.3, 16), (0.3, 64), (1.1, 16)}
    assert [trial.state.name for trial in studies._studies[2.0].get_trials(deepcopy=False)] == ["RUNNING"] * 5


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_independent_draws_ask_no_neighbour(tmp_path: Path, sampler: str) -> None:
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.01 * n for n in range(1, 17)]}}
    studies = Studies(spec_of(tmp_path, sweep={"sampler": sampler, "trials_per_epsilon": 16}, search=search))
    in_turn(studies, range(STARTUP + 2))
    assert not neighbours_of(studies, 0.5)
    assert not neighbours_of(studies, 2.0)


@pytest.mark.parametrize("path", ["method", "clip_norm", "subspace.rank"])
def test_a_parameter_is_one_distribution_however_it_is_asked_for(path: str) -> None:
    search = {"method": {"choice": ["dpsgd", None]}, "clip_norm": {"float": [0.01, 1.0], "log": True}, "subspace.rank": {"int": [1, 9]}}
    kinds = {"choice": Choice, "float": FloatRange, "int": IntRange}
    parameter = next(kind.model_validate(search[path]) for name, kind in kinds.items() if name in search[path])
    study = optuna.create_study()
    trial = study.ask()
    suggest(trial, path, parameter)
    assert trial.distributions[path] == distribution_of(parameter)


def test_plain_optuna_reads_scores_settings_and_records(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    done = finish(Studies(spec), 0.5, 0)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(spec.study_path)))
    (trial,) = optuna.load_study(study_name="s/epsilon-0.5", storage=storage).trials
    assert trial.value == done.pckh_50
    assert trial.params["clip_norm"] == done.config.clip_norm
    assert json.loads(trial.user_attrs["record"])["trial_id"] == "e0.5-000"
    assert without_sum(trial.user_attrs["end"], where="its end") == {"seconds": 1.5, "error": None, "replaced": False}
