"""All that a report says beyond its tables, as one object: computed once, then rendered as Markdown, HTML and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.report.comparison import score_of
from sweeps.report.details.clip_table import ClipTable, clip_table
from sweeps.report.details.expected_best import common_size
from sweeps.report.details.importance import Importances, importances_at
from sweeps.report.details.joints import JointScores, joint_scores
from sweeps.report.details.settings import SettingDifference, drawn_values, searched_settings, winner_differences
from sweeps.report.details.statement import PrivacyStatement, privacy_statement

if TYPE_CHECKING:
    from search_spaces.space import Scalar
    from sweeps.pricing.plan import SweepPlan
    from sweeps.pricing.regimes import RegimePrice
    from sweeps.records.results import SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec
    from sweeps.report.comparison import Comparison
    from sweeps.report.details.answers import EpsilonAnswer
    from sweeps.report.details.price import SweepPrice
    from sweeps.report.details.settings import SearchedSetting
    from sweeps.report.disclosure import PolicyDisclosure


@dataclass(frozen=True, kw_only=True)
class ShownTrial:
    """A trial of the search with the settings that were drawn for it (path → value; inactive ones are absent)."""

    record: TrialRecord
    drawn: dict[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class SearchAt:
    """The search at one ε: what was searched, its trials in the order of hand-out, and how much each setting decided."""

    epsilon: float
    settings: tuple[SearchedSetting, ...]
    trials: tuple[ShownTrial, ...]
    importances: Importances

    @property
    def finished(self) -> tuple[ShownTrial, ...]:
        """Those that came to their end with a score."""
        return tuple(one for one in self.trials if score_of(one.record) is not None)


@dataclass(frozen=True, kw_only=True)
class ReportDetails:
    """See the fields.

    Attributes:
        searches: one per ε.
        common_trials: k of the expected best of k: as many as every method has at every ε where it has any.
        differences: in what the winners differ.
        clip_norms: method × ε × clipping norm.
        joints: one per ε whose winner told its joints.
        regimes: the plan's price under each regime; empty where no plan was made.
        finals: per ε, what `dpsweep train` charges for a model of the winner's settings.
        statement: for a data-protection officer.
        is_sealed: the number of trials is secret, and only winners are here.
    """

    searches: tuple[SearchAt, ...]
    common_trials: int
    differences: tuple[SettingDifference, ...]
    clip_norms: ClipTable | None
    joints: tuple[JointScores, ...]
    regimes: tuple[RegimePrice, ...]
    finals: tuple[float, ...]
    statement: PrivacyStatement
    is_sealed: bool


def build_details(
    results: SweepResults,
    spec: SweepSpec,
    *,
    comparisons: Sequence[Comparison],
    price: SweepPrice,
    answers: Sequence[EpsilonAnswer],
    policy: PolicyDisclosure | None,
    plan: SweepPlan | None,
) -> ReportDetails:
    """The details of a sweep's results. Importances take tenths of a second per ε, claims seconds where nothing is cached."""
    space = spec.space
    searches = tuple(_search_at(results, epsilon, spec) for epsilon in space.sweep.epsilons)
    groups: dict[object, list[float]] = {}
    for search in searches:
        for one in search.finished:
            groups.setdefault((search.epsilon, one.record.config.method), []).append(score_of(one.record) or 0.0)
    return ReportDetails(
        searches=searches,
        common_trials=common_size(groups),
        differences=winner_differences(comparisons, space),
        clip_norms=None if space.sweep.regime.is_selection else clip_table(results, space, space.sweep.epsilons),
        joints=joint_scores(comparisons),
        regimes=() if plan is None else plan.prices,
        finals=() if plan is None else plan.finals,
        statement=privacy_statement(spec, comparisons, price=price, answers=answers, policy=policy),
        is_sealed=space.sweep.regime.is_selection,
    )


def _search_at(results: SweepResults, epsilon: float, spec: SweepSpec) -> SearchAt:
    settings = searched_settings(spec.space, epsilon)
    records = results.of_role("search", epsilon)
    finished = [one for one in records if score_of(one) is not None]
    return SearchAt(
        epsilon=epsilon,
        settings=settings,
        trials=tuple(ShownTrial(record=one, drawn=drawn_values(one, settings, spec.space)) for one in records),
        importances=importances_at(epsilon, finished, spec.space),
    )
