"""The HTML page of a report: everything in one file, with figures as SVG in it. It asks no network for anything.

It renders the same object as report.md and the terminal, and computes nothing of its own. What it may show of protected data is what the
report's records hold: they passed the door of the driver, and no metric is taken from them but scores and ε spent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from sweeps.records.export import render_yaml
from sweeps.records.trial_id import epsilon_name
from sweeps.report.comparison import DOTS_DIFFER, Comparison, best_without_views
from sweeps.report.details.answers import EpsilonAnswer
from sweeps.report.details.deployment import deployment_record
from sweeps.report.details.price import STAND_IN
from sweeps.report.disclosure import disclosure_table
from sweeps.report.page import curves_figure, score_figures, search_figures, svg
from sweeps.report.page.looks import look_of
from sweeps.report.page.runs import heat_cells, run_table, titled, told_of_runs
from sweeps.report.page.strip_figure import draw_strip
from sweeps.report.text import number

if TYPE_CHECKING:
    from sweeps.report.details.details import ReportDetails, SearchAt
    from sweeps.report.page.pictures import CropSheet
    from sweeps.report.report import SweepReport

VERDICTS = {
    "worth it": ("worth", "✓"),
    "not worth it": ("not", "✗"),
    "within noise": ("unclear", "≈"),
    "not clear": ("unclear", "?"),
    "nothing done": ("nothing", "–"),
}


def render_page(report: SweepReport, *, pictures: Sequence[CropSheet] = (), private_pictures: bool = False) -> str:
    """The page.

    Args:
        report: with its details (`sweeps.report.report.with_details`).
        pictures: crops with skeletons, one sheet per ε.
        private_pictures: whether they show private pictures: the page then says so on top.
    """
    details = report.details
    if details is None:
        raise RuntimeError("a page needs a report with details: call with_details first")
    shown = sum(len(one.cells) for one in pictures) if private_pictures else 0
    facts = {
        **_head(report, shown),
        **_answers(report, details),
        **_curves(report, details),
        **_disclosure(report),
        **_search(report, details),
        **_winners(report, details),
        **_statement(report, details),
        "pictures": [{**vars(one), "epsilon": f"{one.epsilon:g}", "cells": [_cell(cell) for cell in one.cells]} for one in pictures],
    }
    template = _environment().get_template("report.html.j2")
    return template.render(**facts, sections=_sections(facts), report=report)


def deployment_files(report: SweepReport) -> dict[str, str]:
    """File name → the record of each winner for the deployments registry, as YAML."""
    if report.details is None:
        return {}
    claims = report.details.statement.claims
    return {_record_file(one.epsilon): render_yaml(deployment_record(report.name, one, report.price)) for one in claims}


def _record_file(epsilon: float) -> str:
    return f"deployment_eps_{epsilon_name(epsilon)}.yaml"


@cache
def _environment() -> Environment:
    loader = PackageLoader("sweeps.report.page", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["said"] = _said
    made.globals["table"] = made.get_template("macros.html.j2").module.table  # type: ignore[attr-defined]
    return made


def _said(text: str) -> Markup:
    """A sentence of ours as HTML: its first Latin letter is capital, and what stands between backticks is code."""
    word = text.partition(" ")[0].rstrip(",:;.")
    is_word = word.isascii() and word.replace("-", "").isalpha() and word.islower()  # neither an ε nor a trial's name
    begun = text[:1].upper() + text[1:] if is_word else text
    parts = begun.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def _asset(name: str) -> Markup:
    loader = _environment().loader
    if loader is None:
        raise RuntimeError("the templates have no loader")
    return Markup(loader.get_source(_environment(), name)[0])


def _head(report: SweepReport, shown: int) -> dict[str, Any]:
    price = report.price
    return {
        "version": version("dpsweep"),
        "style": _asset("style.css"),
        "script": _asset("script.js"),
        "symbols": Markup(svg.symbols()),
        "warning": price.pricing.warning,
        "stand_in": STAND_IN if price.regime.reads_private and not price.protected else None,
        "protected": price.protected and not shown,
        "private_pictures": shown,
        "headline": _headline(report),
        "stopped": report.stopped,
    }


def _headline(report: SweepReport) -> list[tuple[str, str]]:
    """(figure, what it is) for the top of the page."""
    details, price = report.details, report.price
    if details is None:
        return []
    trials = [one for search in details.searches for one in search.trials]
    methods = curves_figure.present_methods(details)
    promised = f"ε = {number(price.composed_epsilon)}" if price.regime.reads_private and price.regime.is_promise else "–"
    costs = {True: (promised, f"price of everything ({price.basis.accounting})"), False: ("ε = 0", "price of choosing (public data alone)")}
    found = [] if details.is_sealed else [(str(len(trials)), "trials"), (str(len(methods)), f"method{'s' * (len(methods) != 1)}")]
    found.append((", ".join(f"{one.epsilon:g}" for one in details.searches), "ε searched"))
    return [*found, costs[price.regime.reads_private], (f"{price.delta:.3g}", "δ")]


def _answers(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    scores = curves_figure.score_range(report.comparisons)
    return {
        "answers": [_answer(one, scores) for one in report.answers],
        "price_lines": report.price.lines(),
        "regimes": [
            {
                "accounting": one.accounting,
                "own": one.accounting == report.price.basis.accounting,
                "epsilon": "–" if one.epsilon is None else number(one.epsilon),
                "basis": one.basis,
            }
            for one in details.regimes
        ],
        "finals": ", ".join(
            f"{number(final)} at ε = {one.epsilon:g}" for final, one in zip(details.finals, details.searches, strict=False)
        ),
    }


def _answer(one: EpsilonAnswer, scores: tuple[float, float]) -> dict[str, Any]:
    kind, sign = VERDICTS[one.verdict]
    winner = one.comparison.winner
    return {
        "epsilon": f"{one.comparison.epsilon:g}",
        "method": "" if winner is None else one.method,
        "icon": "" if winner is None else _icon(winner.config.method),
        "kind": kind,
        "sign": sign,
        "verdict": one.verdict,
        "headline": one.headline(),
        "methods": one.method_lines(),
        "sentence": one.sentence(),
        "strip": Markup(draw_strip(one.comparison, scores=scores, metric=one.metric)),
    }


def _icon(method: str) -> Markup:
    look = look_of(method)
    shown = svg.mark(look.marker, 0, 0, colour=look.colour, kind="dot key")
    return Markup(f'<svg class="icon" viewBox="-7 -7 14 14" aria-hidden="true">{shown}</svg>')


def _curves(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    panels = curves_figure.draw_panels(details, report.comparisons, metric=report.metric)
    k = details.common_trials
    joined = f"what {k} trials of a method are expected to find" if k > 1 else "the mean of a method's trials"
    note = (
        f"Lines join {joined}: of equally many trials everywhere, because the best of many is higher than the best of few. Stars are the "
        "winners' fresh seeds with one standard error. Every dot is a trial; dots of one ε lie beside each other to be told apart."
    )
    if any(one.dots_differ for one in report.comparisons):
        note += f" {DOTS_DIFFER}."
    return {
        "overview": Markup(curves_figure.draw_overview(details, report.comparisons, metric=report.metric)),
        "overview_note": "" if details.is_sealed or k < 1 else note,
        "panels": [(look, Markup(panel)) for look, panel in panels],
        "icons": {look_of(name).name: _icon(name) for name in curves_figure.present_methods(details)},
        "caption": report.price.caption(),
        "has_errors": any(one.method_errors for one in report.comparisons),
        **_clip_norms(report, details),
    }


def _clip_norms(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    grid = report.grid
    shown = None if grid is None else {"scores": titled(grid.scores), "bars": titled(grid.bars), "notes": grid.notes}
    return {"grid": shown, "clip_table": None if details.clip_norms is None else heat_cells(details.clip_norms)}


def _disclosure(report: SweepReport) -> dict[str, Any]:
    rows = report.disclosures
    if not rows:
        return {"disclosure_figure": None, "disclosure_table": None, "disclosure_note": "", "disclosure_warnings": []}
    found = score_figures.draw_disclosure_figure(rows, best_without_views(report.comparisons), metric=report.metric)
    tested = rows[0].disclosure
    note = f"Disclosure is measured on {tested.tested_on} PUBLIC people, best of {len(tested.readings)} attackers per split: a lower bound."
    return {
        "disclosure_figure": None if found is None else Markup(found),
        "disclosure_table": titled(disclosure_table(rows)),
        "disclosure_note": note,
        "disclosure_warnings": [f"{one.name}: {one.disclosure.warning}" for one in rows if one.disclosure.warning is not None],
    }


def _search(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    by_epsilon = {one.epsilon: one for one in report.comparisons}
    return {
        "searches": [_search_at(one, by_epsilon[one.epsilon], report.metric, sealed=details.is_sealed) for one in details.searches],
        "sealed": details.is_sealed,
        "trials": None if details.is_sealed else run_table(report, details),
        "told": Markup(json.dumps(told_of_runs(report, details), ensure_ascii=False).replace("<", "\\u003c")),
    }


def _search_at(one: SearchAt, comparison: Comparison, metric: str, *, sealed: bool) -> dict[str, Any]:
    states = [shown.record.state for shown in one.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    figures = {
        "parallel": None if sealed else search_figures.draw_parallel(one, metric=metric),
        "importances": None if sealed else search_figures.draw_importances(one.importances),
        "learning": search_figures.draw_learning(one, comparison, metric=metric),
    }
    drawn = {name: None if figure is None else Markup(figure) for name, figure in figures.items()}
    return {"epsilon": f"{one.epsilon:g}", "counts": counts, "no_importances": one.importances.missing, **drawn}


def _winners(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    return {
        "won": [f"{one.epsilon:g}" for one in report.comparisons if one.winner is not None],
        "differences": [{"label": one.label, "differs": one.differs, "shown": one.values} for one in details.differences],
        "agreed": ", ".join(f"{one.label} {one.values[0]}" for one in details.differences if not one.differs and one.values[0] != "–"),
        "joints": [
            {
                "epsilon": f"{one.epsilon:g}",
                "who": f"mean of {one.seeds} fresh seeds" if one.seeds > 1 else "fresh seed" if one.seeds else "best trial",
                "figure": Markup(score_figures.draw_joints(one)),
            }
            for one in details.joints
        ],
    }


def _statement(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    statement, records = details.statement, deployment_files(report)
    parts = dict.fromkeys(row.part for row in statement.rows)
    return {
        "statement": [(part, [row for row in statement.rows if row.part == part]) for part in parts],
        "statement_missing": statement.missing,
        "claims": [
            {
                "epsilon": f"{one.epsilon:g}",
                "trial_id": one.trial_id,
                "headline": one.claim.headline(),
                "paragraph": one.claim.paragraph(),
                "file": _record_file(one.epsilon),
                "record": records[_record_file(one.epsilon)],
            }
            for one in statement.claims
        ],
    }


def _cell(cell: Any) -> dict[str, Any]:
    return {"svg": Markup(cell.svg), "hits": cell.hits}


def _sections(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What the page has, for its contents."""
    every = [
        ("answers", "Answer", True),
        ("price", "Price", True),
        ("curves", "Privacy and accuracy", True),
        ("disclosure", "Disclosure", facts["disclosure_figure"]),
        ("clipping", "Clipping norm", facts["clip_table"] or facts["grid"]),
        ("search", "Search", True),
        ("winners", "Winners", facts["differences"]),
        ("joints", "Joints", facts["joints"]),
        ("pictures", "Pictures", facts["pictures"]),
        ("trials", "All runs", facts["trials"]),
        ("statement", "Privacy statement", True),
        ("next", "Next", True),
    ]
    return [(name, title) for name, title, there in every if there]
