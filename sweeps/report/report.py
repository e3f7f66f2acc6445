"""Builds the report of a sweep for the terminal and as Markdown: tables, the price of the sweep, and the next commands.

Scores are percent here and fractions everywhere else.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.pricing.extending import require_extensible
from sweeps.pricing.regimes import basis_of
from sweeps.records.spec import DEFAULT_STORAGE
from sweeps.records.trial_id import epsilon_name
from sweeps.report.comparison import Comparison, compare, shown_runs, with_errors
from sweeps.report.details.answers import EpsilonAnswer
from sweeps.report.details.details import ReportDetails, build_details
from sweeps.report.details.markdown import detail_sections, markdown_table
from sweeps.report.details.price import SweepPrice
from sweeps.report.disclosure import DISCLOSURE_NOTES, DisclosureRow, disclosure_rows, disclosure_table, read_policy
from sweeps.report.figures import DISCLOSURE_STEM
from sweeps.report.published.grid_table import GridTable, grid_table
from sweeps.report.text import number, percent, render_table
from sweeps.report.uncertainty import counts_of
from sweeps.search.stopping import stopping_lines
from sweeps.search.terms import SweepTerms, terms_of
from sweeps.terminal.lines import COMMAND_INDENT

if TYPE_CHECKING:
    from sweeps.pricing.plan import SweepPlan
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec

HEADER = ["ε", "winner", "{metric} %", "fresh seeds", "spread", "spent ε", "floor", "control", "ceiling"]


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """A sweep's report, ready to print or to write. `details` are what files say beyond the tables; None: not asked for."""

    name: str
    comparisons: tuple[Comparison, ...]
    price: SweepPrice
    next_commands: tuple[str, ...]
    stopped: tuple[str, ...] = ()
    disclosures: tuple[DisclosureRow, ...] = ()
    grid: GridTable | None = None
    metric: str = "PCKh@0.5"
    details: ReportDetails | None = None

    @property
    def answers(self) -> tuple[EpsilonAnswer, ...]:
        """One per ε."""
        return tuple(
            EpsilonAnswer(comparison=one, price=self.price.short(), total=self.price.total(one.epsilon), metric=self.metric)
            for one in self.comparisons
        )

    def _header(self) -> list[str]:
        return [title.format(metric=self.metric) for title in HEADER]

    def headlines(self) -> tuple[str, ...]:
        """One line per ε: the score at the price of everything."""
        return tuple(one.headline() for one in self.answers)

    def method_lines(self) -> tuple[str, ...]:
        """One line per ε and pair of methods: which one is better, where that is clear."""
        return tuple(line for one in self.answers for line in one.method_lines())

    def verdicts(self) -> tuple[str, ...]:
        """One sentence per ε: what the private winner gains, and whether that is worth its price."""
        return tuple(one.line() for one in self.answers)

    def text(self) -> str:
        """For the terminal."""
        warning = self.price.pricing.warning
        parts = [
            f"sweep {self.name}" + ("" if warning is None else f": {warning}"),
            "\n".join(self.headlines()),
            render_table(self._header(), [_row(one) for one in self.comparisons]),
            render_table(*_methods_table(self.comparisons)),
            *([] if self.grid is None else [render_table(*self.grid.scores), render_table(*self.grid.bars), "\n".join(self.grid.notes)]),
            *([render_table(*disclosure_table(self.disclosures)), *self._warnings()] if self.disclosures else []),
            "\n".join([*self.verdicts(), *self.method_lines()]),
            "\n".join([*self.price.lines(), *self.stopped]),
            "next:\n" + "\n".join(f"{COMMAND_INDENT}{command}" for command in self.next_commands),
        ]
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """For report.md."""
        methods_header, methods_rows = _methods_table(self.comparisons)
        warning = self.price.pricing.warning
        headline = [] if warning is None else [f"**{warning}**", ""]
        headline += [*[f"- {line}" for line in self.headlines()], ""]
        lines = [f"# Sweep {self.name}", "", *headline, *markdown_table(self._header(), [_row(one) for one in self.comparisons]), ""]
        lines += [f"![{self.metric} over ε](pckh_over_epsilon.svg)", "", f"*{self.price.caption()}*", ""]
        lines += ["## Best trial of each method", "", *markdown_table(methods_header, methods_rows), ""]
        lines += self._grid_section()
        lines += self._disclosure_section()
        lines += [] if self.details is None else detail_sections(self.details, self.comparisons)
        lines += [
            "## What it means",
            "",
            *[f"- {line}" for line in (*self.verdicts(), *self.method_lines())],
            *[f"- {line}" for line in (*self.price.lines(), *self.stopped)],
            "",
        ]
        lines += ["## Next", "", "```sh", *self.next_commands, "```", "", "## How to read it", "", *NOTES, ""]
        return "\n".join(lines)

    def _warnings(self) -> list[str]:
        return [f"{one.name}: {one.disclosure.warning}" for one in self.disclosures if one.disclosure.warning is not None]

    def _grid_section(self) -> list[str]:
        if self.grid is None:
            return []
        tables = [*markdown_table(*self.grid.scores), "", *markdown_table(*self.grid.bars)]
        return ["## Method, ε and clipping norm", "", *tables, "", *(f"- {note}" for note in self.grid.notes), ""]

    def _disclosure_section(self) -> list[str]:
        if not self.disclosures:
            return []
        table = markdown_table(*disclosure_table(self.disclosures))
        figure = [f"![PCKh over disclosure]({DISCLOSURE_STEM}.svg)", ""]
        warnings = [f"- **{line}**" for line in self._warnings()]
        return ["## What the public views disclose", "", *table, "", *figure, *DISCLOSURE_NOTES, *warnings, ""]


