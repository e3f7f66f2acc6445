"""A private selection: the law of its number, independent secret draws, nothing of losers outside the seal, and resume."""

import json
import math
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import numpy as np
import pytest
import spaces
from scipy.stats import binomtest, kstest

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.errors import BadInput, Refused
from dpcore.privacy.claim import PrivacyClaim, claim_of
from dpcore.privacy.randomness import SweepKey
from search_spaces.space import SelectionLaw
from sweeps.engine.schedule import Schedule
from sweeps.ledger.charges import SelectionTerms
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant, private_config
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import Selection, candidate_configs, check_key, draw_count, winner_claim
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
KEY = SweepKey(bytes(range(32)))
NO_REFERENCES = {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0}
LAWS = [
    SelectionLaw(mean_trials=6, shape=1.0),
    SelectionLaw(mean_trials=6, shape=0.0),
    SelectionLaw(mean_trials=6, shape=0.5),
    SelectionLaw(mean_trials=20, shape=2.0),
    SelectionLaw(mean_trials=6, shape="inf"),
]


def probability(law: SelectionLaw, k: int) -> float:
    """P[K = k] as Papernot and Steinke 2022 give it (Definition 1), γ found by bisection of the mean."""
    mean, shape = law.mean_trials, law.shape_number
    if math.isinf(shape):
        return math.exp(-mean) * mean**k / math.factorial(k)

    def mean_at(gamma: float) -> float:
        if shape == 0:
            return (1 / gamma - 1) / math.log(1 / gamma)
        return shape * (1 - gamma) / (gamma * (1 - gamma**shape))

    low, high = 1e-9, 1 - 1e-9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_at(middle) > mean else (low, middle)
    if shape == 0:
        return (1 - low) ** k / (k * math.log(1 / low))
    product = math.prod((j + shape) / (j + 1) for j in range(k))
    return (1 - low) ** k / (low**-shape - 1) * product


def spec_of(tmp_path: Path, *, device: str = "cpu", law: SelectionLaw = LAWS[0], **sections: Any) -> SweepSpec:
    sweep = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": law.model_dump(), **sections.pop("sweep", {})}
    return SweepSpec(
        name="s",
        space=spaces.space(sweep=sweep, **sections),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        runtime=RuntimeFlags(device=device),
        gpus_per_trial=float(device == "cuda"),
    )


def schedule_of(spec: SweepSpec, key: SweepKey = KEY) -> Schedule:
    ledger = Ledger(spec.resolved_ledger_url)
    reservations = Reservations(spec, ledger, ACCOUNTANT, validation=None, cohort="c", key_id=key.key_id())
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec), selection=Selection(spec, key))
    schedule.restore(key_lost=False)
    return schedule


def run_one(schedule: Schedule, record: TrialRecord, *, score: float | None = None) -> TrialRecord:
    folder = schedule.folder(record)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(record.trial_id)
    for step in (1, 2, 3):
        value = fake_trials.score_of(record.config) * step / 3 if score is None else score
        schedule.report(record.trial_id, fake_trials.report_of(record, step, {"val/pckh_50": value}, f"{record.trial_id}-{step}"))
    return schedule.end(record.trial_id)


def run_all(schedule: Schedule, **given: float) -> list[TrialRecord]:
    handed = []
    while (record := schedule.next()) is not None:
        handed.append(run_one(schedule, record, **given if record.role == "search" else {}))
    schedule.take_released()
    assert schedule.is_over
    schedule.close()
    return handed


def searched(handed: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in handed if record.role == "search"]


@pytest.mark.parametrize("law", LAWS, ids=SelectionLaw.text)
def test_the_number_of_trials_follows_its_law_and_no_other(law: SelectionLaw) -> None:
    counts = np.array([draw_count(law, u) for u in np.random.default_rng(1).random(40_000)])
    most = int(counts.max()) + 1
    least = 0 if math.isinf(law.shape_number) else 1
    expected = np.array([probability(law, k) for k in range(least, most)])
    seen = np.array([(counts == k).mean() for k in range(least, most)])
    assert expected.sum() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(seen - expected).max() < 0.012
    assert counts.mean() == pytest.approx(law.mean_trials, rel=0.03)
    for other in LAWS:
        if other != law:
            wrong = np.array([0.0 if k == 0 and not math.isinf(other.shape_number) else probability(other, k) for k in range(least, most)])
            assert np.abs(seen - wrong).max() > 0.012


