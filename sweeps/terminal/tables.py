"""Tables for people. On a terminal they keep within its width: cells wrap between words, and no word is broken."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from sweeps.terminal.lines import width_of

GAP = "  "
TO_THE_LEFT = 2
"""So many columns are aligned to the left, the others to the right."""


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """A plain table. The first two columns are aligned to the left, the others to the right.

    ```
    ε     method   PCKh@0.5
    0.80  feature      61.3
    ```

    Args:
        header: of the columns. One that is empty, over empty cells alone, is left out.
        rows: as many cells each.
        width: in columns of a terminal; None: that of stdout, and no limit where that is no terminal.
    """
    limit = width_of(sys.stdout) if width is None else width
    lines = [list(row) for row in (header, *rows)]
    plain = _plain(lines)
    if limit is None or max(map(len, plain.splitlines()), default=0) <= limit:
        return plain
    return _within(lines, limit)


def _plain(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    shown = []
    for row in lines:
        cells = [
            cell.ljust(room) if column < TO_THE_LEFT else cell.rjust(room)
            for column, (cell, room) in enumerate(zip(row, widths, strict=True))
        ]
        shown.append(GAP.join(cells).rstrip())
    return "\n".join(shown)


def _within(lines: Sequence[Sequence[str]], limit: int) -> str:
    """The table with wrapped cells. A row whose words alone are wider than the terminal becomes a block of `title  cell` lines."""
    columns = [column for column in range(len(lines[0])) if any(row[column] for row in lines)]
    least = {column: max((len(word) for row in lines for word in row[column].split()), default=1) for column in columns}
    if sum(least.values()) + len(GAP) * (len(columns) - 1) > limit:
        return _blocks([[row[column] for column in columns] for row in lines])
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), show_header=True, header_style="")
    for column in columns:
        table.add_column(
            lines[0][column], justify="left" if column < TO_THE_LEFT else "right", min_width=least[column], overflow="fold", vertical="top"
        )
    for row in lines[1:]:
        table.add_row(*[row[column] for column in columns])
    written = io.StringIO()
    console = Console(file=written, width=limit, color_system=None, markup=False, highlight=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _blocks(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = lines
    room = max(map(len, header))
    return "\n\n".join(
        "\n".join(f"{title.ljust(room)}{GAP}{cell}".rstrip() for title, cell in zip(header, row, strict=True)) for row in rows
    )
