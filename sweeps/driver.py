"""Runs a sweep from its spec to its results, and takes one up again after whatever ended it.

Order of a run: check everything (space, data, roles, price, Ray, tracker), then make the folder, then run. A bad request
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from dpcore.config import PRIVATE_METHODS, Places, TrialConfig
from dpcore.disk import naming_full_disk
from dpcore.errors import BadInput, DpsweepError, Refused
from sweeps.allow_list import allowed_error
from sweeps.charges import FilterTerms
from sweeps.disclosure import MeasuredPolicy, measure_policy, save_policy
from sweeps.disclosure_sheet import save_disclosure_sheet
from sweeps.ledger import Ledger
from sweeps.pricing import Accountant, SweepPlan, check_cap, dp_accountant, plan_sweep, priced
from sweeps.progress import progress_line
from sweeps.publication import REPORT, RESULTS, is_published, load_spec, publish, publish_meanwhile, require_state, take_name, withdraw
from sweeps.ray_session import ray_session, run_tune
from sweeps.reservations import Reservations
from sweeps.results import SweepResults, TrialRecord
from sweeps.schedule import Schedule
from sweeps.searcher import ScheduleCallback, ScheduleSearcher, SweepTracker, tell_whole
from sweeps.selection import Selection, check_key
from sweeps.spec import SPEC_FILE, SweepSpec
from sweeps.stopping import plan_stopping
from sweeps.validation import check_noise, plan_validation

if TYPE_CHECKING:
    from dpcore.data.shards import ShardSet
    from dpcore.privacy.randomness import SweepKey

SHARE_OF_WRITING = 0.02
"""Of the driver's time: tables of many trials take longer to write, and are written less often."""

LOCK_FILE = "sweep.lock"
UNBEGUN = (LOCK_FILE, "sweep.key")
"""What a sweep's folder holds before its spec is written."""


class Interrupted(DpsweepError):
    """Ctrl-C or SIGTERM: ended cleanly, to be resumed."""

    exit_code = 130


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What a sweep must know of its private dataset: whom to charge, and whether they are people to protect; and
    whom to charge for scores where validation is private. `look_alikes`: what a person should look at, for their terminal
    alone."""

    cohort: str
    protected: bool
    validation_cohort: str | None = None
    look_alikes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a sweep leans on; tests and simulations give others.

    Attributes:
        accountant: plans and composes. tracker: one for the sweep.
        dataset: checks the datasets of a config and describes the private one.
        say: takes a progress line.
        disclosure: attacks the public views of the sweep's splits; None where it has none to attack.
    """

    accountant: Accountant
    tracker: Callable[[SweepSpec], SweepTracker]
    dataset: Callable[[SweepSpec], DatasetFacts]
    say: Callable[[str], None]
    disclosure: Callable[[SweepSpec, Callable[[str], None]], MeasuredPolicy | None] = lambda spec, say: None


def default_surroundings(cache_dir: Path | None = None) -> Surroundings:
    """dp-accounting, whose compositions are remembered in `cache_dir`, MLflow, the data catalog, stderr."""
    from sweeps.tracking import Tracker

    return Surroundings(
        accountant=dp_accountant(cache_dir),
        tracker=Tracker,
        dataset=describe_dataset,
        say=lambda line: print(line, file=sys.stderr),
        disclosure=measure_policy,
    )


def plan_of(spec: SweepSpec, surroundings: Surroundings | None = None) -> SweepPlan:
    """What `--dry-run` shows, refused like the run itself; nothing is written but caches.

    Raises:
        BadInput: a dataset is missing or does not fit. Refused: over `epsilon_total`, or a name that exists.
    """
    around = surroundings or replace(default_surroundings(spec.places.cache_dir), dataset=describe_for_plan)
    return _checked_plan(spec, around)[0]


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
    plan, facts = _checked_plan(spec, around)
    spec = with_filter(spec, plan)
    with _naming_faults(spec), ray_session(spec) as concurrency, _new_folder(spec) as made, _locked(spec):
        key = _new_key(spec)
        spec.save()
        run = _Run(spec, around, facts, key=key, key_lost=False)
        try:
            take_name(spec)
            return run.to_the_end(concurrency, summarize)
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
    summarize: Callable[[SweepResults, Any], None] | None = None,
) -> SweepResults:
    """Takes a sweep up where its driver ended, however it ended; a finished one only writes its results again.

    With the key lost, trials without an end are charged in full, marked failed and replaced under a new key.

    Raises:
        BadInput: no such sweep. Refused: another driver runs it. Interrupted: stopped again.
    """
    spec = require_state(load_spec(name, storage, state))
    around = surroundings or default_surroundings(spec.places.cache_dir)
    facts = around.dataset(spec)
    with _naming_faults(spec), _locked(spec):
        check_key(not spec.key_path.exists(), spec)
        key, lost = _found_key(spec)
        with ray_session(spec) as concurrency:
            return _Run(spec, around, facts, key=key, key_lost=lost).to_the_end(concurrency, summarize)


