"""Writes a report: report.html, report.md, figures as PNG and SVG, tables as CSV and Parquet, and the registry's records.

Equal results give equal files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.durable import OWNER_ONLY, replace_file
from sweeps.report.comparison import best_without_views
from sweeps.report.figures import DISCLOSURE_STEM, draw_comparison, draw_disclosure, save_figures
from sweeps.report.page.page import deployment_files, render_page
from sweeps.report.page.pictures import CropSheet, draw_pictures

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec
    from sweeps.report.report import SweepReport

PAGE, MARKDOWN, PRIVATE_PAGE = "report.html", "report.md", "report_with_private_pictures.html"
INSIDE = ("config", "error")
"""Columns of the results that are not in a report's tables: the settings stand in columns of their own, and an error may quote a record."""


def write_report(
    report: SweepReport, folder: Path, *, results: SweepResults | None = None, pictures: Sequence[CropSheet] = ()
) -> tuple[Path, ...]:
    """Writes all files of a report into `folder`, replaces older ones, and returns the paths of the figures.

    Args:
        report: with its details; without them there is no page.
        folder: made where it is missing.
        results: for the tables; None: none.
        pictures: for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw_comparison(report.comparisons, title=f"sweep {report.name}", caption=report.price.caption(), metric=report.metric)
    figures = save_figures(figure, folder)
    if report.disclosures:
        figures = (*figures, *_save_disclosure(report, folder))
    replace_file(folder / MARKDOWN, report.markdown().encode())
    if report.details is not None:
        replace_file(folder / PAGE, render_page(report, pictures=pictures).encode())
        for name, text in deployment_files(report).items():
            replace_file(folder / name, text.encode())
    if results is not None:
        _write_tables(results, folder)
    return figures


def write_private_page(report: SweepReport, spec: SweepSpec, folder: Path) -> Path:
    """Writes a page that shows private pictures, for its owner alone, into a folder of mode 0700.

    It leaves by no bucket, tracker or package: it lies where sealed things lie. The ledger is not charged, because the owner of the data
    looks at the data. Whoever is given this page sees the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sheets = draw_pictures(report.comparisons, spec, private=True)
    replace_file(folder / PRIVATE_PAGE, render_page(report, pictures=sheets, private_pictures=True).encode(), mode=OWNER_ONLY)
    return folder / PRIVATE_PAGE


def _write_tables(results: SweepResults, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table: Any = results.trial_table()
    table = table.drop_columns([name for name in INSIDE if name in table.column_names])
    for name, write in (("trials.csv", pyarrow.csv.write_csv), ("trials.parquet", pyarrow.parquet.write_table)):
        sink = pa.BufferOutputStream()
        write(table, sink)
        replace_file(folder / name, sink.getvalue().to_pybytes())


def _save_disclosure(report: SweepReport, folder: Path) -> tuple[Path, ...]:
    tested = report.disclosures[0].disclosure
    caption = f"Disclosure on {tested.tested_on} PUBLIC people, best of {len(tested.readings)} attackers per split: a lower bound."
    title = f"sweep {report.name}: accuracy against disclosure"
    bars = best_without_views(report.comparisons)
    figure = draw_disclosure(report.disclosures, bars, title=title, caption=caption, metric=report.metric)
    return save_figures(figure, folder, stem=DISCLOSURE_STEM)
