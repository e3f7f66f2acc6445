"""Finds the pictures that a person names: files, folders, and patterns with `*`.

| given | what is read |
|---|---|
| a file | that file, whatever its suffix |
| a folder | every file below it with a picture's suffix; other files are counted |
| a pattern | what it matches, files and folders alike |
| one file twice | once |
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dpcore.data.photographs import load_photograph
from dpcore.errors import BadInput

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes of the files that are taken from a folder."""
ORIENTATION, TURNED = 0x0112, frozenset({5, 6, 7, 8})
"""The EXIF tag that turns a picture, and its values under which width and height change places."""
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture whose header was read.

    Attributes:
        name: as the person gave it, with `/`: the path from the working folder, or an absolute one.
        path: the file.
        stored_px, upright_px: width and height as stored, and as a viewer shows it (EXIF).
    """

    name: str
    path: Path
    stored_px: tuple[int, int]
    upright_px: tuple[int, int]

    def load(self, frame_px: tuple[int, int] | None = None) -> Image.Image:
        """The RGB pixels, upright; or as stored where boxes were labelled in a frame of the stored size alone.

        Raises:
            BadInput: the file is damaged, or too large.
        """
        return load_photograph(self.path, record="pictures", labelled_px=frame_px or self.upright_px)


@dataclass(frozen=True, kw_only=True)
class FoundPictures:
    """What was found.

    Attributes:
        pictures: in the order given, within a folder by name.
        other_files: files of the folders that have no picture's suffix.
        broken: what was left out with the reason, where that was asked for.
    """

    pictures: tuple[Picture, ...]
    other_files: int = 0
    broken: tuple[str, ...] = ()


def find_pictures(given: Sequence[str | Path], *, skip_broken: bool = False) -> FoundPictures:
    """All pictures, each with its size. Every file is looked at before the first is used.

    Args:
        given: files, folders, patterns.
        skip_broken: leave out files whose header does not read, instead of refusing.

    Raises:
        BadInput: something is not there, no picture is left, or some do not read; one message names the first of them.
    """
    paths, other_files = _paths(given)
    read = [_read_header(path) for path in paths]
    pictures = tuple(one for one in read if isinstance(one, Picture))
    broken = tuple(one for one in read if isinstance(one, str))
    if broken and not skip_broken:
        raise BadInput(f"{broken_text(broken, len(read))}; mend them, or leave them out with --skip-broken")
    if not pictures:
        raise BadInput(f"no picture in {', '.join(map(str, given)) or 'nothing'}; give files, folders, or patterns such as 'photos/*.jpg'")
    return FoundPictures(pictures=pictures, other_files=other_files, broken=broken)


def broken_text(broken: Sequence[str], count: int) -> str:
    """`2 of 7 pictures cannot be read: ...`."""
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return f"{len(broken)} of {count} pictures cannot be read: {'; '.join(broken[:SHOWN])}{more}"


def _paths(given: Sequence[str | Path]) -> tuple[list[Path], int]:
    """The files, each once, and how many others lie in the folders."""
    found: dict[Path, Path] = {}
    missing, other_files = [], 0
    for one in map(str, given):
        places = [Path(one)] if Path(one).exists() else [Path(match) for match in sorted(glob.glob(one, recursive=True))]
        if not places:
            missing.append(one)
        for place in places:
            files = list(_files_of(place))
            taken = files if place.is_file() else [path for path in files if path.suffix.lower() in SUFFIXES]
            other_files += len(files) - len(taken)
            for path in taken:
                found.setdefault(path.resolve(), path)
    if missing:
        raise BadInput(f"pictures: {', '.join(missing)}: not there; give files, folders, or patterns such as 'photos/*.jpg'")
    return list(found.values()), other_files


def _files_of(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for path in sorted(place.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts):
            yield path


def _read_header(path: Path) -> Picture | str:
    """The picture; or its name with what is wrong."""
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path) as image:
            stored = image.size
            turned = image.getexif().get(ORIENTATION) in TURNED
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path} ({str(error).partition(': ')[0] or type(error).__name__})"
    return Picture(name=path.as_posix(), path=path, stored_px=stored, upright_px=(stored[1], stored[0]) if turned else stored)
