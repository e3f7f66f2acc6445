"""The schedule alone, without Ray: what runs next, once, in which order, and after a crash."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places, RuntimeFlags
from dpcore.errors import BadInput, Corrupt
from dpcore.train.attempts import Attempt
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger, LedgerLine
from sweeps.pricing.plan import Accountant, planned_runs
from sweeps.pricing.reservations import Reservations
from sweeps.records.references import free_references
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.progress import progress_line
from sweeps.search.journal import clear_journal
from sweeps.search.studies import Studies
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)


def spec_of(tmp_path: Path, *, device: str = "cpu", **sections: object) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    runtime = RuntimeFlags(device=device)
    return SweepSpec(
        name="s",
        space=spaces.space(**sections),
        places=places,
        storage=tmp_path / "store",
        runtime=runtime,
        gpus_per_trial=float(device == "cuda"),
    )


def schedule_of(spec: SweepSpec, *, key_id: str = "k", key_lost: bool = False) -> Schedule:
    ledger = Ledger(spec.resolved_ledger_url)
    schedule = Schedule(
        spec, ACCOUNTANT, Reservations(spec, ledger, ACCOUNTANT, validation=None, cohort="dd", key_id=key_id), terms=terms_of(spec)
    )
    schedule.restore(key_lost=key_lost)
    return schedule


def reserved_in(spec: SweepSpec) -> list[LedgerLine]:
    return [line for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "reserve"]


def finish(schedule: Schedule, record: TrialRecord) -> TrialRecord:
    for step in (1, 2, 3):
        schedule.report(
            record.trial_id, fake_trials.report_of(record, step, {"val/pckh_50": fake_trials.score_of(record.config) * step / 3})
        )
    return schedule.end(record.trial_id)


def run_all(schedule: Schedule) -> list[str]:
    handed = []
    while (record := schedule.next()) is not None:
        handed.append(record.trial_id)
        finish(schedule, record)
    assert schedule.is_over
    return handed


def test_the_public_start_comes_first_then_search_and_references_in_turn_then_control_and_seeds(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    assert schedule.planned == 17
    handed = run_all(schedule)
    assert handed[:7] == ["public-start", "e0.5-000", "floor-blur", "e2-000", "ceiling", "e0.5-001", "e2-001"]
    assert handed[-6:] == ["seed-e0.5-1", "seed-e0.5-2", "seed-e2-1", "seed-e2-2", "control-e0.5", "control-e2"]  # the longest first
    assert len(set(handed)) == schedule.planned == schedule.finished == 17


def test_winner_reruns_repeat_the_config_and_the_control_differs_in_the_private_weight(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    run_all(schedule)
    records = {record.trial_id: record for record in schedule.records}
    winner = max((r for r in schedule.records if r.role == "search" and r.epsilon == 2.0), key=lambda r: r.pckh_50 or 0.0)
    assert records["seed-e2-1"].config == winner.config
    control = records["control-e2"]
    assert control.config.private_weight == 0
    assert control.epsilon_spent == 0.0


def test_a_view_stage_of_fixed_length_gets_a_second_floor_that_is_trained_to_convergence(tmp_path: Path) -> None:
    space = spaces.space()
    fixed = space.model_copy(update={"trial": {**space.trial, "stages": {**space.trial["stages"], "public_view": {"steps": 5}}}})
    ids = [reference.trial_id for reference in free_references(fixed, seed=0)]
    assert ids == ["public-start", "floor-blur", "floor-blur-converged", "ceiling"]
    longer = next(r.config for r in free_references(fixed, seed=0) if r.trial_id == "floor-blur-converged")
    assert (longer.stages.public_view.until, longer.stages.public_view.steps) == ("converged", None)


def test_the_ceiling_takes_settings_of_its_own_and_refuses_unknown_ones(tmp_path: Path) -> None:
    space = spaces.space(references={"ceiling": {"optimizer.learning_rate": 0.5}})
    ceiling = next(r.config for r in free_references(space, seed=0) if r.role == "ceiling")
    assert ceiling.optimizer.learning_rate == 0.5
    with pytest.raises(BadInput, match="learning_rate"):
        free_references(spaces.space(references={"ceiling": {"optimizer.lerning_rate": 0.5}}), seed=0)


def test_tpe_tries_each_method_once_before_it_searches(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path, sweep={"sampler": "tpe"}))
    run_all(schedule)
    for epsilon in (0.5, 2.0):
        first = [r.config.method for r in schedule.records if r.role == "search" and r.epsilon == epsilon][:2]
        assert sorted(first) == ["dpsgd", "feature"]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_equal_shares_give_each_method_as_many_trials_also_after_a_resume(tmp_path: Path, sampler: str) -> None:
    spec = spec_of(tmp_path, sweep={"sampler": sampler, "method_shares": "equal", "trials_per_epsilon": 7})
    schedule = schedule_of(spec)
    for _ in range(6):
        record = schedule.next()
        assert record is not None
        finish(schedule, record)
    schedule = schedule_of(spec)
    run_all(schedule)
    searched = [record for record in schedule.records if record.role == "search"]
    for epsilon in (0.5, 2.0):
        had = Counter(record.config.method for record in searched if record.epsilon == epsilon)
        assert had == {"dpsgd": 4, "feature": 3}


def test_each_method_has_fresh_seeds_where_methods_are_to_be_compared(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"method_shares": "equal"}, references={"seeds_of": "each_method"})
    schedule = schedule_of(spec)
    planned = schedule.planned
    assert planned == planned_runs(spec.space) == 21
    handed = run_all(schedule)
    assert len(handed) == planned == schedule.planned
    seeds = [record for record in schedule.records if record.role == "seed" and record.epsilon == 2.0]
    assert [record.trial_id for record in seeds] == ["seed-e2-dpsgd-1", "seed-e2-dpsgd-2", "seed-e2-feature-1", "seed-e2-feature-2"]
    for method in ("dpsgd", "feature"):
        own = [r for r in schedule.records if r.role == "search" and r.epsilon == 2.0 and r.config.method == method]
        assert {record.config for record in seeds if record.config.method == method} == {max(own, key=lambda r: r.pckh_50 or 0.0).config}
    reserved = {line.trial_id for line in reserved_in(spec)}
    assert {record.trial_id for record in seeds} <= reserved


def test_every_private_trial_is_reserved_before_it_is_handed_out(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    schedule, ledger = schedule_of(spec), Ledger(spec.resolved_ledger_url)
    while (record := schedule.next()) is not None:
        reserved = {line.trial_id for line in ledger.open_reservations("s")}
        assert (record.trial_id in reserved) == record.config.spends_privacy
        finish(schedule, record)
    assert ledger.open_reservations("s") == ()
    assert len(ledger.lines()) == 2 * (8 + 4)


def test_a_line_holds_noise_and_probability_of_its_plan_to_all_their_digits(tmp_path: Path) -> None:
    stages = {"public_view": {"until": "converged"}, "private": {"steps": 3, "expected_batch_size": 7}}
    data = {**spaces.DOCUMENT["trial"]["data"], "nominal_examples": 1013}
    sweep = {"epsilons": [0.937], "delta": 3.17e-5}
    spec = spec_of(tmp_path, sweep=sweep, trial={"data": data, "stages": stages}, references={"floor": False, "ceiling": False})
    plan = schedule_of(spec).next().plan
    (line,) = reserved_in(spec)
    assert (line.noise_multiplier, line.sampling_prob, line.epsilon, line.delta) == (1 / 0.937, 7 / 1013, 0.937, 3.17e-5)
    assert plan is not None
    assert (plan.noise_multiplier, plan.sampling_prob) == (line.noise_multiplier, line.sampling_prob)


def test_the_sweep_waits_for_running_trials_before_control_and_seeds(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    running = [schedule.next() for _ in range(11)]
    assert schedule.next() is None
    assert not schedule.is_over
    for record in running:
        finish(schedule, record)
    assert schedule.next().role in ("control", "seed")


def test_a_resume_hands_out_running_trials_again_under_their_reservations(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    first = schedule_of(spec)
    handed = [first.next() for _ in range(6)]
    for record in handed[:4]:
        finish(first, record)
    first.report(handed[4].trial_id, fake_trials.report_of(handed[4], 1, {"val/pckh_50": 0.2}))
    second = schedule_of(spec)
    again = [second.next(), second.next()]
    assert {record.trial_id for record in again} == {record.trial_id for record in handed[4:]}
    assert {record.trial_id: record.config for record in again} == {record.trial_id: record.config for record in handed[4:]}
    for record in again:
        finish(second, record)
    rest = run_all(second)
    assert len(rest) == 11
    assert second.finished == second.planned == 17
    lines = Ledger(spec.resolved_ledger_url).lines()
    assert len([line for line in lines if line.kind == "reserve"]) == 12
    assert {record.trial_id: len(record.curve) for record in second.records} == dict.fromkeys([r.trial_id for r in second.records], 3)


def test_with_the_key_lost_open_trials_are_charged_and_replaced(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    first = schedule_of(spec)
    open_ids = {first.next().trial_id for _ in range(5)}
    second = schedule_of(spec, key_id="new", key_lost=True)
    records = {record.trial_id: record for record in second.records}
    assert {records[trial_id].state for trial_id in open_ids} == {"failed"}
    handed = run_all(second)
    assert not open_ids & set(handed)
    assert {"public-start.again", "floor-blur.again", "ceiling.again"} <= set(handed)
    assert second.finished == second.planned == 17
    reserved = [line for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "reserve"]
    assert len(reserved) == 12 + 2


@pytest.mark.parametrize(("device", "attempts"), [("cpu", [0, 0]), ("cuda", [0, 1])])
def test_a_retry_replays_on_a_cpu_and_is_a_new_attempt_elsewhere(tmp_path: Path, device: str, attempts: list[int]) -> None:
    spec = spec_of(tmp_path, device=device, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    record = schedule.next()
    schedule.report(record.trial_id, fake_trials.report_of(record, 1, {"val/pckh_50": 0.2}))
    spec.checkpoint_dir(record.trial_id).mkdir(parents=True)
    assert not schedule.worker_died(record.trial_id, "killed").is_finished
    again = schedule.next()
    assert [record.attempt, again.attempt] == attempts
    assert len(again.curve) == 1 - attempts[1]
    assert len(reserved_in(spec)) == 1 + attempts[1]


def test_a_new_attempt_goes_on_from_the_checkpoint_and_has_the_remaining_steps_reserved_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    record = schedule.next()
    schedule.report(record.trial_id, fake_trials.report_of(record, 2, {"val/pckh_50": 0.2}))
    (spec.checkpoint_dir(record.trial_id) / "checkpoint-000002").mkdir(parents=True)
    told = schedule.not_replayable(record.trial_id, "other libraries")
    assert "attempt 1 continues from step 2 with fresh noise, charged again: other libraries" in progress_line(told, finished=0, planned=1)
    again = schedule.next()
    assert (again.attempt, again.from_step, again.curve) == (1, 2, ())
    first, second = reserved_in(spec)
    assert (first.attempt, first.steps, first.epsilon) == (0, 3, 0.5)
    assert (second.attempt, second.steps, second.noise_multiplier) == (1, 1, first.noise_multiplier)
    resumed = schedule_of(spec)
    assert (resumed.records[0].attempt, resumed.records[0].from_step) == (1, 2)
    resumed.next()
    assert len(reserved_in(spec)) == 2
    done = finish(resumed, resumed.records[0])
    assert (done.state, done.error) == ("done", None)
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()


def test_a_trial_that_can_never_be_replayed_fails_after_as_many_attempts_as_were_fixed_beforehand(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    for _ in range(3):
        record = schedule.not_replayable(schedule.next().trial_id, "other machine")
    assert record.state == "failed"
    assert "other machine (after 3 tries)" in record.error
    assert [line.attempt for line in reserved_in(spec)] == [0, 1, 2]


def test_a_trial_without_memory_goes_on_at_half_its_physical_batch_down_to_one_and_each_attempt_is_charged(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    record = schedule.next()
    (spec.checkpoint_dir(record.trial_id) / "checkpoint-000001").mkdir(parents=True)
    told = schedule.out_of_memory(record.trial_id, "CUDA out of memory", physical_batch_size=5)
    assert "attempt 1 continues from step 1 with fresh noise, 2 examples at once, charged again" in progress_line(
        told, finished=0, planned=1
    )
    resumed = schedule_of(spec)
    again = resumed.next()
    assert again.current_attempt == Attempt(number=1, from_step=1, physical_batch_size=2)
    assert not resumed.worker_died(again.trial_id, "killed").is_finished
    assert resumed.next().current_attempt == again.current_attempt  # on a CPU the very same release
    resumed.out_of_memory(again.trial_id, "CUDA out of memory", physical_batch_size=2)
    last = resumed.next()
    assert (last.attempt, last.physical_batch_size) == (2, 1)
    failed = resumed.out_of_memory(last.trial_id, "CUDA out of memory", physical_batch_size=1)
    assert (failed.state, failed.error) == ("failed", "CUDA out of memory")
    assert [(line.attempt, line.steps) for line in reserved_in(spec)] == [(0, 3), (1, 2), (2, 2)]
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()


def test_a_new_attempt_over_the_cap_is_not_started(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"epsilon_total": 0.6, "epsilons": [0.5]}, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    schedule.not_replayable(schedule.next().trial_id, "other machine")
    assert schedule.next() is None
    assert "epsilon_total" in schedule.stopped_by
    assert len(reserved_in(spec)) == 1


@pytest.mark.parametrize("left", [None, "result.json"])
def test_without_exact_arithmetic_nothing_is_charged_again_where_nothing_is_computed_again(tmp_path: Path, left: str | None) -> None:
    spec = spec_of(tmp_path, device="cuda", references={"floor": False, "ceiling": False})
    record = schedule_of(spec).next()
    if left is not None:
        folder = spec.checkpoint_dir(record.trial_id)
        folder.mkdir(parents=True)
        for name in ("trial.json", left):
            (folder / name).touch()
    assert schedule_of(spec).next().attempt == 0
    assert len(reserved_in(spec)) == 1


def test_a_trial_that_keeps_dying_fails_and_is_counted_once(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    ends = []
    for _ in range(3):
        record = schedule.next()
        assert record.trial_id == "public-start"
        ends.append(schedule.worker_died(record.trial_id, "the worker died: its process was killed or crashed").state)
    assert ends == ["running", "running", "failed"]
    assert schedule.finished == 1


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path))
    record = schedule.next()
    schedule.report(record.trial_id, fake_trials.report_of(record, 1, {"val/pckh_50": float("nan")}))
    assert schedule.end(record.trial_id).state == "failed"


def test_the_cap_stops_the_search_and_says_so(tmp_path: Path) -> None:
    schedule = schedule_of(spec_of(tmp_path, sweep={"epsilon_total": 6.0}))
    handed = run_all(schedule)
    assert "epsilon_total 6" in schedule.stopped_by
    assert not [name for name in handed if name.startswith("seed")]
    spent = sum(r.epsilon or 0.0 for r in schedule.records if r.role == "search" and r.state == "done")
    assert spent <= 6.0
    assert schedule.finished == schedule.planned


def test_a_draw_that_was_to_be_tried_outlives_a_kill_between_asking_and_handing_out(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"sampler": "tpe"})
    first = Studies(spec)._studies[0.5].ask()
    resumed = Studies(spec)
    assert list(resumed.records()) == []
    states = [(trial.state.name, trial.system_attrs.get("fixed_params")) for trial in resumed._studies[0.5].get_trials(deepcopy=False)]
    assert states == [("FAIL", {"method": "dpsgd"}), ("WAITING", {"method": "feature"}), ("WAITING", {"method": "dpsgd"})]
    assert first.number == 0


def test_draws_that_the_config_refuses_are_pruned_and_never_counted(tmp_path: Path) -> None:
    search = {
        "method": {"choice": ["projected"]},
        "clip_norm": {"float": [0.1, 1.0]},
        "subspace.rank": {"int": [1, 600]},
    }
    spec = spec_of(tmp_path, search=search, references={"floor": False, "ceiling": False, "winner_seeds": 0})
    clear_journal(spec.study_path)
    studies = Studies(spec)
    records = [studies.ask(2.0, number) for number in range(12)]
    assert all(record.config.subspace.rank <= 256 for record in records)
    assert len(list(studies.records())) == 12
    states = [trial.state.name for trial in studies._studies[2.0].trials]
    assert states.count("PRUNED") > 0
    assert states.count("RUNNING") == 12


def test_fifty_refusals_end_with_the_rule(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    search = {**spec.space.search, "subspace.rank": type(spec.space.search["clip_norm"]).model_validate({"float": [1, 2]})}
    broken = spec.model_copy(update={"space": spec.space.model_copy(update={"search": search})})
    with pytest.raises(BadInput, match="50 draws in a row were refused"):
        Studies(broken).ask(0.5, 0)


def test_a_resumed_study_does_not_draw_its_first_draws_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    norms = [Studies(spec).ask(0.5, number).config.clip_norm for number in range(6)]
    assert len(set(norms)) == 6


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_search_is_reproducible_from_its_seed(tmp_path: Path, sampler: str) -> None:
    runs = []
    for which in ("a", "b"):
        schedule = schedule_of(spec_of(tmp_path / which, sweep={"sampler": sampler}))
        run_all(schedule)
        runs.append({record.trial_id: record.config for record in schedule.records})
    assert runs[0] == runs[1]


def test_a_grid_runs_each_point_once(tmp_path: Path) -> None:
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"choice": [0.1, 0.2, 0.3]}, "optimizer.momentum": {"choice": [0.0, 0.9]}}
    spec = spec_of(tmp_path, sweep={"sampler": "grid", "trials_per_epsilon": None}, search=search)
    schedule = schedule_of(spec)
    run_all(schedule)
    points = [(r.config.clip_norm, r.config.optimizer.momentum) for r in schedule.records if r.role == "search" and r.epsilon == 2.0]
    assert sorted(points) == sorted(itertools.product([0.1, 0.2, 0.3], [0.0, 0.9]))


def test_half_a_line_of_journal_or_reports_is_dropped(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    first = schedule_of(spec)
    finish(first, first.next())
    for path in (spec.study_path, spec.reports_path):
        with path.open("a") as file:
            file.write('{"half')
    second = schedule_of(spec)
    assert second.finished == 1
    assert len(run_all(second)) == 16


def test_a_trial_that_would_read_other_people_than_the_sweep_ends_it_before_it_is_charged(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0})
    schedule = schedule_of(spec)
    first = schedule.next()
    assert first is not None
    reservations = Reservations(spec, Ledger(spec.resolved_ledger_url), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    for changes in ({"data.private": "clinic_b"}, {"data.validation": "clinic_b"}, {"labels": "private"}, {"privacy_unit": "person"}):
        foreign = replace(first, trial_id="e0.5-999", config=first.config.changed(**changes))
        with pytest.raises(Corrupt, match="than the sweep"):
            reservations.reserve(foreign)
    assert [line.trial_id for line in reserved_in(spec)] == [first.trial_id]
