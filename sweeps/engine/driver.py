"""Runs a sweep from its spec to its results, and takes one up again after whatever ended it.

Order of a run: check everything (space, data, roles, price, Ray, tracker), then make the folder, then run. A bad request
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import SQLAlchemyError

from dpcore.disk import naming_full_disk
from dpcore.durable import OWNER_ONLY, append_lines
from sweeps.engine.preflight import (
    DatasetFacts,
    Surroundings,
    any_config,
    charged_to,
    check_writable,
    checked_plan,
    default_surroundings,
    with_filter,
)
from sweeps.engine.schedule import Schedule
from sweeps.engine.searcher import Interrupted, ScheduleCallback, ScheduleSearcher, SweepTracker, tell_whole
from sweeps.engine.stop_signals import StopSignals, stop_signals
from sweeps.engine.tune_run import run_tune
from sweeps.engine.watchdog import Watchdog
from sweeps.ledger.totals import views_text
from sweeps.pricing.plan import priced, sweep_price
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import Selection, check_key
from sweeps.ray_runtime.disclosing import Disclosing
from sweeps.ray_runtime.ray_session import ray_session
from sweeps.records.charged import open_ledger, say_earlier_unit
from sweeps.records.folder import found_key, keep_private, locked, mark_finished, mark_unfinished, new_folder, new_key
from sweeps.records.publication import REPORT, RESULTS, load_spec, publish, publish_meanwhile, require_state, take_name, withdraw
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SPEC_FILE, SweepSpec
from sweeps.records.versions import check_versions, installed_versions
from sweeps.report.disclosure import save_policy
from sweeps.report.live.screen import NoScreen, Screen
from sweeps.report.live.view import SweepView, view_of
from sweeps.report.progress import progress_line
from sweeps.search.terms import SweepTerms, terms_of
from sweeps.storage import doing
from sweeps.storage.heartbeat import clear
from sweeps.storage.ray_folder import FOLDER, clear_leftovers
from sweeps.tracking.allow_list import allowed_error
from sweeps.tracking.held_back import HeldBack
from sweeps.tracking.outbox.spool import waiting_bytes

if TYPE_CHECKING:
    from dpcore.privacy.randomness import SweepKey

SHARE_OF_WRITING = 0.02
"""Of the driver's time: tables of many trials take longer to write, and are written less often."""


def run_sweep(
    spec: SweepSpec, surroundings: Surroundings | None = None, *, summarize: Callable[[SweepResults, Any], None] | None = None
) -> SweepResults:
    """Runs a new sweep to its end.

    Args:
        spec: what to run.
        surroundings: None for the real ones.
        summarize: called with the results and the open tracker before it is closed (the report's place).

    Raises:
        BadInput, Refused, Unavailable: nothing was begun. Interrupted: stopped by Ctrl-C; `resume_sweep` goes on. DiskFull: here or on
            a worker; it goes on once there is room.
    """
    around = surroundings or default_surroundings(spec.places.cache_dir)
    with around.working("checking data and price"):
        checked = checked_plan(spec, around)
    facts, terms = checked.facts, checked.terms
    spec = with_filter(charged_to(spec, facts), checked.plan)
    clear_leftovers(spec.state_dir.parent)
    with (
        stop_signals(spec.name, is_begun=False) as stop,
        _naming_faults(spec),
        new_folder(spec, private=facts.protected) as made,
        _started(spec, around, facts) as concurrency,
    ):
        stop.listen()
        key = new_key(spec)
        spec = spec.model_copy(update={"versions": installed_versions()})
        spec.save()
        with around.working("opening studies, ledger and MLflow"):
            run = _Run(spec, around, facts, terms, key=key, key_lost=False)
        run.price = checked.plan.sweep_epsilon
        stop.is_begun = lambda: run.has_begun
        try:
            with run:
                take_name(spec)
                return run.to_the_end(concurrency, summarize, stop)
        finally:
            if run.has_begun:
                made.clear()
            else:
                withdraw(spec)


def resume_sweep(
    name: str,
    storage: str | Path,
    surroundings: Surroundings | None = None,
    *,
    state: Path | None = None,
    new_attempt: bool = False,
    summarize: Callable[[SweepResults, Any], None] | None = None,
) -> SweepResults:
    """Takes a sweep up where its driver ended, however it ended; a finished one only writes its results again.

    With the key lost, trials without an end are charged in full, marked failed and replaced under a new key. `new_attempt`: open runs
    may go on under other packages with fresh noise, charged again (`sweeps.records.versions`).

    Raises:
        BadInput: no such sweep. Refused: another driver runs it, or other packages cannot go on with it. Interrupted: stopped again.
    """
    spec = require_state(load_spec(name, storage, state))
    check_writable(spec)
    around = surroundings or default_surroundings(spec.places.cache_dir)
    with around.working("checking the data"):
        facts = around.dataset(spec)
    with stop_signals(spec.name, is_begun=True) as stop, _naming_faults(spec), locked(spec):
        if (moved := charged_to(spec, facts, resumed=True)) is not spec:
            spec = moved
            spec.save()
        if facts.protected:
            keep_private(spec)
        check_key(not spec.key_path.exists(), spec)
        key, lost = found_key(spec)
        with _started(spec, around, facts) as concurrency:
            stop.listen()
            with around.working("taking up studies, ledger and MLflow"):
                taken_up = _Run(spec, around, facts, terms_of(spec), key=key, key_lost=lost, new_attempt=new_attempt)
            with taken_up as run:
                spec.model_copy(update={"versions": installed_versions()}).save()
                return run.to_the_end(concurrency, summarize, stop)


