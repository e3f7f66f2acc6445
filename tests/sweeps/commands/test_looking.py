"""Commands that look at sweeps, and those that pause or remove one."""

import fcntl
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ended_sweep import ended_sweep, run_one, schedule_of, spec_of, write

import dpsweep
from dpcore.errors import BadInput, Refused
from sweeps.cli import main
from sweeps.ledger.summary import summaries_of
from sweeps.records.charged import open_ledger
from sweeps.records.results import read_results
from sweeps.records.spec import SweepSpec
from sweeps.report.overview.ledger_text import summary_text
from sweeps.storage.heartbeat import PAUSE, Heartbeat, take_requests


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ended sweeps and one that was interrupted."""
    folder = tmp_path_factory.mktemp("looked_at")
    ended_sweep(folder)
    ended_sweep(folder, name="wider", search={"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.05, 5.0], "log": True}})
    begun = spec_of(folder, name="begun", sweep={"epsilons": [0.5]})
    begun.save()
    schedule = schedule_of(begun)
    for _ in range(4):
        run_one(schedule, schedule.next())
    write(begun, schedule)
    return folder / "store"


def test_a_list_has_state_best_and_price_of_every_sweep(storage: Path) -> None:
    found = {one.name: one for one in dpsweep.list_sweeps(storage=storage)}
    assert {name: one.state for name, one in found.items()} == {"s": "done", "wider": "done", "begun": "interrupted"}
    results = read_results(storage / "s")
    at = {one.epsilon: one for one in found["s"].epsilons}
    for epsilon in (0.5, 2.0):
        assert at[epsilon].best == results.best(epsilon).score
        assert at[epsilon].method == results.best(epsilon).config.method
        assert at[epsilon].ended == 4
    assert found["s"].price == results.sweep_epsilon
    assert found["begun"].epsilons[0].ended < 4


def test_a_list_is_a_table_and_a_document(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--storage", str(storage)]) == 0
    out = capsys.readouterr().out
    assert "wider" in out
    assert "3 sweeps; best is PCKh@0.5" in out
    assert main(["list", "--storage", str(storage), "--json"]) == 0
    assert {one["name"] for one in json.loads(capsys.readouterr().out)} == {"s", "wider", "begun"}


def test_a_damaged_sweep_is_listed_as_such(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage / "s", tmp_path / "s")
    (tmp_path / "s" / "results" / "trials.parquet").write_bytes(b"no table")
    (found,) = dpsweep.list_sweeps(storage=tmp_path)
    assert found.state == "damaged"
    assert "trials.parquet cannot be read" in found.problem
    with pytest.raises(BadInput, match="no such folder"):
        dpsweep.list_sweeps(storage=tmp_path / "none")


def test_a_thousand_trials_are_listed_in_a_moment(tmp_path: Path) -> None:
    spec = ended_sweep(tmp_path, references={"winner_seeds": 0, "control": False})
    results = read_results(spec.sweep_dir)
    (one, *_) = [record for record in results.records if record.role == "search"]
    many = tuple(replace(one, trial_id=f"e0.5-{number:03d}", number=number) for number in range(1000))
    replace(results, records=many, planned=1000).write_parquet(spec.sweep_dir / "results")
    dpsweep.list_sweeps(storage=spec.storage_dir)  # pyarrow is imported
    began = time.process_time()
    (found,) = dpsweep.list_sweeps(storage=spec.storage_dir)
    assert found.epsilons[0].ended == 1000
    assert time.process_time() - began < 0.5


def test_two_sweeps_side_by_side_show_where_they_differ(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dpsweep.compare("s", "wider", storage=storage)
    assert found.settings["search.clip_norm.float"] == ("0.01, 1.0", "0.05, 5.0")
    assert found.settings["search.method.choice"] == ("dpsgd, feature", "dpsgd")
    assert not [path for path in found.settings if path.startswith("trial.")]
    assert [(one.sweep, one.epsilon) for one in found.outcomes] == [("s", 0.5), ("wider", 0.5), ("s", 2.0), ("wider", 2.0)]
    assert main(["compare", "s", "wider", "--storage", str(storage)]) == 0
    assert "search.clip_norm.float" in capsys.readouterr().out
    assert main(["compare", "s", "s", "--storage", str(storage)]) == 0
    assert "their spaces are the same" in capsys.readouterr().out


def test_logs_of_a_trial_are_its_settings_and_reports(storage: Path) -> None:
    best = read_results(storage / "s").best(0.5)
    text = "\n".join(dpsweep.logs("s", best.trial_id, storage=storage))
    assert text.startswith(f"trial {best.trial_id}: done")
    assert f"{100 * best.score:.2f}" in text
    with pytest.raises(BadInput, match=r"no trial e0\.5-00; did you mean e0\.5-00\d"):
        list(dpsweep.logs("s", "e0.5-00", storage=storage))
    with pytest.raises(BadInput, match="has no log yet"):
        list(dpsweep.logs("s", storage=storage))


def test_the_tables_of_a_sweep_leave_as_csv(storage: Path, tmp_path: Path) -> None:
    assert main(["export", "s", "--csv", str(tmp_path / "csv"), "--storage", str(storage)]) == 0
    rows = (tmp_path / "csv" / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(read_results(storage / "s").records)
    assert main(["export", "s", "--csv", str(tmp_path / "csv"), "--storage", str(storage)]) == 2


def test_a_ledger_is_summed_up_per_cohort_and_sweep(storage: Path) -> None:
    lines = open_ledger(SweepSpec.load("s", storage), read_only=True).lines()
    compose = lambda charges, delta: sum(count for _, count in charges)  # noqa: E731
    (cohort,) = summaries_of(lines, compose)
    runs = {share.sweep: share.runs for share in cohort.shares}
    assert runs == {name: sum(line.kind == "reserve" and line.sweep == name for line in lines) for name in ("s", "wider", "begun")}
    assert cohort.totals[0].epsilon == sum(runs.values())
    text = summary_text((cohort,), lines=len(lines))
    assert text.startswith("cohort dd")
    assert "cap: none" in text
    assert f"{len(lines)} lines behind this" in text


def test_a_deleted_sweep_leaves_its_ledger_lines_its_witness_and_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ended_sweep(tmp_path)
    ledger = tmp_path / "store" / "ledger.sqlite"
    lines = open_ledger(spec, read_only=True).lines()
    argv = ["delete", "s", "--storage", str(spec.storage_dir)]
    assert main(argv) == 2
    assert "give --yes" in capsys.readouterr().err
    with (spec.state_dir / "sweep.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another process is running"):
            dpsweep.delete("s", storage=spec.storage_dir)
    assert main([*argv, "--yes"]) == 0
    assert [path.name for path in spec.sweep_dir.iterdir()] == ["deleted.witness"]
    other = spec.model_copy(update={"name": "other"})
    assert open_ledger(other, read_only=True).lines() == lines
    ledger.unlink()
    (ledger.parent / "ledger.sqlite.witness").unlink()
    with pytest.raises(Refused, match=r"deleted\.witness remembers"):
        open_ledger(other)


def test_a_paused_sweep_starts_nothing_more_and_goes_on_later(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.save()
    schedule = schedule_of(spec)
    running = schedule.next()
    schedule.pause()
    assert schedule.next() is None
    assert not schedule.is_over
    run_one(schedule, running)
    assert schedule.is_over
    assert schedule_of(spec).next() is not None


def test_pause_asks_the_driver(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.save()
    with pytest.raises(Refused, match="no driver runs s"):
        dpsweep.pause("s", storage=spec.storage_dir)
    Heartbeat(host="here", pid=1, at=time.time(), trials={"e0.5-001": None}).write(spec.state_dir)
    with (spec.state_dir / "sweep.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        from threading import Timer

        asked: list[str] = []
        timer = Timer(0.3, lambda: asked.extend(take_requests(spec.state_dir)))
        timer.start()
        assert "when what runs (e0.5-001) has ended" in dpsweep.pause("s", storage=spec.storage_dir)
        timer.join()
    assert asked == [PAUSE]
