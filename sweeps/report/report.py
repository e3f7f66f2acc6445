"""Builds the report of a sweep for the terminal and as Markdown: tables, the price of the sweep, and the next commands.

Scores are percent here and fractions everywhere else.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import METHODS
from dpcore.durable import replace_file
from search_spaces.regimes import REGIMES, Regime
from sweeps.pricing.regimes import Basis, Pricing, basis_of, pricing_of
from sweeps.records.spec import DEFAULT_STORAGE
from sweeps.records.trial_id import epsilon_name
from sweeps.report.comparison import Comparison, compare, shown_runs, with_errors
from sweeps.report.disclosure import DISCLOSURE_NOTES, DisclosureRow, disclosure_rows, disclosure_table, read_policy
from sweeps.report.figures import DISCLOSURE_STEM, draw_comparison, draw_disclosure, save_figures
from sweeps.report.published.grid_table import GridTable, grid_table
from sweeps.report.text import number, percent, render_table
from sweeps.report.uncertainty import counts_of
from sweeps.search.stopping import stopping_lines
from sweeps.search.terms import terms_of

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec

STAND_IN = "stand-in data: ε as it would be"
SEALED = "a ceiling without privacy was run and sealed: no table, log or tracker has its score, and it costs nothing while it stays sealed"
UNSEALED = "the sealed ceiling was shown: a release without privacy, so the ε of this sweep and of its dataset is ∞"
HEADER = ["ε", "winner", "{metric} %", "fresh seeds", "spread", "spent ε", "floor", "control", "ceiling"]


@dataclass(frozen=True, kw_only=True)
class SweepPrice:
    """What choosing cost.

    Attributes:
        basis: The regime, with its filter or the law of its selection.
        composed_epsilon: ε of everything that the sweep reserved, at `delta`.
        private_trials: How many private trials are shown.
        protected: Whether the private data belongs to real people.
        validation: One sentence about the validation data and its price.
        sealed: Whether a ceiling without privacy was run and sealed.
        warm_start: For a warm start, a sentence about what the price does not include.
        epsilon_total: The sweep's own cap.
    """

    basis: Basis
    composed_epsilon: float
    private_trials: int
    delta: float
    protected: bool
    validation: str
    sealed: bool = False
    warm_start: str | None = None
    epsilon_total: float | None = None

    @property
    def regime(self) -> Regime:
        """How the sweep is accounted for."""
        return REGIMES.get(self.basis.accounting)

    @property
    def pricing(self) -> Pricing:
        """What the regime says."""
        return pricing_of(self.basis.accounting)

    def lines(self) -> list[str]:
        """The price in words."""
        spent = f"ε = {number(self.composed_epsilon)} at δ = {self.delta:.3g}"
        first, *beside = self.pricing.lines(self.basis, spent=spent, trials=self.private_trials)
        begun = [] if self.warm_start is None else [self.warm_start]
        if not self.regime.reads_private:
            return [first, *begun, *beside]
        promised = [] if self.basis.promise is None else [f"counted {self.basis.promise.text()}"]
        capped = [] if self.epsilon_total is None else [self.pricing.cap(self.basis, self.epsilon_total, self.delta)]
        lines = [first, *promised, self.pricing.accountants(self.basis), *capped, *beside, *begun, self.validation]
        if math.isinf(self.composed_epsilon):
            lines.append(UNSEALED)
        elif self.sealed:
            lines.append(SEALED)
        return lines if self.protected else [*lines, STAND_IN]

    def short(self) -> str:
        """The price for the middle of a sentence."""
        warning = self.pricing.warning
        return f"ε = {number(self.composed_epsilon)} ({self.basis.accounting})" if warning is None else warning

    def caption(self) -> str:
        """The caption that every curve over ε must have."""
        text = self.pricing.caption(self.basis, epsilon=number(self.composed_epsilon, 2), delta=self.delta)
        if not (self.regime.reads_private and self.regime.is_promise):
            return text
        text = text if self.warm_start is None else f"{text} {self.warm_start[0].upper()}{self.warm_start[1:]}."
        return text if self.protected else f"{text} {STAND_IN.capitalize()}."


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """A sweep's report, ready to print or to write."""

    name: str
    comparisons: tuple[Comparison, ...]
    price: SweepPrice
    next_commands: tuple[str, ...]
    stopped: tuple[str, ...] = ()
    disclosures: tuple[DisclosureRow, ...] = ()
    grid: GridTable | None = None
    metric: str = "PCKh@0.5"

    def _header(self) -> list[str]:
        return [title.format(metric=self.metric) for title in HEADER]

    def verdicts(self) -> tuple[str, ...]:
        """One sentence per ε: what the private winner gains, and whether that is worth its price."""
        return tuple(_verdict(one, self.price.short()) for one in self.comparisons)

    def text(self) -> str:
        """For the terminal."""
        warning = self.price.pricing.warning
        parts = [
            f"sweep {self.name}" + ("" if warning is None else f": {warning}"),
            render_table(self._header(), [_row(one) for one in self.comparisons]),
            render_table(*_methods_table(self.comparisons)),
            *([] if self.grid is None else [render_table(*self.grid.scores), render_table(*self.grid.bars), "\n".join(self.grid.notes)]),
            *([render_table(*disclosure_table(self.disclosures)), *self._warnings()] if self.disclosures else []),
            "\n".join(self.verdicts()),
            "\n".join([*self.price.lines(), *self.stopped]),
            "next:\n" + "\n".join(f"  {command}" for command in self.next_commands),
        ]
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """For report.md."""
        methods_header, methods_rows = _methods_table(self.comparisons)
        warning = self.price.pricing.warning
        headline = [] if warning is None else [f"**{warning}**", ""]
        lines = [f"# Sweep {self.name}", "", *headline, *_markdown_table(self._header(), [_row(one) for one in self.comparisons]), ""]
        lines += [f"![{self.metric} over ε](pckh_over_epsilon.svg)", "", f"*{self.price.caption()}*", ""]
        lines += ["## Best trial of each method", "", *_markdown_table(methods_header, methods_rows), ""]
        lines += self._grid_section()
        lines += self._disclosure_section()
        lines += [
            "## What it means",
            "",
            *[f"- {line}" for line in self.verdicts()],
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
        tables = [*_markdown_table(*self.grid.scores), "", *_markdown_table(*self.grid.bars)]
        return ["## Method, ε and clipping norm", "", *tables, "", *(f"- {note}" for note in self.grid.notes), ""]

    def _disclosure_section(self) -> list[str]:
        if not self.disclosures:
            return []
        table = _markdown_table(*disclosure_table(self.disclosures))
        figure = [f"![PCKh over disclosure]({DISCLOSURE_STEM}.svg)", ""]
        warnings = [f"- **{line}**" for line in self._warnings()]
        return ["## What the public views disclose", "", *table, "", *figure, *DISCLOSURE_NOTES, *warnings, ""]


NOTES = (
    "- *winner*: the best private trial. Its score is the best of many and so a little too high. *fresh seeds*: mean score of the "
    "same settings, trained again with fresh noise. *spread*: highest minus lowest of these scores. *±*: one standard error over "
    "validation people and, of the fresh seeds, over seeds.",
    "- *floor*: public data only, at no privacy cost: the higher of the public start and training on the winner's public "
    "views. *control*: the best feature-type run with its private part off. A private method is useful if "
    "it exceeds both. *ceiling*: no privacy. The verdict rests on a paired bootstrap over validation people and on the variance between "
    "seeds; it is not clear where the 95 % interval holds 0.",
    "- *spent ε* belongs to one trial, of a private selection's winner to the selection. The price belongs to the whole sweep. Never use "
    "one in place of the other. *What it means* names the accountant of each.",
)


def build_report(results: SweepResults, *, spec: SweepSpec) -> SweepReport:
    """Builds the report from the current results, which must be priced (`sweeps.pricing.plan.priced`)."""
    if results.composed_epsilon is None:
        raise RuntimeError(f"the results of {results.name} have no price yet")
    terms = terms_of(spec)
    price = SweepPrice(
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
    comparisons = compare(results, spec.space.sweep.epsilons)
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


def _next_commands(comparisons: Sequence[Comparison], spec: SweepSpec) -> tuple[str, ...]:
    won = [one.epsilon for one in comparisons if one.winner is not None]
    storage = "" if spec.storage == Path(DEFAULT_STORAGE).absolute() else f" --storage {shlex.quote(str(spec.storage))}"
    name = spec.name
    export = [f"dpsweep best {name} --epsilon {epsilon_name(won[0])} --out best.yaml{storage}", "dpsweep train best.yaml"] if won else []
    uri = spec.resolved_tracking_uri
    look = f"# MLflow: {uri}" if uri.startswith("http") else f"dpsweep ui{storage}"
    return (*export, f"dpsweep ledger {name} --verify{storage}", look)


def write_report(report: SweepReport, folder: Path) -> tuple[Path, ...]:
    """Writes report.md and the figures into `folder`, replaces older ones, and returns the paths of the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw_comparison(report.comparisons, title=f"sweep {report.name}", caption=report.price.caption(), metric=report.metric)
    figures = save_figures(figure, folder)
    replace_file(folder / "report.md", report.markdown().encode())
    return figures if not report.disclosures else (*figures, *_save_disclosure(report, folder))


def _save_disclosure(report: SweepReport, folder: Path) -> tuple[Path, ...]:
    without_view = [
        record.score
        for one in report.comparisons
        for method, record in one.by_method.items()
        if METHODS.get(method).is_private and not METHODS.get(method).uses_views and record.split is None
    ]
    bars = {
        "best private trial without views": max((score for score in without_view if score is not None), default=None),
        "ceiling: no privacy": next((one.ceiling for one in report.comparisons), None),
    }
    tested = report.disclosures[0].disclosure
    caption = f"Disclosure on {tested.tested_on} PUBLIC people, best of {len(tested.readings)} attackers per split: a lower bound."
    title = f"sweep {report.name}: accuracy against disclosure"
    figure = draw_disclosure(report.disclosures, bars, title=title, caption=caption, metric=report.metric)
    return save_figures(figure, folder, stem=DISCLOSURE_STEM)


def _row(one: Comparison) -> list[str]:
    winner = one.winner
    return [
        f"{one.epsilon:g}",
        "–" if winner is None else winner.config.method,
        _with_error(None if winner is None else winner.score, one.errors.get("winner")),
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
    methods = list(dict.fromkeys(method for one in comparisons for method in one.by_method))
    header = ["best trial of", "", *[f"ε = {one.epsilon:g}" for one in comparisons]]
    rows = [
        [method, "", *[percent(one.by_method[method].score if method in one.by_method else None) for one in comparisons]]
        for method in sorted(methods)
    ]
    return header, rows


def _verdict(one: Comparison, price: str) -> str:
    where = f"ε = {one.epsilon:g}:"
    if one.winner is None:
        return f"{where} no private trial is done"
    if one.gain is None:
        return f"{where} no fresh seeds or no floor to compare with"
    bar = "the higher of floor and control"
    if one.interval is None:
        spread = "" if one.seed_spread is None else f" ({100 * one.seed_spread:.1f} points between seeds)"
        why = "it takes two fresh seeds" if one.seed_spread is None else "how it varies between validation people is not known"
        return f"{where} {100 * one.gain:+.1f} points against {bar}{spread} at a price of {price}: not clear, {why}"
    found = one.interval
    points = (
        f"{100 * found.mean:+.1f} ± {100 * found.stderr:.1f} points against {bar} (95 %: {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    )
    worth = "worth its price" if found.low > 0 else "not worth its price" if found.high < 0 else "not clear whether worth its price"
    return f"{where} {points} at a price of {price}: {worth}"


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    kept = [column for column, title in enumerate(header) if title]
    lines = [[header[column] for column in kept], ["---"] * len(kept), *[[row[column] for column in kept] for row in rows]]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
