"""A sweep's side of the ledger: what each of its trials reserves, and under which cap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dpcore.config import digest_of
from dpcore.errors import Corrupt, NotAsPlanned, Refused
from dpcore.privacy.plan import PrivacyPlan, check_spent
from search_spaces.searchable import foreign_part
from sweeps.ledger.database import shown
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.lines import UNFULFILLED, LedgerLine
from sweeps.ledger.totals import views_text
from sweeps.pricing.halving import HALVING
from sweeps.pricing.plan import Accountant
from sweeps.pricing.sealed import sealed_reservation
from sweeps.pricing.selection import as_released, epsilon_of_selection
from sweeps.pricing.validation import ValidationPlan, score_reservation
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import TrialId

if TYPE_CHECKING:
    from pathlib import Path

    from dpcore.train.attempts import Attempt
    from dpcore.train.reports import Report
    from sweeps.pricing.selection import Selection


class Planner:
    """Gives each trial its plan, once, and holds what its worker reports against it."""

    def __init__(self, accountant: Accountant, cache_dir: Path | None, *, rungs: Sequence[int] = ()) -> None:
        """`rungs`: the steps of the rungs of a ladder that trials of the search climb, rising, with the horizon."""
        self._accountant = accountant
        self._rungs = rungs
        self._cache_dir = cache_dir
        self._epsilons: dict[tuple[PrivacyPlan, int], float] = {}

    def planned(self, record: TrialRecord) -> TrialRecord:
        """The record with what it is going to spend: the plan that it has, else a calibrated one, on a ladder up to its first rung; of a
        later attempt the rest of it. It spends 0 where no private data are read, None where its ε is infinite."""
        plan = record.plan or self._fresh(record)
        if plan is not None:
            record = replace(record, plan=plan.rest_from(max(record.from_step, plan.from_step), self._accountant.compose))
        if record.reserved is None:
            return record if record.config.traits.is_unbounded else replace(record, epsilon_spent=0.0)
        held = record.reserved
        return replace(record, delta=held.delta, noise_multiplier=held.noise_multiplier, sampling_prob=held.sampling_prob)

    def _fresh(self, record: TrialRecord) -> PrivacyPlan | None:
        plan = self._accountant.plan(record.config.without_proxy(), self._cache_dir)
        if plan is None or record.role != "search" or not self._rungs:
            return plan
        return plan.to_rung(self._rungs[0], self._accountant.compose)

    def at_attempt(self, record: TrialRecord, attempt: Attempt) -> TrialRecord:
        """A later attempt at a record, with the plan of its remaining steps: also those of lower rungs, where their checkpoint is lost."""
        plan = None if record.plan is None else record.plan.rest_from(attempt.from_step, self._accountant.compose)
        return self.planned(replace(record.at_attempt(attempt), plan=plan))

    def to_next_rung(self, record: TrialRecord) -> TrialRecord:
        """A record that has reached a rung, with the plan of its steps from there to the next one."""
        if record.plan is None:
            raise RuntimeError(f"{record.trial_id} has no plan and stands on no rung")
        above = min(step for step in self._rungs if step > record.plan.last_step)
        return replace(record, plan=record.plan.to_rung(above, self._accountant.compose))

    def difference(self, record: TrialRecord, report: Report) -> str | None:
        """How a report differs from what was reserved for its trial, as the text of a `NotAsPlanned`; None where it does not."""
        try:
            check_spent(record.reserved, report.spent, step=report.step, done=report.done, epsilon_at=self._epsilon_at)
        except NotAsPlanned as error:
            return f"{NotAsPlanned.__name__}: {error}"
        return None

    def _epsilon_at(self, plan: PrivacyPlan, step: int) -> float:
        if (plan, step) not in self._epsilons:
            self._epsilons[plan, step] = self._accountant.spent(plan, step, self._cache_dir)
        return self._epsilons[plan, step]


class Reservations:
    """Reserves and settles the trials of one sweep on one private dataset. Trials that spend nothing leave no line."""

    def __init__(
        self,
        spec: SweepSpec,
        ledger: Ledger,
        accountant: Accountant,
        *,
        cohort: str,
        key_id: str,
        validation: ValidationPlan | None,
        validation_cohort: str | None = None,
    ) -> None:
        self._spec = spec
        self._ledger = ledger
        self._accountant = accountant
        self._cohort = cohort
        self._key_id = key_id
        self._validation_cohort = validation_cohort
        self._validation = validation

    def reserve(self, record: TrialRecord) -> None:
        """Writes the trial's whole planned spending down before it starts, of a new attempt its steps from the checkpoint on.
        The same attempt again is the same line. A trial of a private selection has no line of its own: its selection has.

        Raises:
            Refused: `epsilon_total` or the budget of the sweep's filter would be passed, or more scores on private validation data be
                released than were planned.
            Unavailable: the ledger does not answer. Corrupt: `check_data`.
        """
        self.check_data(record)
        score = self._score(record)
        if score is not None:
            self._check_planned(score)
        for reservation in (score, self._reservation(record)):
            self._write_down(reservation)

    def check_data(self, record: TrialRecord) -> None:
        """Holds a trial's own config against the data for which the sweep was checked: cohort and protection are of those alone.

        Raises:
            Corrupt: it would read other people, or protect them in another way.
        """
        part = foreign_part(record.config, self._spec.space.trial)
        if part is not None:
            raise Corrupt(
                f"trial {record.trial_id} has another {part} than the sweep: {getattr(record.config, part)!r}, in trial: stands "
                f"{self._spec.space.trial.get(part)!r}. It would be charged to the wrong people; begin a sweep of another --name for it"
            )

    def reserve_selection(self, one: TrialRecord, selection: Selection) -> None:
        """Writes down a whole private selection, before its first trial.

        Args:
            one: a trial of it; all spend alike.
            selection: gives the law.

        Raises:
            Refused: `epsilon_total` would be passed.
        """
        self._write_down(self._of_selection(one, selection))

    def settle_selection(self, one: TrialRecord, selection: Selection, *, outcome: str) -> None:
        """Writes down that a selection is over; how many trials it had stays secret."""
        reservation = self._of_selection(one, selection)
        if reservation is not None and self._ledger.is_open(reservation):
            self._ledger.settle(reservation, steps_done=reservation.steps, outcome=outcome)

    def epsilon_of_selection(self, one: TrialRecord, selection: Selection) -> float | None:
        """What the selection of trials like this one spends as a whole; None where they spend nothing."""
        reservation = self._of_selection(one, selection)
        return None if reservation is None else reservation.epsilon

    def _of_selection(self, one: TrialRecord, selection: Selection) -> Reservation | None:
        single = self._run(one)
        if single is None:
            return None
        law = selection.terms
        epsilon = epsilon_of_selection(one, self._spec.space, self._accountant.compose)
        if epsilon is None:
            raise RuntimeError(f"{one.trial_id} is no trial of a private selection")
        # what is hashed with the line is the same whichever trial stands for all
        fingerprint = digest_of({"space": self._spec.space.document(), "epsilon": one.epsilon})
        trial_id = str(TrialId.selection(one.at_epsilon))
        return replace(single, trial_id=trial_id, epsilon=epsilon, fingerprint=fingerprint, priced_by=law.text(), attempt=0)

    def _write_down(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self._ledger.reserve(
                reservation,
                cap=self._spec.space.sweep.epsilon_total,
                compose=self._accountant.compose,
                is_planned_whole=not self._spec.is_extended,
            )

    def settle(self, record: TrialRecord) -> None:
        """Writes down how a trial ended; a trial that was never reserved (it spends nothing, or was not started) has no end."""
        for reservation in filter(None, (self._score(record), self._reservation(record))):
            if self._ledger.is_open(reservation):
                self._ledger.settle(reservation, steps_done=record.steps, outcome=record.state if record.fulfilled else UNFULFILLED)

    def settle_ended(self, records: Iterable[TrialRecord]) -> None:
        """Writes down those ends that a killed driver had no time to."""
        waiting = {str(TrialId.parse(line.trial_id).trial) for line in self._ledger.open_reservations(self._spec.name)}
        for record in records:
            if record.trial_id in waiting:
                self.settle(record)

    def require_standing(self, records: Iterable[TrialRecord], *, key_lost: bool) -> None:
        """Holds the records of a sweep that is taken up against the ledger: what ran on private data was reserved before, as it is
        remembered, and what was reserved is remembered.

        Raises:
            Refused: the ledger is older than the sweep, or another one. Corrupt: the studies lost or changed a trial, or the key is
                not the one under which open trials were reserved.
        """
        self._ledger.require_whole()
        for line in () if key_lost else self._ledger.open_reservations(self._spec.name):
            if line.key_id != self._key_id:
                raise Corrupt(
                    f"{self._spec.key_path} (key {self._key_id}) is not the key under which {line.trial_id} was reserved ({line.key_id}): "
                    "put a copy of it back. Without it: remove the file, and open trials are charged in full and replaced under a new key"
                )
        known = list(records)
        there = {line.run: line for line in self._ledger.lines(sweep=self._spec.name) if line.kind == "reserve"}
        missing = [run for record in known if record.curve or record.state in ("done", "pruned") for run in self._runs_of(record)]
        missing = [run for run in missing if run not in there]
        if missing:
            _, trial_id, attempt = missing[0]
            name, ledger = self._spec.name, shown(self._spec.resolved_ledger_url)
            raise Refused(
                f"{len(missing)} private runs of {name} have no reservation in the ledger {ledger} (the first is {trial_id}, attempt "
                f"{attempt}): it is older than the sweep, or another one. Bring its ledger back; `dpsweep ledger {name} --restore` writes "
                "lost lines from their witness"
            )
        self._require_remembered(known, there)

    def _require_remembered(self, records: Iterable[TrialRecord], there: Mapping[tuple[str, str, int], LedgerLine]) -> None:
        """The other way round: a study that lost its end would draw a trial again that was charged, and one that was changed would
        run something else."""
        known = {record.trial_id: record for record in records}
        for (_, trial_id, attempt), line in there.items():
            trial = TrialId.parse(trial_id)
            if trial.kind == "selection":
                continue
            record = known.get(str(trial.trial))
            if record is None or (attempt > record.attempt and not trial.is_score) or _lies_above(trial, record):
                raise Corrupt(
                    f"{self._spec.studies_at} does not know trial {trial_id}, attempt {attempt}, which ledger line {line.number} reserved: "
                    "it lost its end; put a copy of it back, then `dpsweep resume` again"
                )
            wanted = self._reservation(record) if attempt == record.attempt and not trial.is_score else None
            if wanted is not None and wanted.run != line.run:  # on a ladder, the line of a lower rung
                wanted = replace(wanted, steps=line.steps)
            if wanted is not None and (wanted.spending, wanted.fingerprint) != (line.spending, line.fingerprint):
                raise Corrupt(
                    f"{self._spec.studies_at} remembers another {trial_id} than ledger line {line.number} reserved ({wanted.spending}, "
                    f"config {wanted.fingerprint}; there {line.spending}, config {line.fingerprint}): it was changed; put a copy of it back"
                )

    def with_spent(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Records of a sweep that is taken up, the ended ones with what they spent: from the plan and the steps that ran, because a
        report may have been lost.

        | ended | spent |
        |---|---|
        | done | the whole plan; of a selection's winner what its selection spent |
        | stopped early, failed | the steps that the ledger says were done; None, not known, where no end stands there |
        | as something else than was reserved | None: not known |
        """
        settled = {line.run: line.steps_done for line in self._ledger.lines(sweep=self._spec.name) if line.kind == "settle"}
        return [self._with_spent(record, settled) for record in records]

    def _with_spent(self, record: TrialRecord, ends: Mapping[tuple[str, str, int], int]) -> TrialRecord:
        plan = record.reserved
        if not record.fulfilled:
            return replace(record, epsilon_spent=None)
        if plan is None or not record.is_finished:
            return record
        if record.state == "done":
            selected = epsilon_of_selection(record, self._spec.space, self._accountant.compose)
            if selected is not None:
                return as_released(record, selected)
            return replace(record, epsilon_spent=self._after(plan, plan.last_step))
        settled = max((ends[run] for run in self._own_runs(record) if run in ends), default=None)
        if not record.steps and not settled:  # nothing left its worker
            return record
        if settled is None:
            return replace(record, epsilon_spent=None)
        steps = max(settled, record.steps)
        return replace(record, steps=steps, epsilon_spent=self._after(plan, steps))

    def _after(self, plan: PrivacyPlan, steps: int) -> float:
        return self._accountant.spent(plan, steps, self._spec.places.cache_dir)

    def _runs_of(self, record: TrialRecord) -> list[tuple[str, str, int]]:
        """The runs that must stand in the ledger once a record ran."""
        sweep, found = self._spec.name, []
        if self._validation is not None and self._validation_cohort is not None:
            found.append((sweep, str(TrialId.parse(record.trial_id).score), 0))
        if self._is_selected(record):
            found += [(sweep, str(TrialId.selection(record.at_epsilon)), 0)] if record.config.spends_privacy else []
        elif record.is_sealed or record.config.spends_privacy:
            found += self._own_runs(record)
        return found

    def _own_runs(self, record: TrialRecord) -> list[tuple[str, str, int]]:
        """Every attempt at a record; on a ladder the newest one, up to the rung to which it has taken steps."""
        plan = record.reserved
        if plan is None or (plan.until is None and self._spec.space.sweep.stopper != HALVING) or record.role != "search":
            return [(self._spec.name, record.trial_id, attempt) for attempt in range(record.attempt + 1)]
        has_set_out = record.steps > plan.from_step or plan.from_step in (0, record.from_step)
        reached = plan.until if has_set_out else plan.from_step
        return [(self._spec.name, str(TrialId.parse(record.trial_id).to_rung(reached)), record.attempt)]

    def _is_selected(self, record: TrialRecord) -> bool:
        return self._spec.space.sweep.regime.is_selection and record.role == "search"

    def _score(self, record: TrialRecord) -> Reservation | None:
        """The record's score on private validation data."""
        if self._validation is None or self._validation_cohort is None:
            return None
        return score_reservation(
            record.config,
            self._validation,
            sweep=self._spec.name,
            trial_id=record.trial_id,
            cohort=self._validation_cohort,
            key_id=self._key_id,
        )

    def _check_planned(self, score: Reservation) -> None:
        lines = [line for line in self._ledger.lines(sweep=self._spec.name) if line.kind == "reserve" and line.dataset == score.dataset]
        runs = {line.run for line in lines if TrialId.parse(line.trial_id).is_score}
        if self._validation is not None and score.run not in runs and len(runs) >= self._validation.releases:
            raise Refused(
                f"{score.trial_id}: the noise on {score.dataset} was made for {self._validation.releases} scores, and as many stand in the "
                "ledger; another one needs a sweep of its own"
            )

    def _reservation(self, record: TrialRecord) -> Reservation | None:
        """What a trial reserves for itself; None where it spends nothing or is part of a selection."""
        if record.is_sealed:
            return sealed_reservation(
                record.config,
                sweep=self._spec.name,
                trial_id=record.trial_id,
                attempt=record.attempt,
                cohort=self._cohort,
                key_id=self._key_id,
            )
        return None if self._is_selected(record) else self._run(record)

    def _run(self, record: TrialRecord) -> Reservation | None:
        plan = record.reserved
        if plan is None:
            if record.config.spends_privacy:
                raise RuntimeError(f"{record.trial_id} spends privacy and has no plan")
            return None
        return Reservation(
            sweep=self._spec.name,
            trial_id=record.trial_id if plan.until is None else str(TrialId.parse(record.trial_id).to_rung(plan.until)),
            attempt=record.attempt,
            dataset=record.config.data.private,
            cohort=self._cohort,
            sampling_prob=plan.sampling_prob,
            noise_multiplier=plan.noise_multiplier,
            steps=plan.reserved.steps,
            relation=plan.relation,
            epsilon=plan.reserved.epsilon,
            delta=plan.delta,
            fingerprint=record.fingerprint,
            key_id=self._key_id,
            priced_by="" if self._spec.privacy_filter is None else self._spec.privacy_filter.text(),
            unit=record.config.privacy_unit,
            examples_per_unit=record.config.examples_per_unit,
            views=views_text(self._spec.space.splits_in_use),
            labels=record.config.labels,
        )


def _lies_above(trial: TrialId, record: TrialRecord) -> bool:
    """Whether a line of the ledger is of a rung above the one to which its trial is remembered to have gone."""
    if trial.is_score or record.plan is None or record.plan.until is None:
        return False
    return trial.until is None or trial.until > record.plan.until
