"""A trial on a Ray worker: one `step` is one report of the trial function.

A class with `reset_config`, so that actors are reused: 0.06 s a trial against 2.6 s for a function in a fresh worker.
Ray's checkpoints are not used; the trial function keeps its own under its folder and replays from them. Where the storage is a
bucket, that folder is a scratch copy of this node (`sweeps.storage.bucket_trial`).
"""

from __future__ import annotations

import fcntl
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from dpcore.config import RuntimeFlags, TrialConfig, parse_config
from dpcore.disk import naming_full_disk
from dpcore.errors import BadInput, DiskFull, DpsweepError, NotAsPlanned, NotReplayable, OutOfMemory, Unavailable
from dpcore.train.handout import Handout
from dpcore.train.hearing import heard_by
from dpcore.train.reports import Report
from sweeps.pricing.sealed import make_sealed_folder, seal
from sweeps.ray_runtime.gpu_memory import CudaMemory, make_room
from sweeps.records.messages import Answer, Assignment, Fault, TrialCrashed
from sweeps.storage.bucket_trial import BucketTrial, open_bucket_trial
from sweeps.storage.doing import DoingFile
from sweeps.storage.envelope import Envelope
from sweeps.tracking.allow_list import allowed_error

if TYPE_CHECKING:
    from dpcore.privacy.randomness import SweepKey

LOCK_FILE = "trial.lock"
LOCK_WAIT_S = 90.0
"""How long a worker of a dead driver may take to notice that it is alone."""

FAULTS: tuple[tuple[type[DpsweepError], Fault], ...] = (
    (DiskFull, "disk_full"),
    (NotReplayable, "not_replayable"),
    (NotAsPlanned, "not_as_planned"),
)

TrialFunction = Callable[[TrialConfig, RuntimeFlags, Handout], Iterator[Report]]


