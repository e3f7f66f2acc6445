"""What follows from a sweep's spec alone: computed once, when a sweep begins or goes on, and handed down."""

from __future__ import annotations

from dataclasses import dataclass

from dpcore.config.scored_people import ScoredPeople
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
        search_people: of whom scores of the search are counted; None: of all, as those of everything else.
    """

    references: tuple[Reference, ...]
    stopping: StoppingPlan | None
    validation: ValidationPlan | None
    search_people: ScoredPeople | None = None

    @property
    def validation_text(self) -> str:
        """What plan and report say about the validation data."""
        text = PUBLIC_VALIDATION if self.validation is None else self.validation.text
        return f"{text}; {divided_text(self.search_people)}"


def divided_text(search_people: ScoredPeople | None) -> str:
    """Of whom the scores are counted."""
    if search_people is None:
        return "the search and the verdict share the same people, so a winner's own score is a little too high"
    share = 100 * search_people.search_frac
    return (
        f"about {share:g} % of its people score the search; winner, floor, control, ceiling and fresh seeds are scored on the others, whom "
        "no search saw (who is who follows from the names of the pictures alone)"
    )


def terms_of(spec: SweepSpec) -> SweepTerms:
    """The terms of a sweep.

    Raises:
        BadInput: a stopper that could never stop, or private validation without its ε or its number of people.
    """
    return SweepTerms(
        references=free_references(spec.space, seed=spec.seed),
        stopping=plan_stopping(spec.space, spec.runtime.report_every_steps),
        validation=plan_validation(spec.space, spec.places.cache_dir),
        search_people=spec.space.sweep.search_people,
    )
