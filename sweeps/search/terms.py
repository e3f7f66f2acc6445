"""What follows from a sweep's spec alone: computed once, when a sweep begins or goes on, and handed down."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.pricing.validation import PUBLIC_VALIDATION, ValidationPlan, plan_validation
from sweeps.records.references import Reference, free_references
from sweeps.records.spec import SweepSpec
from sweeps.search.stopping import StoppingPlan, plan_stopping


@dataclass(frozen=True, kw_only=True)
class SweepTerms:
    """The terms of a sweep.

    Attributes:
        references: the runs that cost nothing: public start, floors, ceiling.
        stopping: when trials are compared and stopped; None without a stopper.
        validation: how scores on private validation data leave; None where validation is public.
    """

    references: tuple[Reference, ...]
    stopping: StoppingPlan | None
    validation: ValidationPlan | None

    @property
    def validation_text(self) -> str:
        """What plan and report say about the validation data."""
        return PUBLIC_VALIDATION if self.validation is None else self.validation.text


def terms_of(spec: SweepSpec) -> SweepTerms:
    """The terms of a sweep.

    Raises:
        BadInput: a stopper that could never stop, or private validation without its ε or its number of people.
    """
    return SweepTerms(
        references=free_references(spec.space, seed=spec.seed),
        stopping=plan_stopping(spec.space, spec.runtime.report_every_steps),
        validation=plan_validation(spec.space, spec.places.cache_dir),
    )