class TrialTrainable(tune.Trainable):
    """Runs the `Assignment` in its config; the key comes as a parameter and stands in no config.

    A DpsweepError is an `Answer`, not a crash: the last one has `error`, and `fault` where the trial can go on. Anything else
    crashes the worker, as a `TrialCrashed`, and the driver decides whether to try again. `Unavailable` (a device or file that may
    come back) is a crash in that sense. All of it travels in envelopes.
    """

    _reports: Iterator[Report] | None = None
    _copy: BucketTrial | None = None
    _scratch: ExitStack

    def setup(  # type: ignore[override]  # what comes beside the config: `tune.with_parameters`
        self,
        config: dict[str, Any],
        *,
        key: SweepKey,
        envelope: Envelope,
        runtime: dict[str, Any] | None = None,
        gpus: float = 0.0,
    ) -> None:
        """Sets the threads before torch is imported, then begins the trial. `gpus`: what each trial asks of Ray."""
        self._key, self._envelope = key, envelope
        self._scratch = ExitStack()
        self._gpus = gpus
        self._runtime = parse_config(RuntimeFlags, runtime or {})
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(self._runtime.threads)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in the same process."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next report as a result.

        Raises:
            TrialCrashed: the trial function raised what is no answer. Nothing of its exception hangs on it.
        """
        try:
            return self._answer().encode(self._envelope)
        except Exception as error:  # noqa: BLE001  whatever it is, its words must not reach Ray as they are
            crash = TrialCrashed.of("".join(traceback.format_exception_only(error)).strip(), self._envelope)
        raise crash

    def _answer(self) -> Answer:
        try:
            with naming_full_disk(self._trial.folder):
                if self._reports is None:
                    self._reports = self._start()
                if self._copy is not None and self._copy.keep():
                    return Answer(done=True)
                with heard_by(self._hears):
                    report = next(self._reports, None)
            if report is not None:
                self._check_kind(report)
                self._hold_against_earlier(report)
        except Unavailable:
            raise
        except DpsweepError as error:
            text = allowed_error(f"{type(error).__name__}: {error}", protected=self._trial.sealed)
            return _failure(text, error)
        if report is None:
            return Answer(done=True, error="the trial ended without a last report")
        if self._trial.sealed:
            return self._sealed(report)
        if self._copy is not None:
            self._copy.delivers(report.step, done=report.done)
        return Answer(done=report.done and self._copy is None, report=report.finite)

    def _check_kind(self, report: object) -> None:
        """Refuses what a trial function of somebody else yields by mistake."""
        if not isinstance(report, Report):
            raise BadInput(f"{self._trial.function} yielded a {type(report).__name__}; expected dpcore.train.reports.Report")

    def _sealed(self, report: Report) -> Answer:
        """A report of which nothing leaves but whether it is the last: the rest follows from private data without noise."""
        if report.done:
            self._end()
            seal(self._trial.folder, report.metrics)
        return Answer(done=report.done)

    def _hold_against_earlier(self, report: Report) -> None:
        """Keeps a report in the worker that is not the one that was made before: its noise is the same, its sums are not.

        The trial holds itself against its folder; this holds where the folder is lost or lies on another machine.

        Raises:
            NotReplayable: the weights differ.
        """
        expected = self._trial.expected.get(report.step)
        if expected is not None and expected != report.weights_digest:
            raise NotReplayable(
                f"trial {self._trial.trial_id}: a retry reached other weights at step {report.step} than were reported before; "
                "it was stopped there, because two releases under one noise would reveal their difference"
            )

    def cleanup(self) -> None:
        """Closes the trial, so that its folder's lock is free."""
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = Assignment.decode(config, self._envelope)
        self._reports = None
        self._hears = None if self._trial.doing is None else DoingFile(self._trial.doing).hear

    def _start(self) -> Iterator[Report]:
        trial = self._trial
        function = load_function(trial.function)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._runtime.threads)
        folder = self._folder()
        if self._runtime.device == "cuda":
            make_room(CudaMemory(), self._gpus)
        handout = Handout(
            places=trial.places,
            trial_id=trial.trial_id,
            key=self._key,
            folder=folder,
            plan=trial.plan,
            attempt=trial.attempt,
            sealed=trial.sealed,
            validation=trial.validation,
            metric=trial.metric,
            people=trial.people,
        )
        return function(trial.config, self._runtime, handout)

    def _folder(self) -> Path:
        """Where the trial keeps its checkpoints: its folder of the storage, free now, or a scratch copy of what a bucket has."""
        trial, folder = self._trial, self._trial.folder
        if trial.bucket is not None:
            place = trial.bucket.model_dump()
            copy = open_bucket_trial(place, scratch=trial.places.cache_dir, attempt=trial.attempt.number)
            self._copy = self._scratch.enter_context(copy)
            return self._copy.folder
        if trial.sealed:
            make_sealed_folder(folder)
        wait_for_lock(folder, within_s=LOCK_WAIT_S)
        return folder

    def _end(self) -> None:
        close = getattr(self._reports, "close", None)
        self._reports = self._copy = None
        if close is not None:
            close()
        self._scratch.close()


def _failure(text: str, error: DpsweepError) -> Answer:
    """The last answer of a trial that failed, with how it can go on."""
    if isinstance(error, OutOfMemory):
        return Answer(done=True, error=text, fault="out_of_memory", physical_batch_size=error.physical_batch_size)
    fault = next((fault for kind, fault in FAULTS if isinstance(error, kind)), None)
    return Answer(done=True, error=text, fault=fault)


def load_function(name: str) -> TrialFunction:
    """The function behind `module:function`.

    Raises:
        BadInput: there is none of that name.
    """
    module, _, function = name.partition(":")
    try:
        found: TrialFunction = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"trial function {name} cannot be imported ({error}); expected module:function") from error
    return found


def wait_for_lock(folder: Path, *, within_s: float) -> None:
    """Waits until no other process holds a trial's folder: workers of a killed driver need a moment to notice.

    Raises:
        Unavailable: it is still held after `within_s` seconds.
    """
    path, end = folder / LOCK_FILE, time.monotonic() + within_s
    while path.is_file():
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Unavailable(f"{path} is held by another process since {within_s:g} s; end that one first") from None
        time.sleep(0.2)
