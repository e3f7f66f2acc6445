"""The studies of a sweep: what they remember, and how little an ask and a tell write."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_trials
import spaces

from dpcore.config import Places
from sweeps.results import CurvePoint, TrialRecord
from sweeps.spec import SweepSpec
from sweeps.studies import Studies
from sweeps.tpe import NewestTPESampler


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
    write = studies._journal._write
    monkeypatch.setattr(studies._journal, "_write", lambda lines: (writes.append(len(lines)), write(lines)))
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


def test_the_search_is_grouped_tpe_on_the_newest_trials(tmp_path: Path) -> None:
    for sampler, kind in (("tpe", NewestTPESampler), ("random", optuna.samplers.RandomSampler)):
        studies = Studies(spec_of(tmp_path / sampler, sweep={"sampler": sampler}))
        assert type(studies._studies[0.5].sampler) is kind
        assert type(studies._studies[None].sampler) is optuna.samplers.RandomSampler


def test_plain_optuna_reads_scores_settings_and_records(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    done = finish(Studies(spec), 0.5, 0)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(spec.study_path)))
    (trial,) = optuna.load_study(study_name="s/epsilon-0.5", storage=storage).trials
    assert trial.value == done.pckh_50
    assert trial.params["clip_norm"] == done.config.clip_norm
    assert json.loads(trial.user_attrs["record"])["trial_id"] == "e0.5-000"
    assert trial.user_attrs["end"] == {"seconds": 1.5, "error": None, "replaced": False}
