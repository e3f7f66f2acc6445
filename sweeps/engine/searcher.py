"""Our side of Ray Tune: a Searcher that hands out what the schedule says, and the callback that takes results back.

Ray's OptunaSearch is not used: it tells stopped trials COMPLETE, leaves NaN RUNNING and doubles warm starts.
Here ends are told by the callback, which alone sees why a trial ended; the searcher only suggests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dpcore.errors import DiskFull, DpsweepError
from dpcore.train.reports import Report
from sweeps.engine.schedule import CANCELLED, Schedule
from sweeps.engine.watchdog import Watchdog
from sweeps.pricing.validation import ValidationPlan
from sweeps.records.messages import Answer, Assignment, BucketPlace, trial_id_in, words_of_crash
from sweeps.records.results import CurvePoint, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.storage.doing import file_of
from sweeps.storage.envelope import Envelope
from sweeps.storage.heartbeat import PAUSE, WHOLE_SWEEP

if TYPE_CHECKING:
    from sweeps.report.disclosure import PolicyDisclosure
    from sweeps.report.disclosure_sheet import DisclosureSheet


DIED = "the worker died"
LOW_MEMORY, WORKER_EXIT = "low on memory", "Worker exit type"
"""How Ray words that its memory monitor ended a worker, and that a worker's process is gone."""


class Interrupted(DpsweepError):
    """Ctrl-C, a signal or `dpsweep cancel`: ended cleanly, to be resumed."""

    exit_code = 130


class StopRequest(Protocol):
    """Whether somebody wants the sweep to end (`sweeps.engine.stop_signals.StopSignals`)."""

    requested: Interrupted | None


class SweepTracker(Protocol):
    """What the driver tells an experiment tracker (`sweeps.tracking.tracker.Tracker`)."""

    def sweep_started(self) -> None:
        """Before the first trial, and again on a resume."""

    def views_disclosed(self, policy: PolicyDisclosure, sheet: DisclosureSheet) -> None:
        """What the public views of the sweep's splits disclose; before the first trial, and again on a resume."""

    def trial_started(self, record: TrialRecord) -> None:
        """A trial was handed out; again after a resume."""

    def reported(self, record: TrialRecord, report: Any) -> None:
        """A report came in, possibly one that is there already."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial has come to its end."""

    def close(self, *, interrupted: bool = False) -> None:
        """Nothing more will come."""


class ScheduleSearcher(Searcher):
    """Asks the schedule. None while it waits for running trials, FINISHED when there is nothing left.

    Ray asks in blocks of one second when nothing runs and nothing comes; that cannot happen here, as None is only given
    while a trial runs.
    """

    def __init__(self, spec: SweepSpec, schedule: Schedule, *, max_concurrent: int) -> None:
        super().__init__()
        self._spec = spec
        self._schedule = schedule
        self.max_concurrent = max_concurrent
        self.envelope = Envelope.fresh()
        self.stopper = EarlyStopper(schedule, self.envelope)
        self.broken: BaseException | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next trial as a Tune config, None or FINISHED.

        Raises:
            BaseException: what broke in the callback, where Ray would take it for a failure of the trial.
        """
        if self.broken is not None:
            raise self.broken
        if self._schedule.live >= self.max_concurrent:
            return None
        record = self._schedule.next()
        if record is not None:
            folder, validation = self._schedule.folder(record), self._schedule.terms.validation
            doing = file_of(self._spec.state_dir, record.trial_id) if self._schedule.may_be_followed else None
            return assignment(self._spec, record, folder=folder, validation=validation, doing=doing).encode(self.envelope)
        return str(Searcher.FINISHED) if self._schedule.is_over else None

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Tells Ray that the limit is ours: its own would count trials that are only being retried."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback tells ends."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the studies are the memory, Tuner.restore is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class EarlyStopper(FIFOScheduler):
    """Ray's scheduler: first come, first served; a report may be a trial's last.

    Ray asks the scheduler before it calls the callback, whose part it is to take the report in.
    """

    def __init__(self, schedule: Schedule, envelope: Envelope) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._schedule = schedule
        self._envelope = envelope

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP, or CONTINUE."""
        report = Answer.decode(result, self._envelope).report
        stops = report is not None and self._schedule.is_to_stop(trial_id_in(trial.config, self._envelope), report)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


def assignment(
    spec: SweepSpec, record: TrialRecord, *, folder: Path, validation: ValidationPlan | None, doing: Path | None = None
) -> Assignment:
    """What a worker must know of a trial. `validation`: how the sweep's scores on private validation data leave. `doing`: where it says
    what it is at; None: nowhere."""
    bucket = None if spec.bucket_uri is None else BucketPlace(uri=spec.bucket_uri, trial=spec.trial_in_bucket(record.trial_id))
    return Assignment(
        trial_id=record.trial_id,
        attempt=record.current_attempt,
        config=record.config,
        folder=folder,
        bucket=bucket,
        sealed=record.is_sealed,
        plan=record.plan,
        validation=None if validation is None else validation.release_to(spec.people_of(record.role)),
        metric=spec.metric,
        people=spec.people_of(record.role),
        places=spec.places,
        function=spec.trial_function,
        doing=doing,
        expected={point.step: point.weights_digest for point in record.curve},
    )