NOTES = (
    "- *winner*: the best private trial. Where it was chosen on the people that are shown, its score is the best of many and so a little "
    "too high. *fresh seeds*: mean score of the same settings, trained again with fresh noise. *spread*: highest minus lowest of these. "
    "*±*: one standard error over validation people and, of the fresh seeds, over seeds.",
    "- *floor*: public data only, at no privacy cost: the highest of all public recipes that the sweep tried (the public start, training "
    "on the public views of each split). *control*: the best feature-type run with its private part off. A private method is useful if "
    "it exceeds both. *ceiling*: no privacy. The verdict rests on a paired bootstrap over validation people and on the variance between "
    "seeds; a difference is within noise where its 95 % interval holds 0.",
    "- *spent ε* belongs to one trial, of a private selection's winner to the selection. The price belongs to the whole sweep. Never use "
    "one in place of the other. *What it means* names the accountant of each.",
)


def build_report(results: SweepResults, *, spec: SweepSpec) -> SweepReport:
    """Builds the report from the current results, which must be priced (`sweeps.pricing.plan.priced`)."""
    terms = terms_of(spec)
    price = _price_of(results, spec, terms)
    comparisons = compare(results, spec.space.sweep.epsilons, is_divided=spec.space.sweep.verdict_people is not None)
    counts = counts_of(spec, shown_runs(comparisons))
    comparisons = tuple(with_errors(one, counts) for one in comparisons)
    policy, stopping = read_policy(spec.sweep_dir), terms.stopping
    return SweepReport(
        name=results.name,
        comparisons=comparisons,
        price=price,
        next_commands=_next_commands(comparisons, spec),
        stopped=() if stopping is None else stopping_lines(results, stopping),
        disclosures=() if policy is None else disclosure_rows(policy, results, spec.space.sweep.epsilons),
        grid=grid_table(results, spec),
        metric=results.metric_title,
    )


def answer_at(results: SweepResults, epsilon: float, *, spec: SweepSpec) -> EpsilonAnswer:
    """The answer at one ε, without a bar to hold it against: only winner and fresh seeds are asked. Results must be priced."""
    is_divided = spec.space.sweep.verdict_people is not None
    (one,) = compare(results, [epsilon], is_divided=is_divided)
    own = [record for record in (*one.seeds, one.winner) if record is not None]
    price = _price_of(results, spec, terms_of(spec))
    found = with_errors(one, counts_of(spec, own))
    return EpsilonAnswer(comparison=found, price=price.short(), total=price.total(epsilon), metric=results.metric_title)