def test_the_edges_of_a_law() -> None:
    assert draw_count(SelectionLaw(mean_trials=1, shape=1.0), 0.9) == 1
    assert draw_count(LAWS[-1], 0.0) == 0
    assert draw_count(LAWS[0], 1 - 2.0**-53) < 500


def test_the_number_and_the_draws_follow_the_key_and_not_the_seed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    mine, again = Selection(spec, KEY), Selection(spec.model_copy(update={"seed": 0}), KEY)
    other = Selection(spec, SweepKey(bytes(32)))
    assert [mine.candidate(0.5, n) for n in range(5)] == [again.candidate(0.5, n) for n in range(5)]
    assert not {mine.candidate(0.5, n).trial_id for n in range(5)} & {other.candidate(0.5, n).trial_id for n in range(5)}
    assert len({mine.candidate(0.5, n).config.clip_norm for n in range(20)}) == 20
    counts = {Selection(spec, SweepKey(bytes([k]) * 32)).count(0.5) for k in range(20)}
    assert len(counts) > 3
    assert mine.candidate(0.5, 0).config.model_dump(exclude={"seed"}) != mine.candidate(2.0, 0).config.model_dump(exclude={"seed"})


def test_only_the_winner_of_each_epsilon_comes_out(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"winner_seeds": 1})
    schedule = schedule_of(spec)
    selection = Selection(spec, KEY)
    counts = {e: selection.count(e) for e in (0.5, 2.0)}
    handed = run_all(schedule)
    tried = searched(handed)
    assert {e: sum(r.epsilon == e for r in tried) for e in counts} == counts
    winners = [r for r in schedule.records if r.role == "search"]
    assert [w.epsilon for w in winners] == [0.5, 2.0]
    for winner in winners:
        assert winner.pckh_50 == max(r.pckh_50 for r in tried if r.epsilon == winner.epsilon)
        assert (spec.checkpoint_dir(winner.trial_id) / "weights").read_text() == winner.trial_id
    losers = {r.trial_id for r in tried} - {w.trial_id for w in winners}
    assert losers
    everything = b"".join(path.read_bytes() for path in spec.storage.rglob("*") if path.is_file())
    assert not [loser for loser in losers if loser.encode() in everything]
    assert not [path for path in spec.storage.rglob("*") if any(loser in path.name for loser in losers)]
    assert not spec.selection_dir.exists()
    assert schedule.finished == schedule.planned == len(schedule.records)


def test_until_a_selection_is_over_nothing_of_it_is_seen_and_its_folder_is_sealed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, law=SelectionLaw(mean_trials=60), references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    for _ in range(3):
        run_one(schedule, schedule.next())
    running = schedule.next()
    assert schedule.is_hidden(running)
    assert (schedule.records, schedule.finished, schedule.take_released()) == ((), 0, ())
    assert schedule.has_begun
    assert not spec.reports_path.exists()
    assert running.trial_id not in spec.study_path.read_text()
    assert stat.S_IMODE(spec.selection_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((spec.selection_dir / "journal.jsonl").stat().st_mode) == 0o600
    status = sweep_status(spec, ACCOUNTANT)
    assert [(one["planned"], one["running"], one["done"], one["best"]) for one in status["epsilons"]] == [(1, 0, 0, None)] * 2


def test_progress_counts_winners_and_never_how_many_were_drawn(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, law=SelectionLaw(mean_trials=20), references=NO_REFERENCES)
    schedule, shown = schedule_of(spec), set()
    assert [Selection(spec, KEY).count(epsilon) for epsilon in (0.5, 2.0)] != [1, 1]
    while (record := schedule.next()) is not None:
        run_one(schedule, record)
        shown.add((schedule.planned, schedule.finished, len(schedule.records)))
    assert {planned for planned, _, _ in shown} == {2}
    assert all(finished == seen <= 2 for _, finished, seen in shown)


def test_a_selection_is_one_line_of_the_ledger_with_its_law_before_its_first_trial(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False, "winner_seeds": 1})
    schedule, ledger = schedule_of(spec), Ledger(spec.resolved_ledger_url)
    schedule.next()
    lines = ledger.lines()
    assert [(line.trial_id, line.kind) for line in lines] == [("selection-e0.5", "reserve"), ("selection-e2", "reserve")]
    assert {line.priced_by for line in lines} == {SelectionTerms(mean_trials=6.0, shape=1.0).text()}
    assert [line.epsilon for line in lines] == [3 * 0.5, 3 * 2.0]
    run_all(schedule_of(spec))
    reserved = [line.trial_id for line in ledger.lines() if line.kind == "reserve"]
    assert sorted(reserved) == ["seed-e0.5-1", "seed-e2-1", "selection-e0.5", "selection-e2"]
    assert ledger.open_reservations("s") == ()
    assert ledger.verify(fake_trials.epsilon_of) == ()


