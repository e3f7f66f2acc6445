"""Private validation: what the scores cost, and how much noise they need.

Every score is a release. Each trial, floor, control and rerun releases one score, at its end. All scores of a sweep share
`validation_epsilon`. Optuna, MLflow, tables and the choice of the winner see the score with noise. With more than one PCKh point of noise
the search would follow the noise, so this is refused before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import TrialConfig
from dpcore.config.scored_people import ScoredPeople
from dpcore.errors import BadInput, Refused
from sweeps.ledger.ledger import Reservation
from sweeps.pricing.plan import planned_runs
from sweeps.records.trial_id import TrialId

if TYPE_CHECKING:
    from dpcore.privacy.score_release import ScoreRelease
    from search_spaces.space import SpaceFile

MOST_NOISE_FRAC = 0.01
"""Largest noise: one PCKh point."""
PUBLIC_VALIDATION = "validation data were declared public: their scores cost nothing and nothing about them is promised"


@dataclass(frozen=True, kw_only=True)
class ValidationPlan:
    """The scores of a sweep on private validation data.

    Attributes:
        releases: number of planned scores, one per run. With `search_frac` each reads a part of the people; the price holds as if each
            read all of them.
        release: noise of each score, over the nominal number of all people.
        epsilon, delta: guarantee of all scores together.
        search_frac: about this share of the people scores the search; None: all score every run.
    """

    releases: int
    release: ScoreRelease
    epsilon: float
    delta: float
    search_frac: float | None = None

    def release_to(self, people: ScoredPeople | None) -> ScoreRelease:
        """How a score of these people leaves: the same noise, over their nominal number."""
        if people is None:
            return self.release
        share = people.search_frac if people.part == "search" else 1 - people.search_frac
        return self.release.model_copy(update={"nominal_units": max(1, round(share * self.release.nominal_units))})

    @property
    def loudest(self) -> ScoreRelease:
        """The release with the most noise: of the smaller part of the people."""
        if self.search_frac is None:
            return self.release
        parts = [ScoredPeople(search_frac=self.search_frac, part=part) for part in ("search", "verdict")]
        return max(map(self.release_to, parts), key=lambda one: one.noise_stddev)

    @property
    def text(self) -> str:
        """One line for plan and report."""
        people, noise = self.loudest.nominal_units, 100 * self.loudest.noise_stddev
        most = "" if self.search_frac is None else "at most "
        return (
            f"validation is private: {self.releases} scores, one per run, at epsilon {self.epsilon:g} together (delta {self.delta:.3g}), "
            f"each under noise with a standard deviation of {most}{noise:.2g} PCKh points on {people} people"
        )


def plan_validation(space: SpaceFile, cache_dir: Path | None) -> ValidationPlan | None:
    """The plan of a space with `validation: private`, or None for public validation. It is calibrated once, then cached.

    Raises:
        BadInput: ε or the nominal number of people is missing.
    """
    from dpcore.privacy.score_release import calibrate_release

    settings = space.sweep
    if settings.validation == "public":
        return None
    if settings.validation_epsilon is None or settings.validation_units is None:
        raise BadInput("sweep.validation private needs sweep.validation_epsilon and sweep.validation_units")
    releases = planned_runs(space)
    release = calibrate_release(
        releases, epsilon=settings.validation_epsilon, delta=space.delta, nominal_units=settings.validation_units, cache_dir=cache_dir
    )
    return ValidationPlan(
        releases=releases,
        release=release,
        epsilon=settings.validation_epsilon,
        delta=space.delta,
        search_frac=settings.validation_search_frac,
    )


def check_noise(plan: ValidationPlan) -> None:
    """Refuses scores with so much noise that a search would follow it.

    Raises:
        Refused: the noise is larger than one PCKh point.
    """
    if plan.loudest.noise_stddev > MOST_NOISE_FRAC:
        raise Refused(
            f"{plan.text}: more than {100 * MOST_NOISE_FRAC:g} point, so the search would follow noise; plan fewer runs, raise "
            "sweep.validation_epsilon, or validate on more people"
        )


def score_reservation(config: TrialConfig, plan: ValidationPlan, *, sweep: str, trial_id: str, cohort: str, key_id: str) -> Reservation:
    """The reservation of one score: a Gaussian over all people. It is the same for every attempt, because only the last one ends."""
    from dpcore.privacy.accounting import Spending, epsilon_of

    noise = plan.release.noise_multiplier
    return Reservation(
        sweep=sweep,
        trial_id=str(TrialId.parse(trial_id).score),
        dataset=config.data.validation,
        cohort=cohort,
        sampling_prob=1.0,
        noise_multiplier=noise,
        steps=1,
        epsilon=epsilon_of(Spending(1.0, noise, 1), plan.delta),
        delta=plan.delta,
        fingerprint=config.fingerprint(),
        key_id=key_id,
        unit=config.privacy_unit,
        examples_per_unit=config.examples_per_unit,
        views="[]",
        labels="private",
    )
