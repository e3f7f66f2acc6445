"""What a trial receives in addition to its settings: key, folder, attempt, and how its results leave. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import Places
from dpcore.config.metrics import PCKH_50
from dpcore.config.scored_people import ScoredPeople
from dpcore.train.attempts import FIRST, Attempt

if TYPE_CHECKING:
    from dpcore.privacy.plan import PrivacyPlan
    from dpcore.privacy.randomness import SweepKey
    from dpcore.privacy.score_release import ScoreRelease


@dataclass(frozen=True, kw_only=True)
class Handout:
    """One attempt at a trial, as a worker receives it.

    Attributes:
        trial_id: names the secret streams together with `key`, `attempt` and all that decides the private sums: one id, one
            release, and other sums never meet the same noise.
        key: the sweep's secret. None only if no private data are drawn (public_only and controls).
        places: datasets and caches.
        folder: checkpoints, digests and the final model; None keeps nothing.
        plan: what was reserved for the trial, which it executes exactly. A rehearsal has the plan of the private run that it stands
            for. None if no noise is added.
        attempt: the attempt. A try that is not a replay needs the next one.
        sealed: the caller shows neither reports nor weights, so that protected data may be trained on without privacy.
        validation: how the score leaves where the validation data are PRIVATE: once, in the last report, with noise that the
            caller has reserved. None: they are PUBLIC.
        metric: the score that decides, by its name in `METRICS`.
        people: of whom scores are counted; None: of all validation people.
    """

    trial_id: str
    key: SweepKey | None
    places: Places
    folder: Path | None
    plan: PrivacyPlan | None = None
    attempt: Attempt = FIRST
    sealed: bool = False
    validation: ScoreRelease | None = None
    metric: str = PCKH_50
    people: ScoredPeople | None = None