def describe_dataset(spec: SweepSpec) -> DatasetFacts:
    """Opens and verifies the datasets of a sweep.

    Raises:
        BadInput: one is missing. Corrupt: one does not verify. Refused: roles or overlaps are wrong, the units of privacy cannot be
            told apart, or labels that are to stay private placed the crops.
    """
    from dpcore.data.catalog import check_crops, check_roles, check_unit, open_dataset
    from dpcore.data.cohorts import check_cohort
    from dpcore.data.shards import members_beside

    places: Places = spec.places
    config = any_config(spec)
    data = config.data
    private, public, validation = (open_dataset(name, places) for name in (data.in_private_place, data.public, data.validation))
    validated = spec.space.sweep.validation == "private"
    check_roles(private, public, validation, private_validation=validated, rehearsal=config.is_rehearsal)
    if config.labels == "private" and spec.space.splits_in_use:
        check_crops(private)
    if config.is_rehearsal:
        return DatasetFacts(cohort=private.members.cohort, protected=False)
    charged = (private, validation) if validated else (private,)
    for dataset in charged:
        check_cohort(dataset.members, members_beside(dataset.folder), place=dataset.folder.parent)
    if PRIVATE_METHODS.intersection(spec.space.methods):
        check_unit(private, config.privacy_unit)
    if validated:
        check_unit(validation, config.privacy_unit)
    return DatasetFacts(
        cohort=private.members.cohort,
        protected=private.manifest.protected or validation.manifest.protected,
        validation_cohort=validation.members.cohort if validated else None,
        look_alikes=_look_alikes([one for one in (public, validation) if one.manifest.role == "PUBLIC"], private, places),
    )


def _look_alikes(public: Sequence[ShardSet], private: ShardSet, places: Places) -> tuple[str, ...]:
    from dpcore.data.likeness import likeness_of

    found = (likeness_of(one, private, places) for one in public)
    return tuple(likeness.text for likeness in found if likeness is not None)


def describe_for_plan(spec: SweepSpec) -> DatasetFacts:
    """`describe_dataset`, but embedded data that nobody has used yet are not generated for a plan: what they are is known, and
    without a ledger nothing stands against them."""
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.synthetic import EMBEDDED

    data = any_config(spec).data
    names = (data.in_private_place, data.public, data.validation)
    is_unused = all(name in EMBEDDED and not dataset_folder(name, spec.places).exists() for name in names)
    fits = spec.space.sweep.validation == "public" and not _ledger_is_there(spec)
    return DatasetFacts(cohort="", protected=False) if is_unused and fits else describe_dataset(spec)


def any_config(spec: SweepSpec) -> TrialConfig:
    """Some admissible config of the space: its data are those of all."""
    import random

    generator = random.Random(0)
    space, epsilon = spec.space, spec.space.sweep.epsilons[0]
    refusal: BadInput | None = None
    for _ in range(200):
        try:
            return space.trial_config(epsilon, space.draw(epsilon, generator))
        except BadInput as error:
            refusal = error
    raise BadInput(f"no draw of the space is admissible: {refusal}")


def _checked_plan(spec: SweepSpec, around: Surroundings) -> tuple[SweepPlan, DatasetFacts]:
    if (spec.sweep_dir / SPEC_FILE).exists() or is_published(spec):
        raise Refused(f"sweep {spec.name} exists in {spec.storage}; go on with `dpsweep resume {spec.name}`, or give another --name")
    facts = around.dataset(spec)
    for line in facts.look_alikes:
        around.say(f"dpsweep: {line}")
    if facts.protected and spec.space.references.ceiling not in (False, "non_private"):
        raise Refused(
            "references.ceiling trains without privacy, and the private data are protected; set references.ceiling=false, or =non_private: "
            "then it runs, the ledger says so, and its score is sealed"
        )
    if facts.protected and "nonprivate" in spec.space.methods:
        raise Refused("method nonprivate trains without privacy, and the private data are protected; take it out of the space")
    ledger = Ledger(spec.resolved_ledger_url) if _ledger_is_there(spec) else None
    standing = () if ledger is None else ledger.lines(cohort=facts.cohort)
    plan = plan_sweep(spec.space, around.accountant, standing=standing, cache_dir=spec.places.cache_dir)
    _check_name_and_key_are_fresh(spec, ledger)
    check_cap(plan, standing, around.accountant)
    plan_stopping(spec.space, spec.runtime.report_every_steps)  # refuses a stopper that could never stop
    validation = plan_validation(spec.space, spec.places.cache_dir)
    if validation is not None:
        check_noise(validation)
    return plan, facts