class ScheduleCallback(Callback):
    """Brings starts, reports and ends from Ray to the schedule, then to the tracker and the terminal."""

    def __init__(
        self,
        schedule: Schedule,
        searcher: ScheduleSearcher,
        tracker: SweepTracker,
        *,
        watchdog: Watchdog,
        stop: StopRequest,
        ended: Callable[[TrialRecord], None],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._schedule = schedule
        self._watchdog = watchdog
        self._stop = stop
        self._searcher = searcher
        self._envelope = searcher.envelope
        self._tracker = tracker
        self._ended = ended
        self._tick = tick
        self._begun: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """The safe place to stop: no result is half taken in. Time has passed, which the terminal may show."""
        self._tick()
        if self._stop.requested is not None:
            raise self._stop.requested
        if self._searcher.broken is not None:
            raise self._searcher.broken
        for asked in self._watchdog.look():
            if asked == WHOLE_SWEEP:
                raise Interrupted("ended by `dpsweep cancel`; finished trials are kept, `dpsweep resume` goes on")
            if asked == PAUSE:
                self._schedule.pause()
            else:
                self._cancel(asked)
        if self._schedule.is_paused and not self._schedule.live:
            raise Interrupted("paused by `dpsweep pause`; every trial that ran has ended, `dpsweep resume` goes on")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has the trial."""
        self._guard(lambda: self._begin(self._id_of(trial), trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A report, if the result has one."""
        report = Answer.decode(result, self._envelope).report
        if report is not None:
            self._guard(lambda: self._take_in(self._id_of(trial), report))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial said that it is done, or why it cannot be, or how it can go on (`TrialTrainable`); or it was stopped."""
        answer = Answer.decode(trial.last_result, self._envelope)
        self._watchdog.ended(self._id_of(trial))
        self._guard(lambda: self._finish(self._ended_as(self._id_of(trial), answer)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died or crashed: perhaps the trial is handed out again."""
        reason = self._watchdog.ended(self._id_of(trial)) or _last_line(trial, self._envelope)
        self._guard(lambda: self._finish(self._schedule.worker_died(self._id_of(trial), reason)))

    def _id_of(self, trial: Any) -> str:
        return trial_id_in(trial.config, self._envelope)

    def _ended_as(self, trial_id: str, answer: Answer) -> TrialRecord:
        """The trial after its worker's last answer.

        Raises:
            DiskFull: of a worker. Every other trial would meet it too and lose its budget: the sweep ends, the trial stays open.
        """
        error = answer.error or "no reason was given"
        if answer.fault == "disk_full":
            raise DiskFull(f"{trial_id}: {error.removeprefix('DiskFull: ')}")
        if answer.fault == "not_as_planned":
            return self._schedule.not_as_planned(trial_id, error)
        if answer.fault == "not_replayable":
            return self._schedule.not_replayable(trial_id, error)
        if answer.fault == "out_of_memory" and answer.physical_batch_size is not None:
            return self._schedule.out_of_memory(trial_id, error, physical_batch_size=answer.physical_batch_size)
        return self._schedule.end(trial_id, error=answer.error)

    def tell_released(self) -> None:
        """Brings the winners of private selections that are over to tracker and terminal, for the first time and whole."""
        for record in self._schedule.take_released():
            tell_whole(self._tracker, record)
            self._ended(record)

    def _cancel(self, trial_id: str) -> None:
        """Ends a trial for good that somebody cancelled: its worker is killed, or it is not tried again."""
        ended = self._schedule.cancel(trial_id)
        if ended is not None:
            self._finish(ended)
        self._watchdog.kill(trial_id, CANCELLED)

    def _begin(self, trial_id: str, trial: Any) -> None:
        record = self._schedule.started(trial_id)
        self._watchdog.begun(trial_id, trial, is_shown=not self._schedule.is_hidden(record))
        if not self._schedule.is_hidden(record):
            self._begun.add(trial_id)
            self._tracker.trial_started(record)

    def _take_in(self, trial_id: str, report: Report) -> None:
        self._watchdog.heard(trial_id)
        record = self._schedule.report(trial_id, report)
        if not self._schedule.is_hidden(record) and not self._schedule.is_void(trial_id):
            self._tracker.reported(record, CurvePoint.of(report))

    def _finish(self, record: TrialRecord) -> None:
        if self._schedule.is_hidden(record):
            self.tell_released()
            return
        if record.is_finished and record.trial_id not in self._begun:
            self._tracker.trial_started(record)  # no worker came as far as its start
        if record.is_finished:
            self._tracker.trial_ended(record)
        self._ended(record)
        for stayed in self._schedule.take_stayed():
            self._tracker.trial_ended(stayed)
            self._ended(stayed)

    def _guard(self, call: Callable[[], None]) -> None:
        """Ray takes an exception in some callbacks for a failure of the trial; keep it, so that the sweep ends with it."""
        try:
            call()
        except BaseException as error:
            if self._searcher.broken is not None:
                raise self._searcher.broken from None
            self._searcher.broken = error
            raise


def tell_whole(tracker: SweepTracker, record: TrialRecord) -> None:
    """A trial from its start to its end, all at once."""
    tracker.trial_started(record)
    for point in record.curve:
        tracker.reported(record, point)
    tracker.trial_ended(record)


def _last_line(trial: Any, envelope: Envelope) -> str:
    """What went wrong, in one line: of a crash its own words' last line; of a worker that died what Ray knows of it."""
    if trial.error_file is None:
        return DIED
    with open(trial.error_file, encoding="utf-8") as file:
        text = file.read()
    words = words_of_crash(text, envelope)
    if words is not None:
        return words.splitlines()[-1].strip()
    if LOW_MEMORY in text:
        return f"{DIED}: its node ran out of memory, and Ray ended it; run fewer trials at once (--max-concurrent)"
    if WORKER_EXIT in text:
        return f"{DIED}: its process was killed or crashed"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else DIED
