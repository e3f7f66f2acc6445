"""What a job takes along: the working directory without what is large, private or made again elsewhere.

Left out: hidden files and folders (.git, .venv, caches), virtual environments, what git ignores, the usual folders of data
and results at the top, and everything that `private_files` recognises, wherever it lies. What left with a job would lie on
the cluster for everyone who may submit there.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dpcore.errors import BadInput, Refused
from sweeps.remote.private_files import PrivateFiles

LIMIT_BYTES = 100 * 2**20
TOP_FOLDERS = frozenset({"data", "results", "sweep_results", "checkpoints", "mlruns", "mlartifacts", "build", "dist"})
FOLDERS = frozenset({"__pycache__", "node_modules"})
COMPILED = ".pyc"
SHOWN_FOLDERS = 5


@dataclass(frozen=True, kw_only=True)
class WorkingDir:
    """The files of a folder that a job takes along, in order of their paths relative to it. `stays`: what does not, and why, for
    a person."""

    folder: Path
    files: tuple[Path, ...]
    stays: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """All files, before compression."""
        return sum((self.folder / path).stat().st_size for path in self.files)

    def check_size(self) -> None:
        """Refuses what no cluster should be sent at every job.

        Raises:
            Refused: above 100 MiB, with the largest folders.
        """
        if self.size_bytes <= LIMIT_BYTES:
            return
        sizes: Counter[str] = Counter()
        for path in self.files:
            sizes[str(path.parent)] += (self.folder / path).stat().st_size
        largest = ", ".join(f"{name} ({mebibytes(size)})" for name, size in sizes.most_common(SHOWN_FOLDERS))
        raise Refused(
            f"{self.folder} has {mebibytes(self.size_bytes)} to send, the limit is {mebibytes(LIMIT_BYTES)}; largest: {largest}. "
            "Put datasets where the cluster sees them, and name in .gitignore what a job does not need"
        )

    def pack(self, target: Path) -> None:
        """Writes a zip file that depends on paths and contents alone: Ray does not send again what it has."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.files:
                source = self.folder / path
                entry = zipfile.ZipInfo(os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace"))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (source.stat().st_mode & 0o777) << 16
                archive.writestr(entry, source.read_bytes())


def find_working_dir(folder: Path) -> WorkingDir:
    """The files of a folder that a job takes along.

    Raises:
        BadInput: there is none.
    """
    candidates = _git_files(folder, "--cached", "--others", "--exclude-standard")
    tracked = (_git_files(folder, "--cached") or ()) if candidates is not None else ()
    private = PrivateFiles(folder, tracked=set(tracked))
    wanted = sorted(path for path in (_walk(folder) if candidates is None else candidates) if _is_wanted(folder, path))
    files = private.released(wanted)
    if not files:
        stays = f" (here stay: {', '.join(private.lines())})" if wanted else ""
        raise BadInput(f"{folder} holds nothing to send{stays}; start from the folder of your space file or of the repository")
    return WorkingDir(folder=folder, files=tuple(files), stays=tuple(private.lines()))


def mebibytes(size: int) -> str:
    """`12.3 MiB`."""
    return f"{size / 2**20:.1f} MiB"


def _git_files(folder: Path, *which: str) -> Iterable[Path] | None:
    """What git lists; None where the folder is in no work tree or there is no git. Names may be in any encoding."""
    line = ["git", "-C", str(folder), "ls-files", "-z", *which]
    try:
        done = subprocess.run(line, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode:
        return None
    return {Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name}


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        here = Path(root).relative_to(folder)
        folders[:] = [name for name in folders if _is_wanted_folder(folder, here / name)]
        yield from (here / name for name in names)


def _is_wanted_folder(folder: Path, path: Path) -> bool:
    name = path.name
    if name.startswith(".") or name in FOLDERS or name.endswith(".egg-info") or (folder / path / "pyvenv.cfg").is_file():
        return False
    return not (len(path.parts) == 1 and name in TOP_FOLDERS)


def _is_wanted(folder: Path, path: Path) -> bool:
    if path.name.startswith(".") or path.suffix == COMPILED or not (folder / path).is_file():
        return False
    return all(_is_wanted_folder(folder, Path(*path.parts[: depth + 1])) for depth in range(len(path.parts) - 1))
