"""Whole sweeps on a real Ray with trials of milliseconds: worker deaths, a killed driver, and requests that leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import fake_trials
import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.privacy.randomness import SweepKey
from dpcore.train.handout import Handout
from sweeps.engine import driver as driver_module
from sweeps.engine import preflight
from sweeps.engine.driver import Interrupted, resume_sweep, run_sweep
from sweeps.engine.preflight import plan_of
from sweeps.engine.searcher import ScheduleCallback, ScheduleSearcher
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.records.export import export_trial
from sweeps.records.messages import Answer, Assignment, trial_id_in
from sweeps.records.results import SweepResults, read_results
from sweeps.records.spec import SweepSpec

HERE = Path(__file__).parents[1]
SWEEP = """
import sys
import fake_trials
from pathlib import Path
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
run_sweep(SweepSpec.model_validate_json(Path(sys.argv[1]).read_text()), fake_trials.surroundings())
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    """A sweep of 17 fake trials, whose functions Ray's workers can import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store", trial_function="fake_trials:run_trial")


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")  # ray leaves its log files and sockets to the end of the process
def test_a_sweep_outlives_dying_workers_and_failing_trials(spec: SweepSpec) -> None:
    lines: list[str] = []
    trackers: list[fake_trials.Tracker] = []
    dying = spec.model_copy(update={"trial_function": "fake_trials:dying_trial", "max_concurrent": 2})
    results = run_sweep(dying, fake_trials.surroundings(lines, trackers))
    states = {record.trial_id: record.state for record in results.records}
    assert len(states) == results.planned == 17
    assert {name for name, state in states.items() if state == "failed"} == {"e0.5-002", "e0.5-003", "e2-002", "e2-003"}
    assert (dying.checkpoint_dir("e2-001") / "starts.txt").read_text().count("\n") == 2
    assert sorted(name for kind, name in trackers[0].events if kind == "ended") == sorted(states)
    assert trackers[0].events[-1] == ("closed", "False")
    assert lines[-1].startswith("[17/17]")
    again = read_results(dying.sweep_dir)
    assert again == results
    assert len([line for line in Ledger(dying.resolved_ledger_url).lines() if line.kind == "reserve"]) == 12
    assert again.sweep_epsilon == pytest.approx(6 * 0.5 + 6 * 2.0)
    key = (dying.state_dir / "sweep.key").read_text().strip()
    public = [path for path in dying.storage.rglob("*") if path.is_file() and path.name != "sweep.key"]
    held = {path: path.read_bytes() for path in public if path.is_file()}  # SQLite's own files go when its last reader does
    assert not [path for path, content in held.items() if key.encode() in content or bytes.fromhex(key) in content]


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")
def test_a_killed_driver_is_resumed_to_the_exact_plan(spec: SweepSpec, tmp_path: Path) -> None:
    slow = spec.model_copy(update={"trial_function": "fake_trials:slow_trial", "max_concurrent": 2, "cpus_per_trial": 0.5})
    path = tmp_path / "spec.json"
    path.write_text(slow.model_dump_json(by_alias=True))
    driver = subprocess.Popen([sys.executable, "-c", SWEEP, str(path)], start_new_session=True)
    end = time.monotonic() + 500
    while time.monotonic() < end and (not slow.reports_path.is_file() or slow.reports_path.read_text().count("\n") < 4):
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    fast = slow.model_copy(update={"trial_function": "fake_trials:run_trial"})
    fast.save()
    results = resume_sweep("s", slow.storage, fake_trials.surroundings())
    assert len(results.records) == results.planned == 17
    assert {record.state for record in results.records} == {"done"}
    assert {tuple(point.step for point in record.curve) for record in results.records} == {(1, 2, 3)}
    lines = Ledger(slow.resolved_ledger_url).lines()
    assert len([line for line in lines if line.kind == "reserve"]) == len([line for line in lines if line.kind == "settle"]) == 12
    assert Ledger(slow.resolved_ledger_url).verify(lambda spending, delta: 1 / spending.noise_multiplier) == ()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_unreachable_ray_leaves_nothing_behind(spec: SweepSpec, address: str) -> None:
    with pytest.raises(Unavailable, match="no Ray answers"):
        run_sweep(spec.model_copy(update={"address": address}), fake_trials.surroundings())
    assert not spec.storage.exists()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that gets as far as Tune without a Ray behind it."""
    monkeypatch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))


