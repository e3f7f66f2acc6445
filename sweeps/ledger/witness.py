"""A second memory of a ledger: the number and hash of each line that was written, in a file of its own.

A chain of hashes shows a changed or dropped line as long as another one follows it. It cannot show that its end was cut
off, nor that the whole of it was written anew, nor that a database came back from an old copy. The witness does.
Not covered: whoever changes ledger and witness alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sweeps.ledger.lines import GENESIS, LedgerLine


class Witness:
    """An append-only text file, `number hash` a line; safe for several processes (short appends are whole).

    Args:
        path: the file; made on the first line.
        sees_all: whether every writer of the ledger writes here, so that its absence is a finding.
    """

    def __init__(self, path: Path, *, sees_all: bool) -> None:
        self._path = path
        self._sees_all = sees_all

    def remember(self, line: LedgerLine) -> None:
        """Adds a line, after it was committed: a crash in between leaves a line unwitnessed, never a false alarm."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a full disk
            file.write((b"\n" if cut else b"") + f"{line.number} {line.hash}\n".encode())
            os.fsync(descriptor)

    def begin(self) -> None:
        """Makes the file, before the first line is committed: a crash in between is no loss of the witness."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    def findings(self, lines: Sequence[LedgerLine]) -> list[str]:
        """What the ledger once held and holds no longer."""
        if not self._path.is_file():
            lost = f"{self._path} is missing: whether lines are missing at the end of the ledger cannot be told"
            return [lost] if lines and self._sees_all else []
        hashes = {line.number: line.hash for line in lines}
        whole = [f"{line.number} {line.hash}" for line in lines]
        found = []
        for text in self._path.read_text().splitlines():
            number, _, remembered = text.partition(" ")
            if text and len(remembered) < len(GENESIS) and any(line.startswith(text) for line in whole):
                continue  # a full disk cut it short: it witnesses nothing
            if not number.isdigit():
                found.append(f"{self._path}: {text!r} is no line of a witness")
            elif int(number) not in hashes:
                found.append(f"line {number}: it was written once ({self._path.name} remembers it) and is not there: lines were removed")
            elif hashes[int(number)] != remembered:
                found.append(f"line {number}: {self._path.name} remembers another hash: the ledger was written anew")
        return found
