"""From labelled people to a dataset: finds the pictures, cuts the people out in several processes, puts the dataset in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.config import parse_config
from dpcore.data.folders import continued_folder
from dpcore.data.manifest import DatasetHeader, Manifest
from dpcore.data.photographs import PhotographFolder
from dpcore.data.shards import assemble_shards
from dpcore.errors import BadInput
from dpcore.importers.cutting import Cut, FoundPerson
from dpcore.importers.names import renamed
from dpcore.importers.people import LabelSource, PeopleFile
from dpcore.importers.pieces import make_pieces, pieces_of
from dpcore.pose.skeleton import Skeleton, mapping

ImportProgress = Callable[[int, int], None]
"""Is called with the people that are done and with all of them."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What every format is imported with.

    Attributes:
        box_scale: size of the crop relative to the person's frame.
        skeleton: the dataset's, mapped by name; None: the file's own.
        processes: at most so many at once. The dataset does not depend on it.
        progress: hears how far the import is.
    """

    box_scale: float = 1.25
    skeleton: Skeleton | None = None
    processes: int = 1
    progress: ImportProgress = lambda done, total: None


def import_people(
    read: Callable[[LabelSource], PeopleFile], source: LabelSource, out: Path, *, fields: Mapping[str, Any], options: ImportOptions
) -> Manifest:
    """Imports the people of one annotation file, or of one folder of such files.

    One picture is one `image_id`, so that people who share a picture share a privacy unit. Nothing is left behind by an error. An
    interruption leaves the finished pieces in a hidden folder beside `out`, readable by its owner only, and the same import goes on there.

    Args:
        read: the reader of the format.
        source: the files.
        out: folder of the new dataset.
        fields: name, role, protected, cohort, height_px and width_px, see `DatasetHeader`.
        options: crops and processes.

    Raises:
        BadInput: names file and record; at most ten of them.
        Refused: `out` exists, or its people are protected in another cohort.
    """
    _check_source(source, options)
    file = read(source)
    source.wrong([], what="records are wrong")
    if not file.people:
        reasons = "".join(f"; {line}" for line in source.tally.lines())
        raise BadInput(f"annotations {source.annotations}: no record in it, nothing to import{reasons}")
    target = options.skeleton or file.skeleton
    known = renamed(file.skeleton, target)
    if known.joints != target.joints:
        source.tally.noticed.update(_mapping_notes(known, target))
    header = _header(fields, file, target, options)
    with continued_folder(out, private=header.role == "PRIVATE") as folder:
        people = _found(file, source)
        cut = Cut(height_px=header.height_px, width_px=header.width_px, box_scale=options.box_scale, source=known, target=target)
        pieces = pieces_of(people, folder=folder, cut=cut, header=header)
        done = 0

        def made(count: int) -> None:
            nonlocal done
            done += count
            options.progress(done, len(people))

        notes = make_pieces(pieces, processes=options.processes, made=made)
        for note in notes:
            source.tally.add(note.counted())
        source.wrong([problem for note in notes for problem in note.problems], what="records are wrong")
        entries = [note.entry(piece) for piece, note in zip(pieces, notes, strict=True) if note.rows]
        _remove_others(folder, {entry.name for entry in entries})
        return assemble_shards(folder, entries, header=header, place=out)


def _check_source(source: LabelSource, options: ImportOptions) -> None:
    if not source.images.is_dir():
        raise BadInput(f"images {source.images}: no such folder")
    if not 0 < options.box_scale < math.inf:
        raise BadInput(f"box_scale must be positive and finite, given {options.box_scale}")


def _header(fields: Mapping[str, Any], file: PeopleFile, target: Skeleton, options: ImportOptions) -> DatasetHeader:
    origin = f"{file.origin}, box_scale {options.box_scale}"
    mapped = "" if target.name == file.skeleton.name else f", {file.skeleton.name} as {target.name}"
    values = {**fields, "origin": origin + mapped, "crops": file.crops, "skeleton": target, "box_scale": options.box_scale}
    return parse_config(DatasetHeader, values, where="dataset")


def _mapping_notes(source: Skeleton, target: Skeleton) -> dict[str, int]:
    """What mapping one skeleton to the other leaves out.

    Raises:
        BadInput: no joint can be had by name.
    """
    parents = mapping(source, target)
    if not any(parents):
        raise BadInput(
            f"no joint of the skeleton {target.name} ({', '.join(target.joints)}) has its name among the file's joints "
            f"({', '.join(source.joints)}); leave --skeleton out to keep the file's own"
        )
    missing = [joint for joint, of in zip(target.joints, parents, strict=True) if not of]
    used = {place for of in parents for place in of}
    dropped = [joint for place, joint in enumerate(source.joints) if place not in used]
    notes = {}
    if missing:
        notes[f"joints of {target.name} that the file does not have: {', '.join(missing)}"] = len(missing)
    if dropped:
        notes[f"joints of the file that {target.name} does not have: {', '.join(dropped)}"] = len(dropped)
    return notes


def _found(file: PeopleFile, source: LabelSource) -> list[FoundPerson]:
    """The people with their pictures. All pictures are looked for before one of them is read.

    Raises:
        BadInput: a picture is not there. The message counts them and shows the first ones.
    """
    folder = PhotographFolder(source.images)
    found: list[FoundPerson] = []
    missing: dict[str, list[str]] = {}
    for person in file.people:
        try:
            found.append(FoundPerson(person=person, photograph=folder.find(person.picture, record=person.where)))
        except BadInput as error:
            missing.setdefault(person.picture, []).append(str(error))
    # left out are people, refused are pictures
    people = [message for messages in missing.values() for message in messages]
    source.wrong(people if source.skip_broken else [messages[0] for messages in missing.values()], what="pictures are not there")
    if not found:
        raise BadInput(f"annotations {source.annotations}: none of its {len(missing)} pictures is below {source.images}")
    return found


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Removes notes, and pieces of an earlier import that was interrupted."""
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink(missing_ok=True)