def with_filter(spec: SweepSpec, plan: SweepPlan) -> SweepSpec:
    """The spec with the order and budget of its RDP filter, if it needs one: fixed here, before the first trial."""
    if plan.basis.filter is None:
        return spec
    terms = FilterTerms(sweep=spec.name, order=plan.basis.filter.order, rdp=plan.basis.filter.rdp)
    return spec.model_copy(update={"privacy_filter": terms})


def _check_name_and_key_are_fresh(spec: SweepSpec, ledger: Ledger | None) -> None:
    """Lines are known by sweep and trial: a second sweep of one name would pass for a replay of the first. And trial ids
    are alike in all sweeps: under one key, a trial with the settings of another one's would draw its noise again.

    Raises:
        Refused: the ledger knows the name, or the key that DPSWEEP_KEY_FILE names.
    """
    lines = () if ledger is None else ledger.lines()
    if any(line.sweep == spec.name for line in lines):
        raise Refused(
            f"the ledger holds reservations of a sweep {spec.name} already, whose folder is not in {spec.storage}; give another --name, "
            "so that this sweep is charged for itself"
        )
    if spec.key_path.exists() and spec.key_path.parent != spec.state_dir:
        from dpcore.privacy.randomness import SweepKey

        key_id = SweepKey.load(spec.key_path).key_id()
        if any(line.key_id == key_id for line in lines):
            raise Refused(f"{spec.key_path} is the key of another sweep; let DPSWEEP_KEY_FILE name a new path, and a key is made there")


def _ledger_is_there(spec: SweepSpec) -> bool:
    return spec.ledger_url is not None or (spec.storage_dir / "ledger.sqlite").is_file()


class _Run:
    """A sweep while it runs: schedule, tracker, results."""

    def __init__(self, spec: SweepSpec, around: Surroundings, facts: DatasetFacts, *, key: SweepKey, key_lost: bool) -> None:
        self._spec = spec
        self._around = around
        self._facts = facts
        self._key = key
        self._tracker = around.tracker(spec)
        self._tracker.sweep_started()  # before anything else is written: it may be unreachable
        self._ledger = Ledger(spec.resolved_ledger_url, witness=spec.ledger_witness)
        reservations = Reservations(
            spec,
            self._ledger,
            around.accountant,
            cohort=facts.cohort,
            validation_cohort=facts.validation_cohort,
            key_id=key.key_id(),
        )
        clock = None if facts.protected else time.monotonic
        selection = None if spec.space.sweep.selection is None else Selection(spec, key)
        self._schedule = Schedule(spec, around.accountant, reservations, selection=selection, clock=clock)
        self._schedule.restore(key_lost=key_lost)
        self._write_again_at = 0.0
        self._interrupted = False

    @property
    def has_begun(self) -> bool:
        """Whether there is something to resume: a trial was handed out, and may have been charged."""
        return self._schedule.has_begun or self._interrupted

    def to_the_end(self, concurrency: int, summarize: Callable[[SweepResults, Any], None] | None) -> SweepResults:
        tracker = self._tracker
        searcher = ScheduleSearcher(self._spec, self._schedule, max_concurrent=concurrency)
        callback = ScheduleCallback(self._schedule, searcher, tracker, ended=self._trial_ended)
        finished = False
        try:
            publish(self._spec, SPEC_FILE)
            self._attack_views(tracker)
            self._tell_again(tracker)
            with _stop_signals(callback, self._spec.name):
                run_tune(self._spec, key=self._key, searcher=searcher, callback=callback)
            callback.tell_released()
            self._schedule.close()
            results = self._write_priced()
            finished = True
            if summarize is not None:
                summarize(results, tracker)
            publish(self._spec, RESULTS, REPORT)
            return results
        except BaseException as error:
            self._interrupted = isinstance(error, Interrupted)  # its message names `dpsweep resume`
            if self.has_begun and not finished:
                self._write_priced()
            raise
        finally:
            tracker.close(interrupted=not finished)
            self._ledger.close()

    def _attack_views(self, tracker: SweepTracker) -> None:
        """Before the first trial, because each claim says what its views disclose; after a resume from the cache."""
        found = self._around.disclosure(self._spec, self._around.say)
        if found is not None:
            save_policy(found.policy, self._spec.sweep_dir)
            shown, sealed = self._spec.sweep_dir / REPORT, self._spec.state_dir / "sealed"
            tracker.views_disclosed(found.policy, save_disclosure_sheet(found.measured, shown=shown, sealed=sealed))

    def _tell_again(self, tracker: SweepTracker) -> None:
        """What the tracker may have missed when the last driver was killed; it skips what it has."""
        for record in self._schedule.records:
            if record.is_finished:
                tell_whole(tracker, record)

    def _trial_ended(self, record: TrialRecord) -> None:
        self._around.say(progress_line(self._shown(record), finished=self._schedule.finished, planned=self._schedule.planned))
        began = time.monotonic()
        if began >= self._write_again_at:
            self._write(self._results())
            now = time.monotonic()
            self._write_again_at = now + (now - began) / SHARE_OF_WRITING

    def _write_priced(self) -> SweepResults:
        return self._write(priced(self._results(), self._ledger, self._around.accountant))

    def _write(self, results: SweepResults) -> SweepResults:
        results.write_parquet(self._spec.sweep_dir / RESULTS)
        publish_meanwhile(self._spec, self._around.say)
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


