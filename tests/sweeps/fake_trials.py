"""Trials of milliseconds with the trainer's signature: they keep their reports in the folder and replay from there."""

import errno
import fcntl
import json
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.errors import BadInput, Diverged, NotAsPlanned, NotReplayable, OutOfMemory
from dpcore.privacy.composition import AtOrder, Filtered, Selected
from dpcore.privacy.plan import PrivacyPlan
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps.engine.preflight import DatasetFacts, Surroundings
from sweeps.pricing.plan import Accountant
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.storage.envelope import Envelope

ENVELOPE = Envelope(key=bytes(range(7, 39)))
"""Of workers without a driver."""


def score_of(config: TrialConfig) -> float:
    """Best at clip norm 0.1; privacy, floors and controls cost a little."""
    base = {"public_only": 0.5, "nonprivate": 0.9}.get(config.method, 0.7)
    if config.clip_norm is not None:
        base -= 0.05 * abs(math.log10(config.clip_norm / 0.1))
    return base - (0.1 if config.is_control else 0.0) + 0.001 * config.seed


def run_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """A report a step, three without a plan; each is written down before it is given."""
    folder = handout.folder
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "reports.json"
    reports = json.loads(done.read_text()) if done.exists() else []
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{handout.key.key_id()} {handout.attempt.number}\n")
    last = 3 if handout.plan is None else handout.plan.steps
    for step in range(1, last + 1):
        if step > len(reports):
            reports.append({"val/pckh_50": score_of(config) * step / last, "val/pckh_10": 0.1})
            done.write_text(json.dumps(reports))
        digest, held = f"{handout.trial_id}-{step}", handout.plan if config.spends_privacy else None
        said = None if held is None else held.spent(step, spent(held, step))
        yield Report(step=step, done=step == last, metrics=reports[step - 1], weights_digest=digest, spent=said)


def report_of(record: TrialRecord, step: int, metrics: dict[str, float], digest: str = "", *, done: bool = False, **claimed: Any) -> Report:
    """A worker's report of a record, with what was reserved; `claimed` says something else than that."""
    said = None if record.reserved is None else replace(record.reserved.spent(step, spent(record.reserved, step)), **claimed)
    return Report(step=step, done=done, metrics=metrics, weights_digest=digest, spent=said)


QUOTED = "ward7-IMG_48213-maria.jpg"


def crashing_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """Raises what is no answer, and quotes a picture."""
    if config.method:
        raise ValueError(f"cannot read {QUOTED}")
    yield from run_trial(config, runtime, handout)


def slow_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """The same, a second a report."""
    for report in run_trial(config, runtime, handout):
        time.sleep(1.0)
        yield report


def locked_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """The same, under its folder's lock while it is open."""
    handout.folder.mkdir(parents=True, exist_ok=True)
    with (handout.folder / "trial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield from run_trial(config, runtime, handout)


def noted_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """The slow one; which it is and who began it is noted where every node sees it."""
    handout.places.data_dir.mkdir(parents=True, exist_ok=True)
    with (handout.places.data_dir / "starts.txt").open("a") as file:
        file.write(f"{handout.trial_id} {os.getpid()}\n")
    yield from slow_trial(config, runtime, handout)


def dying_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """The worker of the second search trial is killed once after its first report; the third diverges, the fourth is refused."""
    folder, number, searched = handout.folder, handout.trial_id.rpartition("-")[2], handout.trial_id.startswith("e")
    for report in run_trial(config, runtime, handout):
        if searched and number == "002":
            report = replace(report, metrics={**report.metrics, "val/pckh_50": math.nan})
        if searched and number == "003":
            raise BadInput("the data do not fit")
        yield report
        if searched and number == "001" and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)


def faulty_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """Trials 000 to 003 of a search fail, each in its way; 004 in its set-up, before the first report. A new attempt goes well."""
    number = handout.trial_id.rpartition("-")[2] if handout.trial_id.startswith("e") and not handout.attempt.number else ""
    if number == "004":
        raise RuntimeError("the data cannot be opened")
    for report in run_trial(config, runtime, handout):
        yield report
        if number == "000":
            raise OutOfMemory("a step does not fit", physical_batch_size=64)
        if number == "001":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(handout.folder / "checkpoint-000001"))
        if number == "002":
            raise Diverged("the weights diverged")
        if number == "003":
            raise NotReplayable("other libraries")


