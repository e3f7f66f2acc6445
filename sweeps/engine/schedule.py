"""What runs next, what has come back, and when the sweep is over. Knows neither Ray nor MLflow.

    resumed and retried → public start → search, ε by ε in turn, and floors and ceiling between → per ε, once its search has ended: winner's
    seeds, control

Guarantees: a trial's whole spending stands in the ledger before it is handed out. A planned trial is counted once,
however often its worker dies. A retry that replays bit for bit keeps its reservation; any other is a new attempt, which
goes on from the newest checkpoint with fresh noise and has its remaining steps reserved again. `max_failures`, fixed
beforehand, bounds how often; where memory runs out, halving the physical batch down to 1 does. A trial that fails alike twice is not
tried again, and where no trial works the sweep ends before the others are reserved (`sweeps.search.failures`). A trial that reports
something else than was reserved fails at once: charged in full, its claim void. A trial that is stopped early keeps its whole
reservation and never runs again. On a ladder (`stopper: halving`) a trial reserves its steps to the next rung alone and leaves its
worker there. Once all others have come, the best go on from their checkpoints, and the others end. The trials of a private selection
stand in no record, study or report; of each ε the winner does, once it is known.

Longer than a file here should be: hand-out, report, end, retry and resume move one state, and each is safe only beside the others.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpcore.config import TrialConfig
from dpcore.errors import Refused
from dpcore.train.attempts import drop_checkpoints
from dpcore.train.reports import Report
from sweeps.engine.hidden_search import HiddenSearch
from sweeps.engine.roster import Roster
from sweeps.pricing.halving import climb, ladder_of, rung_steps, waits
from sweeps.pricing.plan import Accountant, trials_at
from sweeps.pricing.reservations import Planner, Reservations
from sweeps.pricing.sealed import keep_error
from sweeps.pricing.selection import Selection
from sweeps.records.publication import standing_of
from sweeps.records.references import control_config, seed_config
from sweeps.records.reports import ReportsFile
from sweeps.records.results import CurvePoint, Role, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import TrialId
from sweeps.search.agreement import agreed_reports
from sweeps.search.failures import LikeFailures, repeats_itself
from sweeps.search.stopping import Stopping
from sweeps.search.studies import Studies
from sweeps.search.terms import SweepTerms
from sweeps.tracking.allow_list import allowed_error

CANCELLED = "cancelled by `dpsweep cancel`"
"""The error of a trial that somebody ended."""


@dataclass(frozen=True)
class Handed:
    """A trial that has been handed out, and since when it runs."""

    since: float


class Schedule:
    """The state of a running sweep. All calls come from the driver's one thread. `clock` None: on protected data, whose trials
    nobody times, as how long one takes tells how many records it drew."""

    def __init__(
        self,
        spec: SweepSpec,
        accountant: Accountant,
        reservations: Reservations,
        *,
        terms: SweepTerms,
        selection: Selection | None = None,
        clock: Callable[[], float] | None = time.monotonic,
    ) -> None:
        self._spec = spec
        self._planner = Planner(accountant, spec.places.cache_dir, rungs=rung_steps(spec.space))
        self._reservations = reservations
        self._clock = clock or _no_time
        self.may_be_followed = clock is not None and selection is None
        """Whether a trial may say what it is at: nobody times protected data, and of a private selection no file names a trial."""
        self.terms = terms
        self._studies = Studies(spec, timed=clock is not None, planned=self._planner.planned)
        self._reports = ReportsFile(spec.reports_path)
        self._roster = Roster()
        self._again: deque[str] = deque()
        self._live: dict[str, Handed] = {}
        self._failures: dict[str, int] = {}
        self._hidden = None if selection is None else HiddenSearch(spec, selection, reservations, planner=self._planner, clock=self._clock)
        self._wanted = {epsilon: 1 if selection else trials_at(spec.space, epsilon) for epsilon in spec.space.sweep.epsilons}
        self._released: list[TrialRecord] = []
        self._ladders = {epsilon: ladder_of(spec.space, wanted) for epsilon, wanted in self._wanted.items()}
        self._stayed: list[TrialRecord] = []
        self._stopping = None if terms.stopping is None or rung_steps(spec.space) else Stopping(terms.stopping)
        self._pruned: set[str] = set()
        self._void: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._alike = LikeFailures()
        self.stopped_by: str | None = None
        self.has_given_up = False
        self.is_paused = False

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All records that may be seen, in the order of hand-out; after a resume grouped by study."""
        return tuple(self._roster)

    @property
    def has_begun(self) -> bool:
        """Whether anything was handed out or reserved."""
        return len(self._roster) > 0 or (self._hidden is not None and self._hidden.is_reserved)

    @property
    def running(self) -> tuple[tuple[TrialRecord, float], ...]:
        """The records on workers that may be seen, each with the moment since which it runs."""
        return tuple((self._roster[trial_id], handed.since) for trial_id, handed in self._live.items())

    @property
    def live(self) -> int:
        """How many trials are on workers now."""
        return len(self._live) + (0 if self._hidden is None else self._hidden.live)

    @property
    def finished(self) -> int:
        """How many planned trials have ended."""
        return self._roster.finished

    @property
    def planned(self) -> int:
        """How many trials the sweep has in all. Falls when a control turns out to be impossible (no feature trial ended well)."""
        free = len(self.terms.references)
        return free + sum(self._planned_at(epsilon) for epsilon in self._spec.space.sweep.epsilons)

    def restore(self, *, key_lost: bool, may_repeat: Callable[[Sequence[str]], None] = lambda trials: None) -> None:
        """Takes up what studies and reports remember. Trials without an end are handed out again, or, when the key is
        lost, charged in full and replaced (their randomness cannot be repeated).

        Args:
            key_lost: whether it is.
            may_repeat: is asked, before anything is changed, with the private runs that have begun and not ended; raises where they
                must not go on.
        """
        aside = self._spec.set_aside
        found = [(self._planner.planned(record), replaced or record.trial_id in aside) for record, replaced in self._studies.records()]
        reported = self._reported({record.trial_id: record for record, _ in found})
        found = [
            (replace(reported[record.run], state=record.state) if record.run in reported else record, replaced)
            for record, replaced in found
        ]
        self._reservations.require_standing((record for record, _ in found), key_lost=key_lost)
        if not key_lost:
            may_repeat(self._begun_and_open(record for record, replaced in found if not replaced))
        spent = self._reservations.with_spent(record for record, _ in found)
        for record, (_, replaced) in zip(spent, found, strict=True):
            self._roster.put(record)
            if replaced:
                self._roster.set_aside(record.trial_id)
            if not record.is_finished and record.trial_id in self._pruned:
                self._end_early(record)
            elif waits(record) and not key_lost:
                self._reservations.settle(record)
            elif not record.is_finished and not key_lost:
                self._take_up(record)
            elif not record.is_finished:
                self._replace(record)
        for epsilon in self._ladders:
            self._climb(epsilon)
        self._stayed.clear()  # whoever is told of this restore is told of all that ended
        self._reservations.settle_ended(record for record in self._roster if record.is_finished)
        if self._hidden is not None:
            self._hidden.restore([e for e in self._spec.space.sweep.epsilons if self._studies.is_selected(e)])

    def _begun_and_open(self, records: Iterable[TrialRecord]) -> list[str]:
        waiting = (record for record in records if not record.is_finished and record.config.spends_privacy)
        begun = [record.trial_id for record in waiting if record.curve or standing_of(self._spec, record.trial_id).is_begun]
        if self._hidden is not None:
            epsilons = self._spec.space.sweep.epsilons
            begun += [str(TrialId.selection(e)) for e in epsilons if self._hidden.is_begun(e) and not self._studies.is_selected(e)]
        return begun

    def _end_early(self, record: TrialRecord) -> None:
        """The end of a trial whose stop was decided before a driver was killed; Optuna may not have heard of the report behind it."""
        self._studies.report(record)
        self._has_ended(record.ended(seconds=record.seconds, stopped=True))

    def _reported(self, records: Mapping[str, TrialRecord]) -> dict[tuple[str, int], TrialRecord]:
        """Each attempt of a trial with the curve that it reported. The stopper sees the reports in their order, as it did before."""
        reported: dict[tuple[str, int], TrialRecord] = {}
        lines = agreed_reports(self._spec, records.values(), self._studies, self._reports, difference=self._planner.difference)
        for trial_id, attempt, point in lines:
            if trial_id not in records:
                continue
            before = reported.get((trial_id, attempt)) or replace(records[trial_id], attempt=attempt)
            reported[trial_id, attempt] = self._judged(before.with_point(point))
        return reported

    def next(self) -> TrialRecord | None:
        """The next trial to run, its spending reserved; None when there is none now (`is_over` tells for good or not)."""
        while not (self.has_given_up or self.is_paused):
            record = self._again_next() or self._first_next()
            if record is None and self._hidden is not None and (found := self._hidden_next(self._hidden)) is not None:
                return found
            record = record or self._search_next() or self._reference_next() or self._followup_next()
            if record is None:
                return None
            try:
                self._reservations.reserve(record)
            except Refused as refusal:
                self._stop(record, str(refusal))
                continue
            self._roster.put(replace(record, state="running"))
            self._live[record.trial_id] = Handed(self._clock())
            return self._roster[record.trial_id]
        return None

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will. Ask after `next` gave None."""
        return not self.live

    def is_hidden(self, record: TrialRecord) -> bool:
        """Whether nobody may hear of the trial from whoever runs it: `take_released` tells of the winners."""
        return self._hidden is not None and record.role == "search"

    def folder(self, record: TrialRecord) -> Path:
        """Where the trial keeps its checkpoints."""
        if self._hidden is not None and record.trial_id in self._hidden:
            return self._hidden.folder(record.trial_id)
        return self._spec.sealed_dir / record.trial_id if record.is_sealed else self._spec.checkpoint_dir(record.trial_id)

    def take_released(self) -> tuple[TrialRecord, ...]:
        """The winners of private selections that have come out since the last call."""
        self._release()
        released, self._released = tuple(self._released), []
        return released

    def close(self) -> None:
        """Nothing more will be handed out."""
        if self._hidden is not None:
            self._hidden.close()

    def started(self, trial_id: str) -> TrialRecord:
        """A worker has the trial: its seconds count from here."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.started(trial_id)
        self._live[trial_id] = replace(self._live[trial_id], since=self._clock())
        return self._roster[trial_id]

    def is_to_stop(self, trial_id: str, report: Report) -> bool:
        """Whether a trial is to end with this report: it is not what was reserved, or a stopper says so. Ask before `report` takes
        it in; this changes nothing."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.breaks_plan(trial_id, report) is not None
        before = self._roster[trial_id]
        if self._breaks_plan(before, report) is not None:
            return True
        record = before.with_point(CurvePoint.of(report))
        if record is not before and waits(record):
            return True
        return self._stopping is not None and record is not before and self._stopping.stops(record)

    def is_void(self, trial_id: str) -> bool:
        """Whether the trial reported something else than was reserved. It ends as failed."""
        return trial_id in self._void

    def _breaks_plan(self, record: TrialRecord, report: Report) -> str | None:
        return self._planner.difference(record, report)

    def report(self, trial_id: str, report: Report) -> TrialRecord:
        """Takes a report in; one that is there already (a replay) changes nothing. One that is not what was reserved is kept out of
        curve and study, and voids the trial."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.report(trial_id, report)
        before = self._roster[trial_id]
        reason = self._breaks_plan(before, report)
        if reason is not None:
            self._void.setdefault(trial_id, reason)
            return before
        point = CurvePoint.of(report)
        record = before.with_point(point)
        if record is not before:
            self._roster.put(self._judged(record))
            self._reports.append(record, point)
            self._studies.report(record)
        return record

    def end(self, trial_id: str, *, error: str | None = None) -> TrialRecord:
        """The end of a trial, told once to study and ledger."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.end(trial_id, error=error)
        handed, reason = self._live.pop(trial_id), self._void.pop(trial_id, None)
        error = reason or error
        if error is not None and self._clock is _no_time:
            keep_error(self._spec.sealed_dir, trial_id, error)
            error = allowed_error(error, protected=True)
        seconds, stopped = self._clock() - handed.since, trial_id in self._pruned
        before = self._roster[trial_id]
        seconds += before.seconds
        if error is None and waits(before):
            record = replace(before, seconds=seconds)
            self._roster.put(record)
        else:
            record = before.ended(seconds=seconds, error=error, stopped=stopped, fulfilled=reason is None)
            self._has_ended(record)
        self._reservations.settle(record)
        self._give_up_after(record)
        if record.role == "search":
            self._climb(record.at_epsilon)
        return record

    def _climb(self, epsilon: float) -> None:
        """Once all trials of an ε have come to their rung: lets the best go on, and ends the others."""
        if self.has_given_up or (self.stopped_by is None and self._roster.counted("search", epsilon) < self._wanted[epsilon]):
            return
        searched = self._roster.searched(epsilon)
        if any(record.trial_id in self._live for record in searched):
            return
        going, staying = climb(searched, self._ladders[epsilon])
        for record in going:
            higher = self._planner.to_next_rung(record)
            self._studies.new_attempt(higher)
            self._again_as(higher)
        for record in staying:
            stayed = record.ended(seconds=record.seconds, stopped=True)
            self._has_ended(stayed)
            self._stayed.append(stayed)

    def take_stayed(self) -> tuple[TrialRecord, ...]:
        """The trials that have ended on their rung since the last call."""
        stayed, self._stayed = tuple(self._stayed), []
        return stayed

    def _give_up_after(self, record: TrialRecord) -> None:
        """Ends the sweep where every trial fails alike: what was not handed out keeps its budget, what waits for a retry stays open."""
        reason = self._alike.take(record)
        if reason is not None and not self.has_given_up:
            self.has_given_up = True
            self.stopped_by = (
                f"{reason}; mend the cause and go on with `dpsweep resume {self._spec.name}`: what has not begun costs nothing"
            )

    def _has_ended(self, record: TrialRecord) -> None:
        """Tells the study; what a stopped trial would have gone on from is not kept."""
        self._roster.put(record)
        self._studies.tell(record)
        if record.state == "pruned":
            drop_checkpoints(self._spec.checkpoint_dir(record.trial_id))

    def _judged(self, record: TrialRecord) -> TrialRecord:
        """Shows the stopper a new point of a trial's curve, and remembers its verdict."""
        if self._stopping is not None and self._stopping.take(record):
            self._pruned.add(record.trial_id)
        return record

    def worker_died(self, trial_id: str, error: str) -> TrialRecord:
        """Hands the trial out again, `max_failures` times; after that it is failed.

        On a CPU the retry replays from our checkpoint. Elsewhere arithmetic is not bit-exact: a new attempt, other noise.
        """
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.worker_died(trial_id, error)
        return self._retry(trial_id, error, renew=False)

    def pause(self) -> None:
        """Nothing more is handed out; what runs comes to its end. A resume goes on."""
        self.is_paused = True

    def cancel(self, trial_id: str) -> TrialRecord | None:
        """Ends a trial for good. It keeps its whole reservation, as what it released until then decided its end.

        Returns:
            Its end, where it waits for another try or on a rung; None where its worker has to end first, or nothing of that name runs.
        """
        on_rung = trial_id in self._roster and trial_id not in self._live and waits(self._roster[trial_id])
        if trial_id in self._again or on_rung:
            self._again = deque(one for one in self._again if one != trial_id)
            self._live[trial_id] = Handed(self._clock())
            return self.end(trial_id, error=CANCELLED)
        if trial_id in self._live:
            self._cancelled.add(trial_id)
        return None

    def not_replayable(self, trial_id: str, error: str) -> TrialRecord:
        """A worker found that it would not repeat the trial bit for bit: hands it out as a new attempt, `max_failures` times.
        In a private selection it has failed: it would be a draw too many."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.end(trial_id, error=error)
        return self._retry(trial_id, error, renew=True)

    def not_as_planned(self, trial_id: str, error: str) -> TrialRecord:
        """A worker found that it did something else than was reserved: the trial has failed, and its claim is void."""
        if self._hidden is not None and trial_id in self._hidden:
            return self._hidden.not_as_planned(trial_id, error)
        self._void.setdefault(trial_id, error)
        return self.end(trial_id)

    def out_of_memory(self, trial_id: str, error: str, *, physical_batch_size: int) -> TrialRecord:
        """A step did not fit with so many examples at once: hands the trial out as a new attempt with half as many, failed where it
        was one. Halving ends by itself and counts for no try. In a private selection the trial has failed: it would be a draw too many."""
        if physical_batch_size == 1 or (self._hidden is not None and trial_id in self._hidden):
            return self.end(trial_id, error=error)
        if trial_id in self._void:
            return self.end(trial_id)
        self._live.pop(trial_id)
        self._again_as(self._new_attempt(replace(self._roster[trial_id], error=error), physical_batch_size=physical_batch_size // 2))
        return self._roster[trial_id]

    def _retry(self, trial_id: str, error: str, *, renew: bool) -> TrialRecord:
        if trial_id in self._pruned or trial_id in self._void or waits(self._roster[trial_id]):
            return self.end(trial_id)  # it was over before its worker was
        if trial_id in self._cancelled:
            return self.end(trial_id, error=CANCELLED)
        failures = self._failures[trial_id] = self._failures.get(trial_id, 0) + 1
        is_hopeless = not renew and repeats_itself(error, self._roster[trial_id].error)
        if failures > self._spec.max_failures or is_hopeless:
            return self.end(trial_id, error=f"{error} (after {failures} tries)")
        self._live.pop(trial_id)
        self._take_up(replace(self._roster[trial_id], error=error), renew=renew)
        return self._roster[trial_id]

    def _take_up(self, record: TrialRecord, *, renew: bool = False) -> None:
        if renew or not self._repeats_exactly(record):
            record = self._new_attempt(record)
        self._again_as(record)

    def _again_as(self, record: TrialRecord) -> None:
        self._roster.put(record)
        self._again.append(record.trial_id)

    def _repeats_exactly(self, record: TrialRecord) -> bool:
        """Whether another try can be the same release: on a CPU, or where nothing was drawn yet or nothing is left to compute."""
        if self._spec.runtime.device == "cpu":
            return True
        standing = standing_of(self._spec, record.trial_id)
        return standing.is_over or not (record.curve or standing.is_begun)

    def _new_attempt(self, record: TrialRecord, *, physical_batch_size: int | None = None) -> TrialRecord:
        """The record from its newest checkpoint on, with another physical batch where given. Its worker repeats the reports up to
        there. The earlier attempt is settled first: after a kill in between it is taken up again, and found settled."""
        attempt = record.current_attempt.next_from(standing_of(self._spec, record.trial_id).checkpoint_step)
        if physical_batch_size is not None:
            attempt = attempt.model_copy(update={"physical_batch_size": physical_batch_size})
        self._reservations.settle(replace(record, state="failed"))
        renewed = self._planner.at_attempt(replace(record, curve=(), steps=0, pckh_50=None, pckh_10=None), attempt)
        self._studies.new_attempt(renewed)
        return renewed

    def _replace(self, record: TrialRecord) -> None:
        failed = replace(record, state="failed", error="the sweep key was lost: charged in full, a replacement runs under a new key")
        self._roster.put(failed)
        self._roster.set_aside(record.trial_id)
        self._studies.tell(failed, replaced=True)
        self._reservations.settle(failed)

    def _stop(self, record: TrialRecord, reason: str) -> None:
        self.stopped_by = reason
        stopped = replace(record, state="failed", error=f"not started: {reason}")
        self._roster.put(stopped)
        self._roster.set_aside(record.trial_id)
        self._studies.tell(stopped, replaced=True)
        for epsilon in self._ladders:
            self._climb(epsilon)

    def _again_next(self) -> TrialRecord | None:
        return self._roster[self._again.popleft()] if self._again else None

    def _first_next(self) -> TrialRecord | None:
        """The public start, on which all others wait; then search and references in turn: both cores have work from the first minute on,
        and what a floor trains is there when the first feature trial needs it. A selection begins after the last reference."""
        handed = sum(free.trial_id in self._roster for free in self.terms.references)
        searched = sum(self._roster.drawn(epsilon) for epsilon in self._wanted)
        is_turn_of_search = handed > 0 and searched < handed and self._hidden is None
        return None if is_turn_of_search else self._reference_next()

    def _reference_next(self) -> TrialRecord | None:
        for number, free in enumerate(self.terms.references):
            record = self._reference(free.trial_id, free.role, number, None, free.config)
            if record is not None:
                return record
        return None

    def _search_next(self) -> TrialRecord | None:
        """The ε with the fewest trials so far asks for one, so that the studies advance side by side."""
        if self.stopped_by is not None or self._hidden is not None:
            return None
        wanting = [e for e, wanted in self._wanted.items() if self._roster.counted("search", e) < wanted]
        if not wanting:
            return None
        epsilon = min(wanting, key=lambda e: self._roster.counted("search", e))
        return self._studies.ask(epsilon, self._roster.drawn(epsilon), room=self._room(epsilon))

    def _room(self, epsilon: float) -> dict[str, int] | None:
        """How many trials more each method gets at an ε, the one that waits longest first; None where the sampler decides."""
        shares = self._spec.space.shares_at(epsilon, self._wanted[epsilon])
        if not shares:
            return None
        had = Counter(record.config.method for record in self._roster.searched(epsilon))
        return {method: share - had[method] for method, share in sorted(shares.items(), key=lambda one: had[one[0]])}

    def _hidden_next(self, hidden: HiddenSearch) -> TrialRecord | None:
        """The next trial of a private selection, after every selection stands in the ledger."""
        if self.stopped_by is not None and not hidden.is_reserved:
            return None
        try:
            hidden.reserve()
        except Refused as refusal:
            self.stopped_by = str(refusal)
            return None
        self._release()
        return hidden.next()

    def _release(self) -> None:
        """Takes the winners of selections that are over into the records, where everyone sees them."""
        if self._hidden is None or not self._hidden.is_reserved:
            return
        for epsilon, winner in list(self._hidden.finished()):
            if winner is not None:
                winner = self._planner.planned(winner)
                self._roster.put(winner)
                for point in winner.curve:
                    self._reports.append(winner, point)
                self._released.append(winner)
            self._studies.select(epsilon, winner)
            self._hidden.forget(epsilon, outcome="failed" if winner is None else "done")

    def _followup_next(self) -> TrialRecord | None:
        """Reruns before controls, which are shorter: what runs last leaves slots empty, and so for less time."""
        over = [epsilon for epsilon in self._spec.space.sweep.epsilons if self._search_over(epsilon)]
        for find in (self._rerun_next, self._control_next):
            for epsilon in over:
                record = find(epsilon)
                if record is not None:
                    return record
        return None

    def _rerun_next(self, epsilon: float) -> TrialRecord | None:
        for method, source in self._rerun_sources(epsilon) if self.stopped_by is None else ():
            for rerun in range(1, self._spec.space.references.winner_seeds + 1):
                name = str(TrialId.seed(epsilon, rerun, method=method))
                record = self._reference(name, "seed", rerun, epsilon, seed_config(source))
                if record is not None:
                    return record
        return None

    def _rerun_sources(self, epsilon: float) -> list[tuple[str | None, TrialRecord]]:
        """Whose settings run again: those of the winner, or of the best trial of each method, which is then named."""
        if self._spec.space.references.seeds_of == "each_method":
            return list(self._roster.bests(epsilon).items())
        best = self._roster.best(epsilon)
        return [] if best is None else [(None, best)]

    def _control_next(self, epsilon: float) -> TrialRecord | None:
        config = self._control_config(epsilon)
        return None if config is None else self._reference(str(TrialId.control(epsilon)), "control", 0, epsilon, config)

    def _reference(self, name: str, role: Role, number: int, epsilon: float | None, config: TrialConfig) -> TrialRecord | None:
        """The record of a reference, unless it has been handed out. One that was replaced, or that follows from a winner which a better
        trial of an extended sweep has replaced, comes again under a longer name."""
        while self._roster.is_aside(name) or (self._spec.is_extended and name in self._roster and self._roster[name].config != config):
            name = str(TrialId.parse(name).again)
        if name in self._roster:
            return None
        record = self._planner.planned(
            TrialRecord(trial_id=name, role=role, number=number, epsilon=epsilon, config=config, metric=self._spec.metric)
        )
        self._studies.add_reference(record)
        return record

    def _search_over(self, epsilon: float) -> bool:
        if self._hidden is not None:
            return epsilon in self._hidden.over or (self.stopped_by is not None and not self._hidden.is_reserved)
        enough = self.stopped_by is not None or self._roster.counted("search", epsilon) >= self._wanted[epsilon]
        return enough and self._roster.all_ended(epsilon)

    def _control_source(self, epsilon: float) -> TrialRecord | None:
        if not self._spec.space.references.control:
            return None
        return self._roster.best(epsilon, feature_only=True)

    def _control_config(self, epsilon: float) -> TrialConfig | None:
        feature, winner = self._control_source(epsilon), self._roster.best(epsilon)
        return None if feature is None or winner is None else control_config(feature, winner)

    def _planned_at(self, epsilon: float) -> int:
        """Search (of a private selection: its winner), control and seeds of an ε; what turned out to be impossible is left out once
        the search is over."""
        space, earlier = self._spec.space, self._of_earlier_winners(epsilon)
        if not self._search_over(epsilon):
            return self._wanted[epsilon] + space.reruns_at(epsilon) + int(space.references.control and space.has_feature_methods) + earlier
        control = int(self._control_source(epsilon) is not None)
        if self.stopped_by is not None:
            seeds = self._roster.counted("seed", epsilon)
        else:
            seeds = space.references.winner_seeds * len(self._rerun_sources(epsilon)) + earlier
        return self._roster.counted("search", epsilon) + seeds + control

    def _of_earlier_winners(self, epsilon: float) -> int:
        """Reruns and controls of winners that are none any more, in a sweep that was extended."""
        control = self._control_config(epsilon)
        wanted: dict[str, list[TrialConfig]] = {
            "seed": [seed_config(source) for _, source in self._rerun_sources(epsilon)],
            "control": [] if control is None else [control],
        }
        return sum(
            record.epsilon == epsilon
            and record.role in wanted
            and record.config not in wanted[record.role]
            and not self._roster.is_aside(name)
            for name, record in ((record.trial_id, record) for record in self._roster if self._spec.is_extended)
        )


def _no_time() -> float:
    return 0.0