def _naming_faults(spec: SweepSpec) -> contextlib.AbstractContextManager[None]:
    """Study, reports, ledger, spool and tables are written by libraries, each with its own words for a full disk."""
    return naming_full_disk(spec.state_dir, others=(SQLAlchemyError,))


@contextlib.contextmanager
def _new_folder(spec: SweepSpec) -> Iterator[list[Path]]:
    """Makes the sweep's folders and gives their list; at the end it takes away those that still stand in it.

    So a sweep that fails before its first trial leaves nothing; one that has begun clears the list, whatever fails then.
    """
    made: list[Path] = [] if spec.storage_dir.exists() else [spec.storage_dir]
    spec.storage_dir.mkdir(parents=True, exist_ok=True)
    try:
        for folder in dict.fromkeys((spec.sweep_dir, spec.state_dir)):
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                _clear_unbegun(spec, folder)
            folder.mkdir()
            made.append(folder)
        yield made
    except FileExistsError as error:
        raise Refused(f"{error.filename} exists: another run took the name {spec.name}; give another --name") from None
    finally:
        for folder in reversed(made):
            shutil.rmtree(folder, ignore_errors=True)


def _clear_unbegun(spec: SweepSpec, folder: Path) -> None:
    """Takes away what a driver left that was killed before it wrote its spec: nothing is reserved then, and nothing to resume.

    Raises:
        Refused: there is something else, or that driver lives.
    """
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in UNBEGUN and not path.name.startswith(f".{SPEC_FILE}."))
    if foreign:
        raise Refused(f"{folder} exists and holds no sweep that could be resumed, but {', '.join(foreign[:3])}; give another --name")
    lock = _locked(spec) if (spec.state_dir / LOCK_FILE).exists() else contextlib.nullcontext()
    with lock:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(spec: SweepSpec) -> Iterator[None]:
    """One driver per sweep. The lock ends with its process, whatever ends that."""
    with (spec.state_dir / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"sweep {spec.name} is being run by another process; `dpsweep status {spec.name}` shows how far it is") from None
        yield


def _new_key(spec: SweepSpec) -> SweepKey:
    """A fresh key in the sweep's state; one that DPSWEEP_KEY_FILE names is used when it is there."""
    from dpcore.privacy.randomness import SweepKey

    if spec.key_path.exists():
        return SweepKey.load(spec.key_path)
    key = SweepKey.fresh()
    key.save(spec.key_path)
    return key


def _found_key(spec: SweepSpec) -> tuple[SweepKey, bool]:
    """The sweep's key and whether it had to be made anew because the old one is lost."""
    from dpcore.privacy.randomness import SweepKey

    lost = not spec.key_path.exists()
    return (_new_key(spec) if lost else SweepKey.load(spec.key_path)), lost


@contextlib.contextmanager
def _stop_signals(callback: ScheduleCallback, name: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sweep at the next safe place; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _frame: Any) -> None:
        callback.stop_requested = Interrupted(f"interrupted; finished trials are kept, go on with `dpsweep resume {name}`")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