def _price_of(results: SweepResults, spec: SweepSpec, terms: SweepTerms) -> SweepPrice:
    if results.composed_epsilon is None:
        raise RuntimeError(f"the results of {results.name} have no price yet")
    return SweepPrice(
        basis=replace(basis_of(spec), accounting=results.accounting),
        composed_epsilon=results.composed_epsilon,
        private_trials=sum(record.config.spends_privacy and record.state != "planned" for record in results.records),
        delta=results.delta,
        protected=results.protected,
        validation=terms.validation_text,
        sealed=bool(results.of_role("sealed_ceiling")),
        warm_start=None if spec.warm_start is None else spec.warm_start.text(spec.name),
        epsilon_total=spec.space.sweep.epsilon_total,
    )


def with_details(report: SweepReport, results: SweepResults, *, spec: SweepSpec, plan: SweepPlan | None = None) -> SweepReport:
    """The report with what its files say beyond the tables.

    Args:
        report: of `build_report`.
        results: the same.
        spec: of the sweep.
        plan: with the price under each regime; None: that table is left out.
    """
    found = build_details(
        results,
        spec,
        comparisons=report.comparisons,
        price=report.price,
        answers=report.answers,
        policy=read_policy(spec.sweep_dir),
        plan=plan,
    )
    return replace(report, details=found)


def _next_commands(comparisons: Sequence[Comparison], spec: SweepSpec) -> tuple[str, ...]:
    won = [one.epsilon for one in comparisons if one.winner is not None]
    storage = "" if spec.storage == Path(DEFAULT_STORAGE).absolute() else f" --storage {shlex.quote(str(spec.storage))}"
    name = spec.name
    further = [f"dpsweep extend {name} --trials +{MORE_TRIALS} --dry-run{storage}"] if _can_go_on(spec) else []
    export = [f"dpsweep best {name} --epsilon {epsilon_name(won[0])} --out best.yaml{storage}", "dpsweep train best.yaml"] if won else []
    uri = spec.resolved_tracking_uri
    look = f"# MLflow: {uri}" if uri.startswith("http") else f"dpsweep ui{storage}"
    return (*export, *further, f"dpsweep ledger {name} --verify{storage}", look)


MORE_TRIALS = 8
"""At each ε, of the extension that a report proposes."""


def _can_go_on(spec: SweepSpec) -> bool:
    """Whether more trials at every ε may be added after the results were seen."""
    try:
        require_extensible(spec, more_trials=True)
    except Refused:
        return False
    return True


def _row(one: Comparison) -> list[str]:
    winner = one.winner
    return [
        f"{one.epsilon:g}",
        "–" if winner is None else winner.config.method,
        _with_error(one.winner_score, one.errors.get("winner")),
        _with_error(one.seed_mean, one.errors.get("seeds")),
        percent(one.seed_spread),
        number(None if winner is None else winner.epsilon_spent),
        _with_error(one.floor, one.errors.get("floor")),
        _with_error(one.control, one.errors.get("control")),
        _with_error(one.ceiling, one.errors.get("ceiling")),
    ]


def _with_error(score: float | None, error: float | None) -> str:
    return percent(score) if score is None or error is None else f"{percent(score)} ± {percent(error)}"


def _methods_table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Method × ε: the mean of fresh seeds where the sweep has two of that method, else its best trial; and the number of its trials."""
    methods = list(dict.fromkeys(method for one in comparisons for method in one.by_method))
    header = ["best of each method % (trials)", "", *[f"ε = {one.epsilon:g}" for one in comparisons]]
    rows = [[method, "", *[_method_cell(one, method) for one in comparisons]] for method in sorted(methods)]
    return header, rows


def _method_cell(one: Comparison, method: str) -> str:
    if method not in one.by_method:
        return percent(None)
    seeds = len(one.seeds_of(method))
    counted = f"{one.trials_of(method)}" + (f", mean of {seeds} fresh seeds" if seeds > 1 else "")
    return f"{_with_error(one.method_score(method), one.method_errors.get(method))} ({counted})"