def test_a_resume_runs_what_is_left_and_releases_the_same_winners(tmp_path: Path) -> None:
    undisturbed = schedule_of(spec_of(tmp_path / "a"))
    all_handed = searched(run_all(undisturbed))
    spec = spec_of(tmp_path / "b")
    first = schedule_of(spec)
    done = [run_one(first, first.next()) for _ in range(8)]
    lost = first.next()
    second = schedule_of(spec)
    rest = run_all(second)
    assert lost.trial_id in {record.trial_id for record in rest}
    twice = {r.trial_id for r in searched(done)} & {r.trial_id for r in searched(rest)}
    assert not twice
    assert {r.trial_id for r in searched(done + rest)} == {r.trial_id for r in all_handed}

    def winners(schedule: Schedule) -> list[tuple[str, float | None]]:
        return sorted((r.trial_id, r.pckh_50) for r in schedule.records if r.role == "search")

    assert winners(second) == winners(undisturbed)
    third = schedule_of(spec)
    assert third.next() is None
    assert winners(third) == winners(undisturbed)
    assert Ledger(spec.resolved_ledger_url).open_reservations("s") == ()


def test_a_crash_between_the_last_end_and_the_release_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0})
    schedule = schedule_of(spec)
    with monkeypatch.context() as patched:
        patched.setattr(type(schedule._studies), "select", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_all(schedule)
    again = schedule_of(spec)
    run_all(again)
    assert [record.epsilon for record in again.records] == [0.5, 2.0]
    assert all((spec.checkpoint_dir(record.trial_id) / "weights").is_file() for record in again.records)


def test_a_failed_trial_is_the_lowest_score_and_is_not_drawn_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    count = sum(Selection(spec, KEY).count(epsilon) for epsilon in (0.5, 2.0))
    assert len(run_all(schedule, score=math.nan)) == count
    assert schedule.records == ()
    assert [line.outcome for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "settle"] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("device", "error", "tries"), [("cpu", "the worker died", 3), ("cpu", "KeyError: 'a'", 2), ("cuda", "the worker died", 1)]
)
def test_a_dead_worker_is_tried_again_only_where_the_retry_is_the_same_release_and_may_end_otherwise(
    tmp_path: Path, device: str, error: str, tries: int
) -> None:
    spec = spec_of(tmp_path, device=device, law=SelectionLaw(mean_trials=60), references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    trial_id, seen, handed = schedule.next().trial_id, 1, 0
    while not schedule.worker_died(trial_id, error).is_finished:
        while (record := schedule.next()).trial_id != trial_id:
            run_one(schedule, record)
            handed += 1
        seen += 1
    assert seen == tries


def test_poisson_may_draw_no_trial_at_all_and_is_charged_all_the_same(tmp_path: Path) -> None:
    law = SelectionLaw(mean_trials=1, shape="inf")
    spec = spec_of(tmp_path, law=law, references={"floor": False, "ceiling": False})
    key = next(key for n in range(99) if Selection(spec, key := SweepKey(bytes([n]) * 32)).count(0.5) == 0)
    schedule = schedule_of(spec, key)
    handed = run_all(schedule)
    assert not [record for record in handed if record.epsilon == 0.5]
    assert len([line for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "reserve"]) >= 2


def test_a_cap_that_the_selections_pass_stops_before_the_first_trial_of_any(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, sweep={"epsilon_total": 2.0}, references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    assert run_all(schedule) == []
    assert "epsilon_total 2" in schedule.stopped_by


def test_a_lost_key_ends_a_selection(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be finished"):
        check_key(True, spec_of(tmp_path))
    check_key(False, spec_of(tmp_path))


def test_fifty_refusals_end_with_the_rule(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    broken = {**spec.space.search, "subspace.rank": type(spec.space.search["clip_norm"]).model_validate({"float": [1, 2]})}
    with pytest.raises(BadInput, match="50 draws in a row were refused"):
        Selection(spec.model_copy(update={"space": spec.space.model_copy(update={"search": broken})}), KEY).candidate(0.5, 0)


def test_constraints_restrict_the_law_of_the_draws_and_leave_them_independent(tmp_path: Path) -> None:
    """Draws of the restricted space, uniform there: rejection reads the draw alone. Without the constraint half would be feature runs."""
    search = {
        "method": {"choice": ["dpsgd", "feature"]},
        "split": {"choice": ["blur"], "when": {"method": ["feature"]}},
        "clip_norm": {"float": [0.01, 1.0]},
    }
    spec = spec_of(tmp_path, search=search, constraints=["clip_norm < 0.1 or method == dpsgd"])
    selection = Selection(spec, KEY)
    configs = [selection.candidate(0.5, number).config for number in range(1500)]
    is_feature = np.array([config.method == "feature" for config in configs])
    norms = np.array([config.clip_norm for config in configs])
    share = 0.09 / (0.99 + 0.09)
    assert binomtest(int(is_feature.sum()), len(configs), share).pvalue > 1e-4
    assert norms[is_feature].max() < 0.1
    assert kstest(norms[is_feature], "uniform", args=(0.01, 0.09)).pvalue > 1e-4
    assert kstest(norms[~is_feature], "uniform", args=(0.01, 0.99)).pvalue > 1e-4
    neighbours = np.corrcoef(norms[~is_feature][:-1], norms[~is_feature][1:])[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(len(norms))


def test_a_kind_that_a_constraint_makes_rare_is_a_candidate_and_its_spending_is_planned(tmp_path: Path) -> None:
    """One draw in ten thousand is a feature run: fifty draws do not meet it, and the winner may be one."""
    space = spec_of(tmp_path).space.model_copy(update={"constraints": ("clip_norm < 0.0102 or method == dpsgd",)})
    assert {config.method for config in candidate_configs(space)} == {"dpsgd", "feature"}
    rare = space.model_copy(update={"constraints": ("clip_norm < 0.010001",)})
    found = private_config(rare, 0.5)
    assert found is not None
    assert found.spends_privacy


def test_half_a_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, law=SelectionLaw(mean_trials=60), references={"floor": False, "ceiling": False})
    schedule = schedule_of(spec)
    ended = run_one(schedule, schedule.next())
    with (spec.selection_dir / "journal.jsonl").open("a") as file:
        file.write('{"half')
    assert [record.trial_id for record in Selection(spec, KEY).ended(ended.epsilon)] == [ended.trial_id]


def claims_in(spec: SweepSpec) -> Callable[[TrialConfig], PrivacyClaim]:
    facts = {
        p: SimpleNamespace(name=p, role="PRIVATE" if p == "private" else "PUBLIC", protected=True)
        for p in ("private", "public", "validation")
    }
    return lambda config: claim_of(config, fake_trials.plan(config, None), facts)


def planned_winner(spec: SweepSpec, **draw: Any) -> TrialRecord:
    config = spec.space.trial_config(2.0, draw)
    plan = fake_trials.plan(config, None)
    record = TrialRecord(trial_id="e2-0f3a9c1d22", role="search", number=0, epsilon=2.0, config=config)
    return replace(record, sampling_prob=plan.sampling_prob, noise_multiplier=plan.noise_multiplier)


def test_the_claim_of_a_winner_is_that_of_the_whole_selection(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    planned, claim_in = planned_winner(spec, method="dpsgd", clip_norm=0.137), claims_in(spec)
    claim = claim_in(planned.config)
    won = winner_claim(claim, planned, spec.space, claim_of=claim_in)
    assert won.epsilon > 0
    assert won.epsilon != claim.epsilon
    assert "geometric law with mean 6" in won.paragraph()
    assert "hints at the number of runs" in won.paragraph()
    assert winner_claim(claim, planned, spaces.space(), claim_of=claim_in) == claim
    assert json.loads(won.model_dump_json())["accountant"].startswith("RDP")


def test_a_winner_that_reads_no_view_claims_no_more_than_the_feature_runs_that_it_competed_with(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    planned, claim_in = planned_winner(spec, method="dpsgd", clip_norm=0.137), claims_in(spec)
    own = claim_in(planned.config)
    won = winner_claim(own, planned, spec.space, claim_of=claim_in)
    assert (own.relation, won.relation) == ("add_remove_record", "add_remove_given_public_view")
    assert won.labels == "public"
    assert any("the public view ψ(x) of every crop: split blur" in line for line in won.public)
    assert any("keypoints, visibility, crop box" in line for line in won.public)
    assert any("what ψ itself shows" in line for line in won.not_covered)
    assert "with its labels" not in won.paragraph()
    rerun = replace(planned, role="seed")
    assert winner_claim(own, rerun, spec.space, claim_of=claim_in) == own


def test_candidates_are_one_config_of_every_kind_and_no_kind_that_is_refused(tmp_path: Path) -> None:
    space = spec_of(tmp_path).space
    kinds = {(config.method, None if config.split is None else config.split.name) for config in candidate_configs(space)}
    assert kinds == {("dpsgd", None), ("feature", "blur")}
    alone = spec_of(tmp_path, search={"clip_norm": {"float": [0.1, 1.0]}}, trial={"method": "dpsgd"}).space
    assert {config.method for config in candidate_configs(alone)} == {"dpsgd"}


def test_a_winner_says_everywhere_what_its_selection_spent(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0})
    schedule = schedule_of(spec)
    while (record := schedule.next()) is not None:
        model = schedule.folder(record) / "model"
        model.mkdir(parents=True)
        said = {"epsilon_spent": record.config.epsilon, "metrics": {"privacy/epsilon_spent": record.config.epsilon, "val/pckh_50": 0.4137}}
        (model / "model.json").write_text(json.dumps({"config": {}, "meta": said}))
        (model.parent / "result.json").write_text(json.dumps(said))
        schedule.report(record.trial_id, fake_trials.report_of(record, 3, {"val/pckh_50": fake_trials.score_of(record.config)}))
        schedule.end(record.trial_id)
    schedule.take_released()
    lines = {line.trial_id: line.epsilon for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "reserve"}
    winners = [record for record in schedule.records if record.role == "search"]
    assert len(winners) == 2
    for winner in winners:
        spent = lines[f"selection-e{winner.epsilon:g}"]
        assert spent > winner.config.epsilon
        assert winner.epsilon_spent == spent
        assert {point.metrics["privacy/epsilon_spent"] for point in winner.curve} == {spent}
        folder = spec.checkpoint_dir(winner.trial_id)
        for said in (json.loads((folder / "model" / "model.json").read_text())["meta"], json.loads((folder / "result.json").read_text())):
            assert (said["epsilon_spent"], said["metrics"]["privacy/epsilon_spent"]) == (spent, spent)
            assert said["metrics"]["val/pckh_50"] == 0.4137
    restored = schedule_of(spec)
    assert {r.trial_id: r.epsilon_spent for r in restored.records} == {w.trial_id: w.epsilon_spent for w in winners}