class _Run:
    """A sweep while it runs: schedule, tracker, results.

    Close it by a `with` block: the tracker has a thread, and a process whose thread nobody ends never ends itself. A failure
    in the constructor closes what was opened so far.
    """

    def __init__(
        self,
        spec: SweepSpec,
        around: Surroundings,
        facts: DatasetFacts,
        terms: SweepTerms,
        *,
        key: SweepKey,
        key_lost: bool,
        new_attempt: bool = False,
    ) -> None:
        self._spec = spec
        self._around = around
        self._facts = facts
        self._terms = terms
        self._key = key
        self._finished = False
        self._interrupted = False
        self._write_again_at = 0.0
        self._disclosing: Disclosing | None = None
        self._screen: Screen = NoScreen()
        self._slots = 1
        self._reserved: float | None = None
        self.price: float | None = None
        with contextlib.ExitStack() as opened:
            self._tracker = around.tracker(spec)
            opened.callback(lambda: self._tracker.close(interrupted=not self._finished))
            self._tracker.sweep_started()  # before anything else is written: it may be unreachable
            spec.log_path.parent.mkdir(mode=0o700, exist_ok=True)
            self._ledger = open_ledger(spec)
            opened.callback(self._ledger.close)
            if any(line.kind == "reserve" for line in self._ledger.lines(sweep=spec.name)):
                say_earlier_unit(spec, self._ledger, cohort=facts.cohort, unit=any_config(spec).privacy_unit)
            if any(split.region != "all" for split in spec.space.splits_in_use):
                views, data = views_text(spec.space.splits_in_use), any_config(spec).data
                self._ledger.publish(spec.name, cohort=facts.cohort, dataset=data.in_private_place, views=views)
            self._schedule = self._restored(key_lost=key_lost, new_attempt=new_attempt)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._opened.close()
        if self._finished and kind is None and not waiting_bytes(self._spec.state_dir):
            mark_finished(self._spec)

    def _restored(self, *, key_lost: bool, new_attempt: bool) -> Schedule:
        spec, around, facts, key = self._spec, self._around, self._facts, self._key
        reservations = Reservations(
            spec,
            self._ledger,
            around.accountant,
            cohort=facts.cohort,
            validation=self._terms.validation,
            validation_cohort=facts.validation_cohort,
            key_id=key.key_id(),
        )
        clock = None if facts.protected else time.monotonic
        selection = Selection(spec, key) if spec.space.sweep.regime.is_selection else None
        schedule = Schedule(spec, around.accountant, reservations, terms=self._terms, selection=selection, clock=clock)

        def may_repeat(open_runs: Sequence[str]) -> None:
            now = installed_versions()
            check_versions(spec.versions, now, sweep=spec.name, open_runs=open_runs, new_attempt=new_attempt, say=around.say)

        schedule.restore(key_lost=key_lost, may_repeat=may_repeat)
        return schedule

    @property
    def has_begun(self) -> bool:
        """Whether there is something to resume: a trial was handed out, and may have been charged."""
        return self._schedule.has_begun or self._interrupted

    def to_the_end(self, concurrency: int, summarize: Callable[[SweepResults, Any], None] | None, stop: StopSignals) -> SweepResults:
        self._slots = concurrency
        self._disclosing = self._around.disclosure(self._spec, self._say)
        tracker = self._tracker if self._disclosing is None else HeldBack(self._tracker)
        self._told: SweepTracker = tracker
        searcher = ScheduleSearcher(self._spec, self._schedule, max_concurrent=concurrency)
        watchdog = Watchdog(self._spec, timed=not self._facts.protected)
        callback = ScheduleCallback(
            self._schedule, searcher, tracker, watchdog=watchdog, stop=stop, ended=self._trial_ended, tick=self._tick
        )
        try:
            mark_unfinished(self._spec)
            publish(self._spec, SPEC_FILE)
            if (self._spec.sweep_dir / RESULTS).is_dir():
                self._write(self._results())  # a price that an earlier driver wrote there would soon be too low
            self._tell_again(tracker)
            with (
                _heartbeat(self._spec),
                _listening(self._spec, self._schedule),
                stop.waiting(),
                self._around.screen(self._view) as self._screen,
            ):
                run_tune(self._spec, key=self._key, searcher=searcher, callback=callback)
            with self._around.working("measuring what the public views disclose"):
                self._tell_disclosed()
            callback.tell_released()
            self._schedule.close()
            with self._around.working("composing the price"):
                results = self._write_priced()
            self._finished = True
            if summarize is not None:
                with self._around.working("drawing the report"):
                    summarize(results, tracker)
            publish(self._spec, RESULTS, REPORT)
            return results
        except BaseException as error:
            self._interrupted = isinstance(error, Interrupted)  # its message names `dpsweep resume`
            if self.has_begun and not self._finished and not isinstance(error, KeyboardInterrupt):
                self._write_priced()
            raise

    def _tell_disclosed(self) -> None:
        """Waits for what the views disclose, and keeps and tells it: each claim says it."""
        if self._disclosing is None:
            return
        policy, sheet = self._disclosing.result()
        self._disclosing = None
        save_policy(policy, self._spec.sweep_dir)
        self._told.views_disclosed(policy, sheet)

    def _tell_again(self, tracker: SweepTracker) -> None:
        """What the tracker may have missed when the last driver was killed; it skips what it has."""
        for record in self._schedule.records:
            if record.is_finished:
                tell_whole(tracker, record)

    def _trial_ended(self, record: TrialRecord) -> None:
        if self._disclosing is not None:
            self._disclosing.begin()  # the public start has ended: there are cores for it no earlier
            if self._disclosing.is_ready:
                self._tell_disclosed()
        self._say(progress_line(self._shown(record), finished=self._schedule.finished, planned=self._schedule.planned))
        began = time.monotonic()
        if began >= self._write_again_at:
            self._write(self._results())
            if self.price is not None:
                self._reserved = sweep_price(self._ledger, self._spec.name, self._spec.space.delta, self._around.accountant)
            now = time.monotonic()
            self._write_again_at = now + (now - began) / SHARE_OF_WRITING

    def _say(self, line: str) -> None:
        """Tells the terminal, and the log that `dpsweep logs` shows. On protected data no line has a time."""
        self._around.say(line)
        append_lines(self._spec.log_path, [line], mode=OWNER_ONLY)

    def _tick(self) -> None:
        self._screen.tick()

    def _view(self) -> SweepView:
        """The sweep now, for its terminal."""
        measuring = self._disclosing is not None and self._disclosing.is_running
        return view_of(
            self._spec,
            self._schedule.records,
            self._schedule.running,
            finished=self._schedule.finished,
            planned=self._schedule.planned,
            timed=not self._facts.protected,
            slots=self._slots,
            reserved=self._reserved,
            price=self.price,
            notes=("beside the trials: measuring what the public views disclose",) if measuring else (),
            doing=partial(doing.doing_of, self._spec.state_dir),
        )

    def _write_priced(self) -> SweepResults:
        return self._write(priced(self._results(), self._ledger, self._around.accountant))

    def _write(self, results: SweepResults) -> SweepResults:
        results.write_parquet(self._spec.sweep_dir / RESULTS)
        publish_meanwhile(self._spec, self._say)
        return results

    def _shown(self, record: TrialRecord) -> TrialRecord:
        """The record as tables and the terminal may show it."""
        error = None if record.error is None else allowed_error(record.error, protected=self._facts.protected)
        return replace(record, error=error)

    def _results(self) -> SweepResults:
        """All that is known now, without its price."""
        space, schedule = self._spec.space, self._schedule
        return SweepResults(
            name=self._spec.name,
            records=tuple(self._shown(record) for record in schedule.records),
            accounting=space.sweep.accounting,
            delta=space.delta,
            planned=schedule.planned,
            stopped_by=schedule.stopped_by,
            protected=self._facts.protected,
        )


