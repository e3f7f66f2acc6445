"""How much each searched setting decides at an ε: Optuna's conditional PED-ANOVA over the finished trials.

The share says which settings divide the best tenth of the trials from the others. It is about this search and these ranges, and it
does not say in which direction to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.report.details.settings import drawn_values, searched_settings

if TYPE_CHECKING:
    from search_spaces.space import SpaceFile
    from sweeps.records.results import TrialRecord

FEWEST_TRIALS = 10
"""Below, the best tenth is not even one trial."""


@dataclass(frozen=True, kw_only=True)
class Importances:
    """Of one ε. `shares` is label → share, in falling order, 1 in all; empty where nothing can be told, and `missing` says why."""

    epsilon: float
    trials: int
    shares: dict[str, float]
    missing: str = ""


def importances_at(epsilon: float, finished: Sequence[TrialRecord], space: SpaceFile) -> Importances:
    """The importances of the settings at an ε.

    Args:
        epsilon: of the search.
        finished: its trials that have a score.
        space: says what is searched, and when a setting is active.
    """
    settings = [one for one in searched_settings(space, epsilon) if not _is_single(one.choices)]
    missing = "" if settings else "no setting had more than one value to try"
    if settings and len(finished) < FEWEST_TRIALS:
        missing = f"it needs {FEWEST_TRIALS} finished trials at an ε, and here are {len(finished)}"
    if missing:
        return Importances(epsilon=epsilon, trials=len(finished), shares={}, missing=missing)
    import optuna

    from sweeps.search.studies import distribution_of

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for record in finished:
        drawn = drawn_values(record, settings, space)
        # A value outside the range belongs to another version of the space; the study would refuse it.
        params = {one.path: drawn[one.path] for one in settings if one.path in drawn and one.parameter.contains(drawn[one.path])}
        kinds = {one.path: distribution_of(one.parameter) for one in settings if one.path in params}
        study.add_trial(optuna.create_trial(value=record.score, params=params, distributions=kinds))
    found = optuna.importance.get_param_importances(study)
    labels = {one.path: one.label for one in settings}
    return Importances(epsilon=epsilon, trials=len(finished), shares={labels[path]: share for path, share in found.items()})


def _is_single(choices: tuple[str, ...] | None) -> bool:
    return choices is not None and len(choices) == 1
