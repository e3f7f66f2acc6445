"""A sweep's side of the ledger: what each of its trials reserves, and under which cap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.ledger import Compose, Ledger, Reservation
from sweeps.pricing import Accountant
from sweeps.results import TrialRecord
from sweeps.sealed import sealed_reservation
from sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from dpcore.privacy.accounting import PrivacyPlan


class Reservations:
    """Reserves and settles the trials of one sweep on one private dataset. Trials that spend nothing leave no line."""

    def __init__(self, spec: SweepSpec, ledger: Ledger, accountant: Accountant, *, cohort: str, key_id: str) -> None:
        self._spec = spec
        self._ledger = ledger
        self._accountant = accountant
        self._cohort = cohort
        self._key_id = key_id

    def reserve(self, record: TrialRecord) -> None:
        """Writes the trial's whole planned spending down before it starts, of a new attempt its steps from the checkpoint on.
        The same attempt again is the same line.

        Raises:
            Refused: `epsilon_total` would be passed.
            Unavailable: the ledger does not answer.
        """
        reservation = self._reservation(record)
        if reservation is not None:
            self._ledger.reserve(reservation, cap=self._spec.space.sweep.epsilon_total, compose=self._accountant.compose)

    def settle(self, record: TrialRecord) -> None:
        """Writes down how a trial ended; a trial that was never reserved (it spends nothing, or was not started) has no end."""
        reservation = self._reservation(record)
        if reservation is not None and self._stands(record):
            self._ledger.settle(reservation, steps_done=record.steps, outcome=record.state)

    def _stands(self, record: TrialRecord) -> bool:
        open_lines = self._ledger.open_reservations(self._spec.name)
        return any((line.trial_id, line.attempt) == (record.trial_id, record.attempt) for line in open_lines)

    def _reservation(self, record: TrialRecord) -> Reservation | None:
        if record.is_sealed:
            return sealed_reservation(
                record.config,
                sweep=self._spec.name,
                trial_id=record.trial_id,
                attempt=record.attempt,
                cohort=self._cohort,
                key_id=self._key_id,
            )
        planned = self._accountant.plan(record.config, self._spec.places.cache_dir)
        if planned is None:
            return None
        plan = plan_from(planned, record.from_step, self._accountant.compose)
        return Reservation(
            sweep=self._spec.name,
            trial_id=record.trial_id,
            attempt=record.attempt,
            dataset=record.config.data.private,
            cohort=self._cohort,
            sampling_prob=plan.sampling_prob,
            noise_multiplier=plan.noise_multiplier,
            steps=plan.steps,
            relation=plan.relation,
            epsilon=plan.epsilon_planned,
            delta=plan.delta,
            fingerprint=record.fingerprint,
            key_id=self._key_id,
        )


def plan_from(plan: PrivacyPlan, step: int, compose: Compose) -> PrivacyPlan:
    """What a run spends that takes the plan's steps from `step` on: fewer of the same releases, so a smaller ε."""
    if step == 0:
        return plan
    rest = replace(plan, steps=plan.steps - step)
    return replace(rest, epsilon_planned=compose([(rest.spending, 1)], plan.delta))