def test_a_sweep_that_fails_before_its_first_trial_leaves_nothing_of_its_own_behind(
    spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: SweepSpec, **given: object) -> None:
        raise OSError("Tune does not start")

    monkeypatch.setattr(driver_module, "run_tune", fail)
    trackers: list[fake_trials.Tracker] = []
    with pytest.raises(OSError, match="Tune does not start"):
        run_sweep(spec, fake_trials.surroundings(trackers=trackers))
    assert {path.name for path in spec.storage.iterdir()} == {
        "ledger.sqlite",
        ".ledger.sqlite.lock",
    }  # shared: another sweep may use it by now
    assert Ledger(spec.resolved_ledger_url).lines() == ()
    assert trackers[0].events[-1] == ("closed", "True")


def test_a_sweep_that_fails_after_a_trial_was_handed_out_is_kept_to_be_resumed(
    spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: SweepSpec, *, searcher: ScheduleSearcher, **given: object) -> None:
        while not trial_id_in(searcher.suggest("x"), searcher.envelope).startswith("e"):
            searcher.max_concurrent += 1
        raise OSError("the cluster is gone")

    monkeypatch.setattr(driver_module, "run_tune", fail)
    with pytest.raises(OSError, match="the cluster is gone"):
        run_sweep(spec, fake_trials.surroundings())
    assert (spec.sweep_dir / "spec.json").is_file()
    assert [record.trial_id for record in read_results(spec.sweep_dir).records][-1] == "e0.5-000"
    assert len(Ledger(spec.resolved_ledger_url).lines()) == 1


