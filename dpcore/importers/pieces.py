"""Cuts people in pieces: each piece is one shard file of the new dataset, made by any process, in any order, and kept over an interruption.

Which people are in which piece depends on their order and the size of the crops alone. So the dataset is the same, byte for byte, however
many processes made it, and however often it was interrupted.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL
from PIL import features

from dpcore.data.manifest import DatasetHeader, FileEntry
from dpcore.data.shard_files import SHARD_SUFFIX, sha256_of, write_shard
from dpcore.durable import read_json, write_json
from dpcore.errors import Corrupt, Unavailable
from dpcore.importers.cutting import Cut, FoundPerson, cut_people
from dpcore.importers.label_checks import ImportTally

PIECE_BYTES = 16 * 2**20
"""Crops of one piece: 148 of 192 × 192 px. Small pieces share work evenly and lose little at an interruption."""

_NOTE_SUFFIX = ".note.json"
_PIECES_PER_PROCESS = 2
"""With fewer, starting a process takes longer than it saves."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of work.

    Attributes:
        folder: where the shard file is written.
        number: of the piece, from 0.
        people: to cut.
        cut: how.
        header: of the new dataset.
    """

    folder: Path
    number: int
    people: tuple[FoundPerson, ...]
    cut: Cut
    header: DatasetHeader

    @property
    def shard(self) -> Path:
        """Its shard file."""
        return self.folder / f"shard-{self.number:05d}{SHARD_SUFFIX}"

    @property
    def note(self) -> Path:
        """What is known of its shard file, written after it."""
        return self.folder / f"shard-{self.number:05d}{_NOTE_SUFFIX}"

    @property
    def key(self) -> str:
        """A digest of all that decides its shard file: labels, pictures by size and time of change, crops, and the decoder's version."""
        digest = hashlib.sha256(f"{PIL.__version__}|{features.version('jpg')}|{self.cut!r}|{self.header!r}".encode())
        for found in self.people:
            person, state = found.person, found.photograph.path.stat()
            place = (found.photograph.image_id, state.st_size, state.st_mtime_ns, person.where, person.source_id, person.labelled_px)
            digest.update(repr((place, person.person, person.frame, person.head_size_px, person.area_px2, person.video)).encode())
            digest.update(person.joints.tobytes() + person.labelled.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PieceNote:
    """What came of a piece.

    Attributes:
        key: see `Piece.key`.
        sha256: of its shard file; empty if no person of it could be cut.
        rows: people in the file.
        problems: messages on those who could not be cut.
        tally: what was noticed.
    """

    key: str
    sha256: str
    rows: int
    problems: tuple[str, ...] = ()
    tally: dict[str, Any] = field(default_factory=dict)

    def entry(self, piece: Piece) -> FileEntry:
        """The file in the manifest."""
        return FileEntry(name=piece.shard.name, sha256=self.sha256, rows=self.rows)

    def counted(self) -> ImportTally:
        """What was noticed, as a tally."""
        return ImportTally(labels=self.tally["labels"], noticed=Counter(self.tally["noticed"]))


def pieces_of(people: Sequence[FoundPerson], *, folder: Path, cut: Cut, header: DatasetHeader) -> list[Piece]:
    """The pieces of an import, in order."""
    size = max(1, PIECE_BYTES // (header.height_px * header.width_px * 3))
    starts = range(0, len(people), size)
    return [
        Piece(folder=folder, number=number, people=tuple(people[start : start + size]), cut=cut, header=header)
        for number, start in enumerate(starts)
    ]


def made_before(piece: Piece) -> PieceNote | None:
    """The note of a piece that an interrupted import left whole; None if it has to be made."""
    try:
        note = PieceNote(**read_json(piece.note))
    except (Corrupt, FileNotFoundError, TypeError):
        return None
    if note.key != piece.key:
        return None
    if note.rows and not (piece.shard.is_file() and sha256_of(piece.shard) == note.sha256):
        return None
    return note


def make_piece(piece: Piece) -> PieceNote:
    """Cuts the people of a piece, and writes its shard file and then its note."""
    cut = cut_people(piece.people, piece.cut)
    sha256 = ""
    if cut.records:
        write_shard(piece.shard, cut.records, header=piece.header)
        sha256 = sha256_of(piece.shard)
    tally = {"labels": cut.tally.labels, "noticed": dict(cut.tally.noticed)}
    note = PieceNote(key=piece.key, sha256=sha256, rows=len(cut.records), problems=tuple(cut.problems), tally=tally)
    write_json(piece.note, dict(vars(note)))
    return note


def make_pieces(pieces: Sequence[Piece], *, processes: int, made: Callable[[int], None]) -> list[PieceNote]:
    """The notes of all pieces, in order. Pieces that an interrupted import left whole are taken as they are.

    Args:
        pieces: of one import.
        processes: at most so many at once.
        made: is called with the number of people of each piece that is there.

    Raises:
        Unavailable: a process ended, as it does when memory runs out. What was made stays.
    """
    notes: dict[int, PieceNote] = {}
    for piece in pieces:
        note = made_before(piece)
        if note is not None:
            notes[piece.number] = note
            made(len(piece.people))
    missing = [piece for piece in pieces if piece.number not in notes]
    at_once = min(processes, len(missing) // _PIECES_PER_PROCESS)
    results = _in_processes(missing, at_once) if at_once > 1 else ((piece, make_piece(piece)) for piece in missing)
    for piece, note in results:
        notes[piece.number] = note
        made(len(piece.people))
    return [notes[piece.number] for piece in pieces]


def _in_processes(pieces: Sequence[Piece], processes: int) -> Iterator[tuple[Piece, PieceNote]]:
    """Pieces with their notes, in the order in which they are done."""
    # a fresh interpreter: a fork of a process that has threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as pool:
        running: dict[Future[PieceNote], Piece] = {}
        waiting = iter(pieces)
        try:
            while True:
                for piece in itertools.islice(waiting, 2 * processes - len(running)):
                    running[pool.submit(make_piece, piece)] = piece
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise Unavailable(
                "a process of the import ended; is there enough memory? The same command goes on with what is done; "
                "--processes 1 needs the least memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends with it, also where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
