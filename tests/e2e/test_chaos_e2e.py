"""A sweep whose driver is killed three times and whose workers ten times, at random: every planned trial ends once.

One kill is of the driver alone, one of its whole process group, one of a machine: afterwards nothing of Ray is left on disk.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import chaos_trials
import optuna
import pytest
from e2e_support import Cli
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from process_tree import Process, descendants, wait_until_gone

from dpcore.config import Places, RuntimeFlags
from search_spaces.loader import build_space
from sweeps.ledger.ledger import Ledger
from sweeps.records.results import read_results
from sweeps.records.spec import SweepSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent
NAME = "chaos"
WORKER = "ray::TrialTrainable"
ORPHANS_S = 15.0
"""Within which the workers of a dead driver notice and end."""
DRIVER_KILLS = ("the driver", "its process group", "the machine")
WORKER_KILLS = 10
EPSILONS, TRIALS, RERUNS = (1.0, 2.0, 8.0), 11, 1
PLANNED = 3 + len(EPSILONS) * (TRIALS + 1 + RERUNS)  # public start, floor, ceiling; per ε its search, control and fresh seeds
SPACE = {
    "sweep": {"epsilons": list(EPSILONS), "delta": 1e-3, "trials_per_epsilon": TRIALS, "sampler": "tpe", "accounting": "composed"},
    "references": {"floor": True, "ceiling": True, "control": True, "winner_seeds": RERUNS, "disclosure": {"steps": 4}},
    "splits": {"pixels_8": {"transform": "pixelate", "cell_px": 8}},
    "trial": {
        "data": {"private": "tiny/private", "public": "tiny/public", "validation": "tiny/validation", "nominal_examples": 200},
        "stages": {"public_view": {"until": "converged"}, "private": {"steps": 8, "expected_batch_size": 40}},
    },
    "search": {
        "method": {"choice": ["dpsgd", "feature"]},
        "split": {"choice": ["pixels_8"], "when": {"method": "feature"}},
        "clip_norm": {"float": [0.01, 1.0], "log": True},
        "public_weight": {"float": [0.1, 1.0], "when": {"method": "feature"}},
    },
}
BEGIN = """
import sys
from pathlib import Path
from sweeps.engine.driver import run_sweep
from sweeps.records.spec import SweepSpec
run_sweep(SweepSpec.model_validate_json(Path(sys.argv[1]).read_text()))
"""


class Chaos:
    """The sweep under attack: starts drivers, and kills what they started."""

    def __init__(self, cli: Cli, spec: SweepSpec, work: Path, ray_dir: Path) -> None:
        self._cli, self._spec, self._work = cli, spec, work
        self.ray_dir = ray_dir
        self.started: list[Process] = []
        self.driver: subprocess.Popen[bytes] | None = None
        (work / "spec.json").write_text(spec.model_dump_json(by_alias=True))

    def begin(self) -> None:
        """Runs the sweep, or resumes it where there is something to resume."""
        resumes = (self._spec.sweep_dir / "spec.json").is_file()
        resume = [*self._cli.command, "resume", NAME, "--storage", str(self._spec.storage)]
        command = resume if resumes else [sys.executable, "-c", BEGIN, str(self._work / "spec.json")]
        path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        environment = {**self._cli.environment, "PYTHONPATH": path, "RAY_TMPDIR": str(self.ray_dir)}
        with (self._work / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    @property
    def is_running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    @property
    def log(self) -> str:
        return (self._work / "driver.log").read_text()[-6000:]

    def _below(self) -> list[Process]:
        assert self.driver is not None
        below = descendants(self.driver.pid)
        self.started += below
        return below

    def kill_a_worker(self, generator: random.Random) -> bool:
        """Kills a Ray worker that holds our trainable; False when the driver ended before there was one."""
        while self.is_running:
            workers = [process for process in self._below() if WORKER in process.command]
            if workers:
                generator.choice(workers).kill()
                return True
            time.sleep(0.1)
        return False

    def kill_the_driver(self, how: str) -> bool:
        """Kills the driver and waits for what it started; False when it had ended by itself."""
        assert self.driver is not None
        below = self._below()
        if not self.is_running:
            return False
        if how == "the driver":
            self.driver.kill()
        else:
            os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        if how == "the machine":
            for process in below:
                process.kill()
        # Ray's agents, and workers that were only starting, look for their dead server for a minute: they have nothing of a trial.
        left = [process for process in wait_until_gone(below, within_s=ORPHANS_S) if WORKER in process.command]
        assert not left, f"outlived {how} by {ORPHANS_S:g} s: {[(process.pid, process.command) for process in left]}"
        if how == "the machine":
            shutil.rmtree(self.ray_dir)
            self.ray_dir.mkdir()
            shutil.rmtree(self._spec.state_dir / ".ray", ignore_errors=True)
        return True

    def end(self, *, within_s: float) -> int:
        """The exit code of the last driver, after everything that any driver started has ended by itself."""
        assert self.driver is not None
        code = self.driver.wait(timeout=within_s)
        assert not wait_until_gone(self.started, within_s=120)
        return code

    def clear(self) -> None:
        """Kills what is left, each by its number."""
        if self.is_running and self.driver is not None:
            self._below()
            self.driver.kill()
            self.driver.wait()
        for process in self.started:
            process.kill()


@pytest.fixture
def chaos(cli: Cli, tmp_path: Path) -> Iterator[Chaos]:
    places = Places(data_dir=cli.data_dir, cache_dir=cli.data_dir / "cache")
    spec = SweepSpec(
        name=NAME,
        space=build_space(SPACE, name="chaos"),
        places=places,
        storage=tmp_path / "storage",
        trial_function="chaos_trials:run_trial",
        runtime=RuntimeFlags(report_every_steps=2),
        max_concurrent=2,
        cpus_per_trial=0.5,
        max_failures=WORKER_KILLS,
    )
    ray_dir = Path(tempfile.mkdtemp(prefix="chaos-"))  # Ray's sockets lie below it: their paths must be short
    made = Chaos(cli, spec, tmp_path, ray_dir)
    try:
        yield made
    finally:
        made.clear()
        shutil.rmtree(ray_dir, ignore_errors=True)


def kill_at_random(chaos: Chaos, generator: random.Random) -> None:
    """All kills, in random order and at random moments."""
    kills = ["a worker"] * WORKER_KILLS + list(DRIVER_KILLS)
    generator.shuffle(kills)
    print(f"kills: {kills}")
    chaos.begin()
    for kill in kills:
        time.sleep(generator.uniform(0.0, 3.0))
        if kill == "a worker":
            assert chaos.kill_a_worker(generator), f"the sweep was over before its last kill:\n{chaos.log}"
            continue
        time.sleep(generator.uniform(0.0, 12.0))  # from its start-up on
        assert chaos.kill_the_driver(kill), f"the sweep was over before its last kill:\n{chaos.log}"
        chaos.begin()


def test_a_sweep_under_three_driver_and_ten_worker_kills_ends_with_exactly_its_planned_trials(chaos: Chaos, cli: Cli) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the kills: {seed}")
    kill_at_random(chaos, random.Random(seed))
    assert chaos.end(within_s=600) == 0, chaos.log
    spec = SweepSpec.load(NAME, chaos._spec.storage)
    check_results(spec)
    check_ledger(spec, cli)
    check_studies(spec)
    check_mlflow(spec)
    status = json.loads(cli.ok("status", NAME, "--storage", spec.storage, "--json"))
    assert [(e["planned"], e["done"], e["running"], e["failed"]) for e in status["epsilons"]] == [(TRIALS, TRIALS, 0, 0)] * len(EPSILONS)
    assert status["state"] == "done"


def check_results(spec: SweepSpec) -> None:
    """Each planned trial once, whole, and never on two workers at a time."""
    results = read_results(spec.sweep_dir)
    assert len(results.records) == len({record.trial_id for record in results.records}) == results.planned == PLANNED
    assert {(record.state, record.attempt) for record in results.records} == {("done", 0)}
    curves = {tuple(point.step for point in record.curve) for record in results.records if record.config.method != "public_only"}
    assert curves == {(2, 4, 6, 8)}
    assert not list(spec.sweep_dir.rglob(chaos_trials.DOUBLED))
    lines = [json.loads(line) for line in spec.reports_path.read_text().splitlines()]
    assert max(Counter((line["trial_id"], line["step"]) for line in lines).values()) == 1


def check_ledger(spec: SweepSpec, cli: Cli) -> None:
    """One reservation a private trial, each settled, and a chain that verifies."""
    cli.ok("ledger", NAME, "--storage", spec.storage, "--verify")
    lines = Ledger(spec.resolved_ledger_url).lines()
    private = {record.trial_id for record in read_results(spec.sweep_dir).records if record.config.spends_privacy}
    assert len(private) == len(EPSILONS) * (TRIALS + RERUNS)
    for kind in ("reserve", "settle"):
        assert Counter(line.run for line in lines if line.kind == kind) == Counter((NAME, trial_id, 0) for trial_id in private)


def check_studies(spec: SweepSpec) -> None:
    """No trial without an end."""
    storage = JournalStorage(JournalFileBackend(str(spec.study_path)))
    every = [optuna.load_study(study_name=study.study_name, storage=storage) for study in storage.get_all_studies()]
    states = Counter(trial.state.name for study in every for trial in study.get_trials(deepcopy=False))
    assert states["COMPLETE"] == PLANNED
    assert not states["RUNNING"]


def check_mlflow(spec: SweepSpec) -> None:
    """One run a trial, none RUNNING, each metric once a step."""
    client = MlflowClient(f"sqlite:///{spec.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    assert len(trials) == sum("trial_id" in run.data.tags for run in runs) == PLANNED
    for record in read_results(spec.sweep_dir).records:
        history = client.get_metric_history(trials[record.trial_id].info.run_id, "val/pckh_50")
        assert [point.step for point in history] == [point.step for point in record.curve], record.trial_id
