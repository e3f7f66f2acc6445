"""The details of a report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps.report.text import number, percent

if TYPE_CHECKING:
    from sweeps.report.comparison import Comparison
    from sweeps.report.details.clip_table import ClipCell
    from sweeps.report.details.details import ReportDetails
    from sweeps.report.details.importance import Importances


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without the columns that have no title."""
    kept = [column for column, title in enumerate(header) if title]
    lines = [[header[column] for column in kept], ["---"] * len(kept), *[[row[column] for column in kept] for row in rows]]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def detail_sections(details: ReportDetails, comparisons: Sequence[Comparison]) -> list[str]:
    """All sections, each with its heading and an empty line at its end."""
    won = [f"ε = {one.epsilon:g}" for one in comparisons if one.winner is not None]
    lines: list[str] = []
    if details.clip_norms is not None:
        table = details.clip_norms
        header = ["method", "C", *(f"ε = {epsilon:g}" for epsilon in table.epsilons)]
        rows = [[row.method, row.clip_norm, *map(clip_cell, row.cells)] for row in table.rows]
        lines += ["## Method, clipping norm and ε: best score % (trials)", "", *markdown_table(header, rows), ""]
    if details.differences:
        rows = [[one.label, *one.values] for one in details.differences if one.differs]
        same = ", ".join(f"{one.label} {one.values[0]}" for one in details.differences if not one.differs)
        agreed = [f"All winners have: {same}.", ""] if same else []
        lines += ["## In what the winners differ", "", *markdown_table(["setting", *won], rows), "", *agreed]
    if not details.is_sealed:
        lines += ["## Which settings decide", "", *[_importance_line(search.importances) for search in details.searches], ""]
    if details.joints:
        names = dict.fromkeys(joint.joint for one in details.joints for joint in one.joints)
        scores = [{joint.joint: joint.winner for joint in one.joints} for one in details.joints]
        rows = [[name, *(percent(score.get(name)) for score in scores)] for name in names]
        header = ["joint", *(f"ε = {one.epsilon:g}" for one in details.joints)]
        lines += ["## PCKh@0.5 of each joint, winner %", "", *markdown_table(header, rows), ""]
    if details.regimes:
        rows = [[one.accounting, "–" if one.epsilon is None else number(one.epsilon), one.basis] for one in details.regimes]
        lines += ["## The planned price under each regime", "", *markdown_table(["accounting", "sweep ε", "what it rests on"], rows), ""]
    statement = details.statement
    rows = [[row.part, row.question, row.answer] for row in statement.rows]
    lines += ["## Privacy statement", "", *markdown_table(["SP 800-226", "question", "answer"], rows), ""]
    lines += [f"- ε = {one.epsilon:g}, {one.trial_id}: {one.claim.paragraph()}" for one in statement.claims]
    return [*lines, *([f"- {statement.missing}"] if statement.missing else []), ""]


def _importance_line(found: Importances) -> str:
    """The share of each setting, or why there is none."""
    shares = ", ".join(f"{label} {percent(share, 0)} %" for label, share in found.shares.items())
    return f"- importance at ε = {found.epsilon:g}{f' ({found.trials} trials)' if shares else ''}: {shares or found.missing}"


def clip_cell(cell: ClipCell) -> str:
    """The best score in percent with the number of trials behind it."""
    return "–" if cell.best is None else f"{percent(cell.best)} ({cell.trials})"
