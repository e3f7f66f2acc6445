"""A second memory of a ledger: each line that was written, with its number and hash, in a file of its own.

A chain of hashes shows a changed or dropped line as long as another one follows it. It cannot show that its end was cut
off, nor that the whole of it was written anew, nor that a database came back from an old copy. The witness does, and what a
ledger has lost can be written back from it. Not covered: whoever changes ledger and witness alike.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpcore.durable import OWNER_ONLY
from dpcore.errors import Corrupt
from sweeps.ledger.lines import KnownLines, LedgerLine

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """One line as a witness knows it. `content`: the line as JSON; empty from a version that wrote down the hash alone."""

    number: int
    hash: str
    content: str

    @property
    def is_whole(self) -> bool:
        """Whether its content was written to its end."""
        return self.content.endswith("}")

    @property
    def line(self) -> LedgerLine | None:
        """The line itself; None where only its hash is known, or a full disk cut it short."""
        try:
            line = LedgerLine(**json.loads(self.content), hash=self.hash)
        except (ValueError, TypeError):
            return None
        return line if line.computed_hash() == self.hash else None


class Witness:
    """An append-only text file, `number hash content` a line; safe for several processes (short appends are whole).

    Args:
        path: the file; made on the first line.
        sees_all: whether every writer of the ledger writes here, so that its absence is a finding.
    """

    def __init__(self, path: Path, *, sees_all: bool) -> None:
        self.path = path
        self.sees_all = sees_all
        self._read_to = 0
        self._known: dict[int, Remembered] = {}
        self._foreign: list[str] = []
        self._unchecked: list[Remembered] = []
        self._generation = -1
        self._caught_up = 0

    @property
    def count(self) -> int:
        """How many lines it remembered when it was last read."""
        return len(self._known)

    def read(self) -> Mapping[int, Remembered]:
        """What it remembers, by number. Only what was added since the last call is read.

        Ask it before the ledger: a line is committed first and remembered then, so a ledger that is read later has it.
        """
        if not self.path.is_file() or self.path.stat().st_size < self._read_to:
            self._read_to, self._known, self._foreign, self._generation, self._caught_up = 0, {}, [], -1, 0
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for text in whole.decode(errors="replace").splitlines():
                self._take(text)
        return self._known

    def _take(self, text: str) -> None:
        number, _, rest = text.partition(" ")
        hash_text, _, content = rest.partition(" ")
        if number.isdigit() and _HASH.fullmatch(hash_text):
            one = self._known[int(number)] = Remembered(number=int(number), hash=hash_text, content=content)
            self._unchecked.append(one)
        elif text:
            self._foreign.append(text)

    def remember(self, *lines: LedgerLine) -> None:
        """Adds lines, after they were committed: a crash in between leaves a line unwitnessed, never a false alarm."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OWNER_ONLY)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a full disk
            text = "".join(f"{line.number} {line.hash} {line.content()}\n" for line in lines)
            file.write((b"\n" if cut else b"") + text.encode())
            os.fsync(descriptor)

    def begin(self) -> None:
        """Makes the file, before the first line is committed: a crash in between is no loss of the witness."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(mode=OWNER_ONLY)

    def unwritten(self, lines: Sequence[LedgerLine]) -> list[LedgerLine]:
        """Lines of the ledger that stand here not at all, or without their content. Ask after `read`; `lines` only grows."""
        new, self._caught_up = lines[self._caught_up :], len(lines)
        return [line for line in new if not (known := self._known.get(line.number)) or (known.hash == line.hash and not known.is_whole)]

    def disagrees(self, known: KnownLines) -> bool:
        """Whether `findings` would find something. What was held against the lines once is not looked at again."""
        if self._generation != known.generation:
            self._generation, self._unchecked = known.generation, list(self._known.values())
        unchecked, self._unchecked = self._unchecked, []
        lost = self.sees_all and known.last is not None and not self.path.is_file()
        wrong = any(known.hashes.get(one.number) != one.hash for one in unchecked)
        self._unchecked = unchecked if wrong else []
        return lost or wrong or bool(self._foreign)

    def findings(self, lines: Sequence[LedgerLine]) -> list[str]:
        """What the ledger once held and holds no longer. Ask after `read`; `lines` must have been read later than that."""
        if not self.path.is_file():
            lost = f"{self.path} is missing: whether lines are missing at the end of the ledger cannot be told"
            return [lost] if lines and self.sees_all else []
        hashes = {line.number: line.hash for line in lines}
        whole = [f"{line.number} {line.hash}" for line in lines]
        cut = [text for text in self._foreign if not any(line.startswith(text) for line in whole)]  # a full disk: it witnesses nothing
        found = [f"{self.path}: {text[:80]!r} is no line of a witness" for text in cut]
        for one in self._known.values():
            if one.number not in hashes:
                found.append(f"line {one.number}: it was written once ({self.path.name} remembers it) and is not there: lines were removed")
            elif hashes[one.number] != one.hash:
                found.append(f"line {one.number}: {self.path.name} remembers another hash: the ledger was written anew")
        return found


def lost_lines(witnesses: Iterable[Witness], there: Sequence[LedgerLine]) -> list[LedgerLine]:
    """The lines behind the end of what is there, as the witnesses remember them, in order.

    Raises:
        Corrupt: what is there is not the beginning of what they remember, or a line's content is not known.
    """
    known: dict[int, Remembered] = {}
    for witness in witnesses:
        for number, one in witness.read().items():
            before = known.get(number)
            if before is not None and before.hash != one.hash:
                raise Corrupt(f"line {number}: {witness.path} remembers another hash than a witness beside it; keep both and ask who wrote")
            known[number] = one if before is None or not before.is_whole else before
    for line in there:
        if line.number in known and known[line.number].hash != line.hash:
            raise Corrupt(f"line {line.number} is not the line that was witnessed: the ledger was written anew; bring back a copy of it")
    last = there[-1].number if there else 0
    found = []
    for number in range(last + 1, max(known, default=0) + 1):
        content = known[number].line if number in known else None
        if content is None:
            raise Corrupt(f"line {number} is not whole in any witness (0.1.0 wrote its hash alone): bring back a copy of the ledger")
        found.append(content)
    return found