def hanging_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """On its first try trial 000 hangs after a report and the process of 001 is stopped. Trial 002 hangs on every try."""
    number, marker = handout.trial_id.rpartition("-")[2], handout.folder / "hung"
    for report in run_trial(config, runtime, handout):
        yield report
        if number in ("000", "001", "002") and not marker.exists():
            if number != "002":
                marker.touch()
            if number == "001":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(600)


def undisturbed_disk(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """`faulty_trial` without the fault that ends the whole sweep."""
    return faulty_trial(config, runtime, replace(handout, trial_id=handout.trial_id.replace("-001", "-005")))


def plan(config: TrialConfig, cache_dir: Path | None) -> PrivacyPlan | None:
    """Instead of seconds of calibration: the noise is 1 / ε."""
    if not config.spends_privacy:
        return None
    return PrivacyPlan(
        sampling_prob=config.sampling_prob,
        steps=config.stages.private.steps,
        noise_multiplier=1 / config.epsilon,
        delta=config.delta,
        epsilon_target=config.epsilon,
        epsilon_planned=config.epsilon,
    )


def spent(plan: PrivacyPlan, step: int, cache_dir: Path | None = None) -> float:
    """In equal parts over the steps."""
    return plan.epsilon_planned * step / plan.steps


def compose(charges: Iterable[tuple[Any, int]], delta: float) -> float:
    """Plain addition of 1 / noise; a selection counts three times, a filter as itself."""
    return sum(count * _cost(charge, delta) for charge, count in charges)


def _cost(charge: Any, delta: float) -> float:
    if isinstance(charge, Filtered):
        return charge.epsilon(delta)
    if isinstance(charge, AtOrder):
        return 0.0
    return 3 / charge.spending.noise_multiplier if isinstance(charge, Selected) else 1 / charge.noise_multiplier


def epsilon_of(charge: Any, delta: float) -> float:
    """Of one line."""
    return compose([(charge, 1)], delta)


@dataclass
class Tracker:
    """Remembers what it was told."""

    spec: object

    def __post_init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def sweep_started(self) -> None:
        self.events.append(("sweep", ""))

    def trial_started(self, record: TrialRecord) -> None:
        self.events.append(("started", record.trial_id))

    def reported(self, record: TrialRecord, report: CurvePoint) -> None:
        self.events.append(("reported", f"{record.trial_id} {report.step}"))

    def trial_ended(self, record: TrialRecord) -> None:
        self.events.append(("ended", record.trial_id))

    def close(self, *, interrupted: bool = False) -> None:
        self.events.append(("closed", str(interrupted)))


def surroundings(lines: list[str] | None = None, trackers: list[Tracker] | None = None, *, protected: bool = False) -> Surroundings:
    """All fakes together; says its lines into `lines`."""

    def tracker(spec: SweepSpec) -> Tracker:
        made = Tracker(spec)
        if trackers is not None:
            trackers.append(made)
        return made

    return Surroundings(
        accountant=Accountant(plan=plan, compose=compose, spent=spent),
        tracker=tracker,
        dataset=lambda spec: DatasetFacts(cohort="d" * 8, protected=protected),
        say=(lambda line: None) if lines is None else lines.append,
    )


LIES: dict[str, dict[str, Any] | None] = {
    "e0.5-001": {"noise_multiplier": 0.1},
    "e0.5-002": {"planned_steps": 2},
    "e0.5-003": {"delta": 1e-4},
    "e2-000": {"epsilon": 1.9},
    "e2-001": {"sampling_prob": 0.5},
    "e2-002": None,
    "e2-003": {"steps": 1},
}
"""What the trials of `lying_trial` say instead of what was reserved; None: nothing."""


def lying_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """`run_trial`, of which some say from their second report on that they did something else than was reserved."""
    for report in run_trial(config, runtime, handout):
        if handout.trial_id in LIES and report.step > 1:
            lie = LIES[handout.trial_id]
            report = replace(report, spent=None if lie is None else replace(report.spent, **lie))
        yield report


def self_accusing_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """`run_trial`, of which one finds out itself that it executed something else."""
    for report in run_trial(config, runtime, handout):
        yield report
        if handout.trial_id == "e0.5-001":
            raise NotAsPlanned("executed 2 steps, 3 were planned")


def real_trial_without_calibration(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """The real trainer where nobody can calibrate."""
    from dpcore.train.trainer import run_trial as trained

    with mock.patch("dpcore.privacy.accounting.calibrate", side_effect=AssertionError("the worker calibrated")):
        yield from trained(config, runtime, handout)
