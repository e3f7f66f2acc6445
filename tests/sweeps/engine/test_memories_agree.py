"""A sweep whose memories differ is not taken up on the poorer one: it is restored, or refused by one error that names the file."""

import contextlib
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.durable import append_line, write_json
from dpcore.errors import Corrupt, DpsweepError
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant
from sweeps.pricing.reservations import Reservations
from sweeps.records.results import SweepResults
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=fake_trials.compose, spent=fake_trials.spent)
TRIAL = "e0.5-001"


def schedule_of(spec: SweepSpec) -> Schedule:
    ledger = Ledger(spec.resolved_ledger_url, witness=spec.ledger_witness)
    schedule = Schedule(
        spec, ACCOUNTANT, Reservations(spec, ledger, ACCOUNTANT, validation=None, cohort="d" * 8, key_id="k"), terms=terms_of(spec)
    )
    schedule.restore(key_lost=False)
    ledger.close()
    return schedule


def run_all(spec: SweepSpec) -> Schedule:
    """Every trial to its end, with the files that a real trial leaves."""
    schedule = schedule_of(spec)
    while (record := schedule.next()) is not None:
        folder = spec.checkpoint_dir(record.trial_id)
        folder.mkdir(parents=True)
        for step in (1, 2, 3):
            metrics = {"val/pckh_50": fake_trials.score_of(record.config) * step / 3, "time/step_s": 0.1}
            report = fake_trials.report_of(record, step, metrics, f"{record.trial_id}-{step}", done=step == 3)
            append_line(folder / "digests.jsonl", report.document())
            last = schedule.report(record.trial_id, report)
        write_json(folder / "result.json", {"pckh_50": last.pckh_50, "epsilon_spent": last.curve[-1].metrics.get("privacy/epsilon_spent")})
        schedule.end(record.trial_id)
    return schedule


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepSpec:
    root = tmp_path_factory.mktemp("finished")
    spec = SweepSpec(
        name="s",
        space=spaces.space(sweep={"epsilons": [0.5], "trials_per_epsilon": 3}, references={"ceiling": False, "winner_seeds": 0}),
        places=Places(data_dir=root / "data", cache_dir=root / "cache"),
        storage=root / "store",
    )
    spec.save()
    results = SweepResults(name="s", records=run_all(spec).records, accounting="composed", delta=1e-5)
    results.write_parquet(spec.sweep_dir / "results")
    return spec


@pytest.fixture
def spec(finished: SweepSpec, tmp_path: Path) -> SweepSpec:
    """A copy of the finished sweep."""
    shutil.copytree(finished.storage, tmp_path / "store")
    return SweepSpec.load("s", tmp_path / "store")


def without_last_report(spec: SweepSpec) -> None:
    lines = [json.loads(line) for line in spec.reports_path.read_text().splitlines()]
    kept = [line for line in lines if (line["trial_id"], line["step"]) != (TRIAL, 3)]
    spec.reports_path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def without_reports(spec: SweepSpec) -> None:
    spec.reports_path.unlink()


def other_score(spec: SweepSpec) -> None:
    text = spec.reports_path.read_text()
    score = next(json.loads(line)["metrics"]["val/pckh_50"] for line in text.splitlines() if json.loads(line)["trial_id"] == TRIAL)
    spec.reports_path.write_text(text.replace(str(score), str(score + 0.25)))


def other_digest(spec: SweepSpec) -> None:
    spec.reports_path.write_text(spec.reports_path.read_text().replace(f"{TRIAL}-2", f"{TRIAL}-x"))


def no_folders(spec: SweepSpec) -> None:
    shutil.rmtree(spec.sweep_dir / "checkpoints")


def cut_study(spec: SweepSpec) -> None:
    """At a whole line: to be seen in no line of its own."""
    lines = spec.study_path.read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if TRIAL.encode() in line)
    spec.study_path.write_bytes(b"".join(lines[:first]))


def empty_study(spec: SweepSpec) -> None:
    spec.study_path.write_bytes(b"")


def other_config(spec: SweepSpec) -> None:
    """Another clip norm in what the study remembers of a trial."""
    text = spec.study_path.read_text()
    line = next(line for line in text.splitlines() if f'"trial_id\\": \\"{TRIAL}' in line.replace('\\\\"', '\\"') or TRIAL in line)
    spec.study_path.write_text(text.replace(line, re.sub(r'(clip_norm\\": )\d', r"\g<1>7", line)))


def other_end(spec: SweepSpec) -> None:
    """Another score with which a trial ended."""
    lines = [json.loads(line) for line in spec.study_path.read_text().splitlines()]
    for line in lines:
        if line.get("values"):
            line["values"] = [0.999]
    spec.study_path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def other_result(spec: SweepSpec) -> None:
    path = spec.checkpoint_dir(TRIAL) / "result.json"
    write_json(path, {**json.loads(path.read_text()), "epsilon_spent": 0.001})