@contextlib.contextmanager
def _started(spec: SweepSpec, around: Surroundings, facts: DatasetFacts) -> Iterator[int]:
    """Ray for the length of a block; what libraries say from then on stands in a log. Of protected data it may tell times: that log goes
    with Ray's own folder, at the end or with the next command."""
    with contextlib.ExitStack() as opened:
        with around.working("starting Ray"):
            concurrency = opened.enter_context(ray_session(spec))
        log = spec.state_dir / FOLDER / spec.noise_path.name if facts.protected else spec.noise_path
        opened.enter_context(around.quiet(log))
        yield concurrency


def _naming_faults(spec: SweepSpec) -> contextlib.AbstractContextManager[None]:
    """Study, reports, ledger, spool and tables are written by libraries, each with its own words for a full disk."""
    return naming_full_disk(spec.state_dir, others=(SQLAlchemyError,))


@contextlib.contextmanager
def _listening(spec: SweepSpec, schedule: Schedule) -> Iterator[None]:
    """A folder where trials say what they are at, if they may be followed."""
    if not schedule.may_be_followed:
        yield
        return
    doing.listen(spec.state_dir)
    try:
        yield
    finally:
        doing.stop_listening(spec.state_dir)


@contextlib.contextmanager
def _heartbeat(spec: SweepSpec) -> Iterator[None]:
    """No sign of life and no request outlives its driver, unless that is killed."""
    clear(spec.state_dir)
    try:
        yield
    finally:
        clear(spec.state_dir)
