"""The tables of the page: all runs, and method × ε × clipping norm as shades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.records.results import TrialRecord
from sweeps.report.details.clip_table import ClipTable
from sweeps.report.details.details import ReportDetails
from sweeps.report.details.settings import text_of
from sweeps.report.page.looks import look_of, told, told_score
from sweeps.report.text import number, percent

if TYPE_CHECKING:
    from sweeps.report.report import SweepReport

SHADES = (
    ("#f7fbff", "#1b1f24"),
    ("#d6e6f2", "#1b1f24"),
    ("#a6cbe3", "#1b1f24"),
    ("#5b9fc9", "#1b1f24"),
    ("#0072b2", "#ffffff"),
    ("#08406b", "#ffffff"),
)
"""(ground, ink) from low to high: one hue in falling brightness, with text of enough contrast on each."""
METHOD = "method"


def titled(table: tuple[list[str], list[list[str]]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that have no title: they are room on a terminal."""
    header, rows = table
    kept = [column for column, title in enumerate(header) if title]
    return [header[column] for column in kept], [[row[column] for column in kept] for row in rows]


def heat_cells(table: ClipTable) -> dict[str, Any]:
    """Cells with a shade by their score; empty ones are white."""
    scores = [cell.best for row in table.rows for cell in row.cells if cell.best is not None]
    low, high = min(scores), max(scores)
    rows, before = [], ""
    for row in table.rows:
        cells = []
        for cell in row.cells:
            share = 0.0 if cell.best is None or high == low else (cell.best - low) / (high - low)
            ground, ink = SHADES[round(share * (len(SHADES) - 1))] if cell.best is not None else ("#ffffff", "#57606a")
            cells.append({"score": percent(cell.best), "trials": cell.trials, "colour": ground, "ink": ink})
        rows.append({"method": row.method, "clip_norm": row.clip_norm, "cells": cells, "first": row.method != before})
        before = row.method
    return {"epsilons": [f"{epsilon:g}" for epsilon in table.epsilons], "rows": rows}


def run_table(report: SweepReport, details: ReportDetails) -> dict[str, Any]:
    """Header and cells of all runs: the search with what was drawn, then the runs beside it."""
    labels = list(dict.fromkeys(one.label for search in details.searches for one in search.settings if one.path != METHOD))
    header = ["trial", "ε", "method", "state", f"{report.metric} %", "spent ε", *labels]
    rows = []
    for search in details.searches:
        for one in search.trials:
            drawn = {setting.label: text_of(one.drawn[setting.path]) for setting in search.settings if setting.path in one.drawn}
            rows.append([*_run(one.record), *(drawn.get(label, "–") for label in labels)])
    rows += [[*_run(record), *("–" for _ in labels)] for record in _beside(report)]
    return {"header": header, "rows": rows}


def told_of_runs(report: SweepReport, details: ReportDetails) -> dict[str, str]:
    """Trial id → what its marks say when they are pointed at."""
    found = {record.trial_id: f"{look_of(record.config.method).name}\n{told_score(record)}" for record in _beside(report)}
    for search in details.searches:
        for one in search.trials:
            found[one.record.trial_id] = f"{look_of(one.record.config.method).name}\n{told(one, search.settings)}"
    return found


def _beside(report: SweepReport) -> list[TrialRecord]:
    """The runs beside the search that the report shows, each once."""
    shown: dict[str, TrialRecord] = {}
    for one in report.comparisons:
        for record in (*one.seeds, one.floor_run, one.control_run, one.ceiling_run):
            if record is not None:
                shown.setdefault(record.trial_id, record)
    return list(shown.values())


def _run(record: TrialRecord) -> list[str]:
    epsilon = "–" if record.epsilon is None else f"{record.epsilon:g}"
    spent = "∞" if record.config.traits.is_unbounded else "–" if record.epsilon_spent is None else number(record.epsilon_spent)
    return [record.trial_id, epsilon, look_of(record.config.method).name, record.state, percent(record.score), spent]