@pytest.mark.parametrize("lose", [without_last_report, without_reports])
def test_reports_that_the_file_lost_come_back_from_the_trials_folders(
    lose: Callable[[SweepSpec], None], spec: SweepSpec, finished: SweepSpec
) -> None:
    lose(spec)
    restored = {record.trial_id: record for record in schedule_of(spec).records}
    assert restored == {record.trial_id: record for record in schedule_of(finished).records}
    assert sorted(spec.reports_path.read_text().splitlines()) == sorted(finished.reports_path.read_text().splitlines())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ([without_last_report, no_folders], "reports.jsonl"),
        ([without_reports, no_folders], "reports.jsonl"),
        ([other_score], "reports.jsonl"),
        ([other_score, no_folders], "reports.jsonl"),
        ([other_digest], "reports.jsonl"),
        ([cut_study], "study.journal"),
        ([empty_study], "study.journal"),
        ([empty_study, without_reports], "study.journal"),
        ([other_config], "study.journal"),
        ([other_end], "study.journal"),
        ([other_result], "result.json"),
    ],
)
def test_what_cannot_be_restored_is_one_error_that_names_the_file_and_leaves_everything(
    changes: list[Callable[[SweepSpec], None]], named: str, spec: SweepSpec
) -> None:
    for change in changes:
        change(spec)
    before = {path: path.read_bytes() for path in (spec.sweep_dir / "results").iterdir()}
    with pytest.raises(Corrupt, match=named) as caught:
        schedule_of(spec)
    assert caught.value.exit_code == 2
    assert before == {path: path.read_bytes() for path in (spec.sweep_dir / "results").iterdir()}


DAMAGED = ("study.journal", "reports.jsonl", f"checkpoints/{TRIAL}/digests.jsonl", f"checkpoints/{TRIAL}/result.json")


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("seed", range(15))
def test_a_flipped_byte_or_a_cut_changes_no_record_in_silence(name: str, seed: int, spec: SweepSpec, finished: SweepSpec) -> None:
    """What matters of a record: its score, what it spent, its config, its end. Times and Optuna's own entries are not told twice."""
    generator = random.Random(f"{name} {seed}")
    path = spec.sweep_dir / name
    content = bytearray(path.read_bytes())
    at = generator.randrange(len(content))
    if seed % 3:
        content[at] ^= 1 << generator.randrange(8)
    path.write_bytes(content if seed % 3 else content[:at])
    with contextlib.suppress(DpsweepError):
        sweep_status(spec, ACCOUNTANT)
    found, expected, said = {}, facts_of(schedule_of(finished)), ""
    try:
        found = facts_of(schedule_of(spec))
    except DpsweepError as error:
        said = str(error)
    if said:
        assert path.name in said
        return
    assert set(found) == set(expected)
    running = [one for one, (_, state, *_) in found.items() if state == "running"]  # it lost its end, and repeats its last steps
    assert {one: fact for one, fact in found.items() if fact != expected[one] and one not in running} == {}


def facts_of(schedule: Schedule) -> dict[str, tuple[object, ...]]:
    return {one.trial_id: (one.config, one.state, one.pckh_50, one.epsilon_spent, one.plan) for one in schedule.records}


def test_a_spec_keeps_the_order_of_its_settings(spec: SweepSpec) -> None:
    """A draw takes them in that order, so that another one would be another search."""
    parameters = list(spec.space.parameters_at(0.5))
    assert parameters != sorted(parameters)
    spec.save()
    assert list(SweepSpec.load("s", spec.storage_dir).space.parameters_at(0.5)) == parameters


@pytest.mark.parametrize("name", ["spec.json", "sweep.key"])
def test_a_changed_spec_or_key_is_refused_by_name(name: str, spec: SweepSpec, tmp_path: Path) -> None:
    if name == "spec.json":
        text = (spec.sweep_dir / name).read_text()
        (spec.sweep_dir / name).write_text(text.replace('"delta": 1e-05', '"delta": 1e-03'))
        with pytest.raises(Corrupt, match=r"spec\.json is not what was written"):
            SweepSpec.load("s", spec.storage_dir)
        return
    new = spec.model_copy(update={"name": "open"})
    new.save()
    schedule = schedule_of(new)
    while (record := schedule.next()) is not None and not record.config.spends_privacy:
        pass
    ledger = Ledger(new.resolved_ledger_url, witness=new.ledger_witness)
    reservations = Reservations(new, ledger, ACCOUNTANT, validation=None, cohort="d" * 8, key_id="other")
    again = Schedule(new, ACCOUNTANT, reservations, terms=terms_of(new))
    with pytest.raises(Corrupt, match=r"sweep\.key .*is not the key under which e0\.5-000 was reserved"):
        again.restore(key_lost=False)
