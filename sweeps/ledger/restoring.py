"""Brings a lost, damaged or older SQLite ledger back to what its witnesses remember."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dpcore.durable import OWNER_ONLY, write_new_file
from dpcore.errors import BadInput, Corrupt
from sweeps.ledger.database import file_of, is_blank, shown
from sweeps.ledger.findings import chain_findings
from sweeps.ledger.lines import LedgerLine
from sweeps.ledger.stores.sql_store import SqlStore
from sweeps.ledger.stores.sqlite_look import SqliteLook
from sweeps.ledger.witness import Witness, lost_lines

DAMAGED_SUFFIX = ".damaged"


def restore(url: str, witnesses: Sequence[Path]) -> int:
    """Writes the lines that a ledger has lost at its end back from its witnesses. A damaged file is kept under another name.

    Returns:
        How many lines were written.

    Raises:
        BadInput: the ledger is no SQLite file. Corrupt: the witnesses do not hold every lost line whole, or another ledger's.
    """
    file = file_of(url)
    if file is None:
        raise BadInput(f"{shown(url)} is a server's database: bring it back from the server's own copies")
    beside = file.with_name(f"{file.name}.witness")
    asked = [Witness(path, sees_all=False) for path in dict.fromkeys((beside, *witnesses))]
    there = _sound_lines(url, file)
    lost = lost_lines(asked, there or ())
    broken = [*chain_findings([*(there or ()), *lost])]
    if broken:
        raise Corrupt(f"the witnesses do not go on from what is there: {broken[0]}; bring back a copy of the ledger")
    if there is None:
        _set_aside(file)
    if not file.exists():
        write_new_file(file, b"", mode=OWNER_ONLY)
    store = SqlStore(url)
    with store.writing() as table:
        for line in lost:
            table.add(line)
    store.close()
    return len(lost)


def _sound_lines(url: str, file: Path) -> tuple[LedgerLine, ...] | None:
    """The lines of the file; none where it is not there, None where its pages are damaged."""
    if not file.is_file():
        return ()
    if is_blank(file):
        return ()
    try:
        store = SqliteLook(url, file)
    except Corrupt:  # its pages do not read at all, which is what this is for
        return None
    if store.damage():
        return None
    with store.looking() as table:
        return table.lines()


def _set_aside(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if path.exists():
            os.replace(path, path.with_name(f"{path.name}{DAMAGED_SUFFIX}"))