def test_a_full_disk_takes_nothing_away_that_has_begun(spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def hand_out(spec: SweepSpec, *, searcher: ScheduleSearcher, **given: object) -> None:
        searcher.suggest("x")

    def no_space(self: SweepResults, folder: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(driver_module, "run_tune", hand_out)
    monkeypatch.setattr(SweepResults, "write_parquet", no_space)
    with pytest.raises(OSError, match="no space"):
        run_sweep(spec, fake_trials.surroundings())
    assert SweepSpec.load("s", spec.storage).key_path.exists()
    assert Path(spec.resolved_ledger_url.removeprefix("sqlite:///")).exists()


def test_an_interruption_before_the_first_trial_can_be_resumed_as_it_says(
    spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(spec: SweepSpec, **given: object) -> None:
        raise Interrupted("go on with `dpsweep resume s`")

    monkeypatch.setattr(driver_module, "run_tune", interrupt)
    with pytest.raises(Interrupted):
        run_sweep(spec, fake_trials.surroundings())
    assert read_results(spec.sweep_dir).records == ()
    kept = SweepSpec.load("s", spec.storage)
    assert kept.versions["dpsweep"] == version("dpsweep")
    assert kept.model_copy(update={"versions": {}}) == spec


def test_an_address_that_is_none_is_bad_input(spec: SweepSpec) -> None:
    with pytest.raises(BadInput, match="expected auto or HOST:PORT"):
        run_sweep(spec.model_copy(update={"address": "somewhere"}), fake_trials.surroundings())


def test_a_name_that_exists_is_refused_and_resume_is_named(spec: SweepSpec) -> None:
    spec.save()
    with pytest.raises(Refused, match="dpsweep resume s"):
        run_sweep(spec, fake_trials.surroundings())


@pytest.mark.parametrize("left", [(), ("sweep.lock",), ("sweep.lock", "sweep.key", ".spec.json.x1")])
def test_a_name_whose_driver_was_killed_before_it_began_is_free_again(
    left: tuple[str, ...], spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec.sweep_dir.mkdir(parents=True)
    for name in left:
        (spec.sweep_dir / name).write_text("0" * 64)
    monkeypatch.setattr(driver_module, "run_tune", tune_here())
    results = run_sweep(spec, fake_trials.surroundings())
    assert len(results.records) == results.planned


def test_a_folder_of_something_else_is_no_free_name(spec: SweepSpec, no_ray: None) -> None:
    (spec.sweep_dir / "notes").mkdir(parents=True)
    with pytest.raises(Refused, match="but it holds notes; give another --name"):
        run_sweep(spec, fake_trials.surroundings())
    assert (spec.sweep_dir / "notes").is_dir()


@pytest.mark.parametrize(("known", "hint"), [("name", "another --name"), ("key", "a new path")])
def test_a_name_or_key_that_the_ledger_knows_is_refused_for_a_new_sweep(
    known: str, hint: str, spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SweepKey.fresh()
    key.save(tmp_path / "key")
    monkeypatch.setenv("DPSWEEP_KEY_FILE", str(tmp_path / "key"))
    line = Reservation(
        sweep=spec.name if known == "name" else "other",
        trial_id="e0.5-000",
        dataset="synthetic/private",
        cohort="d" * 8,
        sampling_prob=0.01,
        noise_multiplier=2.0,
        steps=3,
        epsilon=0.5,
        delta=1e-5,
        key_id=key.key_id() if known == "key" else "other",
    )
    Ledger(spec.resolved_ledger_url).reserve(line)
    with pytest.raises(Refused, match=hint):
        run_sweep(spec, fake_trials.surroundings())
    assert not spec.sweep_dir.exists()


def test_tables_and_lines_of_protected_data_tell_no_duration_and_no_message(
    spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_one_trial(spec: SweepSpec, *, searcher: ScheduleSearcher, callback: ScheduleCallback, **given: object) -> None:
        trial = SimpleNamespace(
            config=searcher.suggest("x"), last_result=Answer(done=True, error="ValueError: pixel 3 of jane.jpg").encode(searcher.envelope)
        )
        callback.on_trial_start(1, [], trial)
        callback.on_trial_complete(1, [], trial)

    monkeypatch.setattr(driver_module, "run_tune", run_one_trial)
    alone = spec.model_copy(update={"space": spaces.space(references={"ceiling": False})})
    lines: list[str] = []
    run_sweep(alone, fake_trials.surroundings(lines, protected=True))
    assert [(record.seconds, record.error) for record in read_results(alone.sweep_dir).records] == [(0.0, "ValueError")]
    assert "jane" not in "".join(lines)
    assert "jane" not in alone.study_path.read_text()
    kept = alone.sealed_dir / "errors.txt"
    assert kept.read_text() == "public-start: ValueError: pixel 3 of jane.jpg\n"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_search_without_privacy_on_protected_data_is_refused(spec: SweepSpec) -> None:
    search = {"method": {"choice": ["dpsgd", "nonprivate"]}, "clip_norm": {"float": [0.1, 1.0], "when": {"method": ["dpsgd"]}}}
    space = spaces.space(search=search, references={"ceiling": False})
    with pytest.raises(Refused, match="take it out of the space"):
        run_sweep(spec.model_copy(update={"space": space}), fake_trials.surroundings(protected=True))
    assert not spec.storage.exists()


def test_an_unknown_sweep_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no sweep nope"):
        resume_sweep("nope", tmp_path, fake_trials.surroundings())


def test_a_ceiling_on_protected_data_is_refused(spec: SweepSpec) -> None:
    with pytest.raises(Refused, match=r"references\.ceiling"):
        run_sweep(spec, fake_trials.surroundings(protected=True))
    assert not spec.storage.exists()


def test_the_plan_counts_and_prices_every_trial_and_touches_nothing(spec: SweepSpec) -> None:
    plan = plan_of(spec, fake_trials.surroundings())
    assert plan.trials == 17
    assert plan.references == ("public-start", "floor-blur", "ceiling")
    assert plan.sweep_epsilon == plan.composed_epsilon == pytest.approx(6 * 0.5 + 6 * 2.0)
    assert not spec.storage.exists()


def test_a_plan_over_the_cap_is_refused_before_anything_is_touched(spec: SweepSpec) -> None:
    capped = spec.model_copy(update={"space": spaces.space(sweep={"epsilon_total": 10.0})})
    with pytest.raises(Refused, match="would bring the dataset to 15"):
        run_sweep(capped, fake_trials.surroundings())
    assert not spec.storage.exists()


def test_unaccounted_says_so_and_what_composed_would_have_cost(spec: SweepSpec) -> None:
    plan = plan_of(spec.model_copy(update={"space": spaces.space(sweep={"accounting": "unaccounted"})}), fake_trials.surroundings())
    assert plan.sweep_epsilon is None
    assert plan.headline.startswith("no end-to-end guarantee")
    assert "composed would be epsilon 15" in plan.headline


def secret(spec: SweepSpec, **changes: object) -> SweepSpec:
    """The same sweep as a private selection of 5 trials per ε on average."""
    law = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 5, "shape": 1}}
    return spec.model_copy(update={"space": spaces.space(sweep=law, references={"winner_seeds": 1}), **changes})


def tune_here(stop_after: int | None = None) -> Callable[..., None]:
    """Instead of Ray: trials one after the other in this process; after `stop_after` of them the driver is as good as dead."""

    def run(spec: SweepSpec, *, key: SweepKey, searcher: ScheduleSearcher, callback: ScheduleCallback) -> None:
        done = 0
        while isinstance(given := searcher.suggest("x"), dict):
            trial, one = SimpleNamespace(config=given, last_result=None), Assignment.decode(given, searcher.envelope)
            callback.on_trial_start(0, [], trial)
            handout = Handout(places=spec.places, trial_id=one.trial_id, key=key, folder=one.folder, plan=one.plan)
            for report in fake_trials.run_trial(one.config, None, handout):
                callback.on_trial_result(0, [], trial, Answer(done=False, report=report).encode(searcher.envelope))
                if done == stop_after:
                    raise OSError("killed")
            callback.on_trial_complete(0, [], trial)
            done += 1

    return run


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch, no_ray: None) -> Callable[..., SweepResults]:
    """Runs a sweep in this process, its driver dead in the middle of a trial after so many; then takes it up to its end."""

    def run(spec: SweepSpec, trials: int, trackers: list[fake_trials.Tracker] | None = None) -> SweepResults:
        monkeypatch.setattr(driver_module, "run_tune", tune_here(trials))
        with pytest.raises(OSError, match="killed"):
            run_sweep(spec, fake_trials.surroundings(trackers=trackers))
        monkeypatch.setattr(driver_module, "run_tune", tune_here())
        return resume_sweep("s", spec.storage, fake_trials.surroundings(trackers=trackers))

    return run


def test_while_a_sweep_goes_on_its_tables_do_not_say_the_lower_price_of_its_first_part(
    spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "run_tune", tune_here(5))
    with pytest.raises(OSError, match="killed"):
        run_sweep(spec, fake_trials.surroundings())
    assert read_results(spec.sweep_dir).sweep_epsilon is not None
    seen: list[float | None] = []

    def look(spec: SweepSpec, **given: object) -> None:
        seen.append(read_results(spec.sweep_dir).sweep_epsilon)
        raise KeyboardInterrupt

    monkeypatch.setattr(driver_module, "run_tune", look)
    with pytest.raises(KeyboardInterrupt):
        resume_sweep("s", spec.storage, fake_trials.surroundings())
    assert seen == [None]


@pytest.mark.parametrize("trials", [2, 4, 7, 12])
def test_a_selection_that_is_taken_up_tells_tracker_and_tables_of_winners_alone(
    trials: int, spec: SweepSpec, killed_after: Callable[..., SweepResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a key that draws 8 and 5 trials: with a fresh one, a selection may be over before the driver is to die
    monkeypatch.setattr(SweepKey, "fresh", lambda: SweepKey(bytes([2]) * 32))
    trackers: list[fake_trials.Tracker] = []
    results = killed_after(secret(spec), trials, trackers)
    winners = {record.trial_id for record in results.of_role("search")}
    assert len(winners) == 2
    assert {name.split()[0] for tracker in trackers for _, name in tracker.events if name.startswith("e")} == winners
    assert len(results.records) == results.planned
    assert read_results(spec.sweep_dir) == results
    assert not spec.selection_dir.exists()
    ledger = Ledger(spec.resolved_ledger_url)
    assert ledger.open_reservations("s") == ledger.verify(fake_trials.epsilon_of) == ()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")
def test_a_private_selection_whose_driver_is_killed_releases_the_winners_alone(spec: SweepSpec, tmp_path: Path) -> None:
    slow = secret(spec, trial_function="fake_trials:slow_trial", max_concurrent=2, cpus_per_trial=0.5)
    path = tmp_path / "spec.json"
    path.write_text(slow.model_dump_json(by_alias=True))
    driver = subprocess.Popen([sys.executable, "-c", SWEEP, str(path)], start_new_session=True)
    end = time.monotonic() + 500
    while time.monotonic() < end and not list((slow.selection_dir / "checkpoints").glob("*/reports.json")):
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    tried = {folder.name for folder in (slow.selection_dir / "checkpoints").iterdir()}
    slow.model_copy(update={"trial_function": "fake_trials:run_trial"}).save()
    lines: list[str] = []
    trackers: list[fake_trials.Tracker] = []
    results = resume_sweep("s", slow.storage, fake_trials.surroundings(lines, trackers))
    winners = [record for record in results.records if record.role == "search"]  # in the order in which their selections ended
    assert sorted((record.epsilon, record.state, len(record.curve)) for record in winners) == [(0.5, "done", 3), (2.0, "done", 3)]
    told = {name.split()[0] for _, name in trackers[0].events if name.startswith("e")}
    assert told == {record.trial_id for record in winners}
    assert len(results.records) == results.planned
    losers = tried - told
    shown = [path for path in slow.storage.rglob("*") if path.is_file()]
    assert not [path for path in shown if any(loser.encode() in path.read_bytes() or loser in str(path) for loser in losers)]
    assert not slow.selection_dir.exists()
    ledger = Ledger(slow.resolved_ledger_url)
    reserved = sorted(line.trial_id for line in ledger.lines() if line.kind == "reserve")
    assert reserved == ["seed-e0.5-1", "seed-e2-1", "selection-e0.5", "selection-e2"]
    assert ledger.open_reservations("s") == ledger.verify(fake_trials.epsilon_of) == ()
    assert results.sweep_epsilon == pytest.approx((3 + 1) * 0.5 + (3 + 1) * 2.0)


def test_a_selection_whose_key_is_lost_is_not_resumed(spec: SweepSpec, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def hand_out(spec: SweepSpec, *, searcher: ScheduleSearcher, **given: object) -> None:
        searcher.suggest("x")
        raise OSError("the cluster is gone")

    monkeypatch.setattr(driver_module, "run_tune", hand_out)
    with pytest.raises(OSError, match="the cluster is gone"):
        run_sweep(secret(spec), fake_trials.surroundings())
    spec.key_path.unlink()
    with pytest.raises(Refused, match="cannot be finished"):
        resume_sweep("s", spec.storage, fake_trials.surroundings())
    assert not spec.key_path.exists()


def test_a_rehearsal_leaves_the_ledger_empty_and_its_winner_names_the_private_dataset(
    spec: SweepSpec, killed_after: Callable[..., SweepResults]
) -> None:
    data = {**spaces.DOCUMENT["trial"]["data"], "proxy": "synthetic/proxy", "proxy_examples": 2000}
    space = spaces.space(sweep={"accounting": "public_proxy"}, trial={"data": data})
    results = killed_after(spec.model_copy(update={"space": space}), 6)
    assert len(results.records) == results.planned == 17
    assert Ledger(spec.resolved_ledger_url).lines() == ()
    assert results.sweep_epsilon == 0.0
    assert {record.epsilon_spent for record in results.of_role("search")} == {0.0}
    winner = results.best(2.0)
    exported = export_trial(winner, spec).config
    assert winner.config.data.in_private_place == "synthetic/proxy"
    assert (exported.data.proxy, exported.data.private, exported.spends_privacy) == (None, "synthetic/private", True)


@pytest.mark.parametrize("accounting", ["composed", "unaccounted"])
def test_a_sweep_that_searches_its_steps_is_priced_by_its_filter(
    accounting: str, spec: SweepSpec, killed_after: Callable[..., SweepResults]
) -> None:
    search = {**spaces.DOCUMENT["search"], "stages.private.steps": {"int": [3, 6]}}
    stages = {"public_view": {"until": "converged"}, "private": {"expected_batch_size": 10}}
    space = spaces.space(sweep={"accounting": accounting}, search=search, trial={"stages": stages})
    results = killed_after(spec.model_copy(update={"space": space}), 6)
    begun = SweepSpec.load("s", spec.storage)
    lines = Ledger(spec.resolved_ledger_url).lines()
    assert len(results.records) == results.planned == 17
    assert {line.priced_by for line in lines} == {begun.privacy_filter.text()}
    budget = begun.privacy_filter.charge().epsilon(1e-5)
    assert (results.sweep_epsilon, results.composed_epsilon) == (budget if accounting == "composed" else None, budget)


def test_a_plan_generates_no_embedded_data(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    around = fake_trials.surroundings()
    monkeypatch.setattr(preflight, "default_surroundings", lambda cache_dir: around)
    assert plan_of(spec).composed_epsilon == pytest.approx(6 * 0.5 + 6 * 2.0)
    assert not list(spec.places.cache_dir.glob("datasets/*"))
    assert not spec.storage.exists()
