"""What never leaves with a job, whatever its folder is called: it is recognised by what is in it and by its mode.

| stays here | recognised by |
|---|---|
| a dataset | its manifest.json, a shard, a dataset key |
| a storage | ledger.sqlite, mlflow.db |
| a sweep | spec.json, study.journal, sweep.key |
| a trial, a trained model | trial.json, train.json, weights |
| a cache | an entry's meta.json, CACHEDIR.TAG, the name .dpsweep |
| what is for its owner alone | mode 0600 or 0700, of the file or of a folder around it below the top |
| pictures, videos, arrays, tables, archives | their suffix, unless git tracks them |
| a link | it leads out of the folder, or to something of the above |

A list of what is private can't be whole: annotations in a text file look like any other. So pictures and arrays go only
where a person has put them under version control, and the rest is counted and named before it is sent.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

KINDS = {
    "a dataset": ("manifest.json", "dataset.key"),
    "a storage": ("ledger.sqlite", "mlflow.db"),
    "a sweep": ("spec.json", "study.journal", "reports.jsonl", "sweep.key", "sweep.lock"),
    "a model": ("trial.json", "train.json", "train.key", "model.safetensors", "model.json"),
    "a cache": ("CACHEDIR.TAG", "meta.json"),
}
"""What of ours a folder is, by the files in it."""

SHARD = ".arrow"
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".ppm", ".pgm", ".dcm", ".svg"})
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"})
ARRAYS = frozenset({".npy", ".npz", ".mat", ".h5", ".hdf5", ".parquet", ".feather", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".onnx"})
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
NEVER = frozenset({".key", ".pem", ".db", ".sqlite", ".sqlite3", SHARD, ".safetensors", ".journal", ".witness"})
DATA = PICTURES | VIDEOS | ARRAYS | ARCHIVES

OF_A_DATASET, FOR_ITS_OWNER, OUTSIDE, UNTRACKED, OURS = (
    "in a dataset, sweep, model or cache",
    "for their owner alone (mode 0600 or 0700)",
    "links to somewhere else",
    "pictures, videos, arrays and archives that git does not track",
    "databases, keys, weights and shards",
)


class PrivateFiles:
    """Judges the files below a folder; the folder itself may have any mode. Remembers what it held back, and why."""

    def __init__(self, folder: Path, *, tracked: Collection[Path]) -> None:
        """
        Args:
            folder: the top.
            tracked: what git tracks, relative to it; empty where there is no git.
        """
        self._folder = folder
        self._tracked = frozenset(tracked)
        self._folders: dict[Path, str | None] = {Path("."): None}
        self.held_back: Counter[str] = Counter()
        self.named: dict[Path, str] = {}

    def released(self, paths: Iterable[Path]) -> list[Path]:
        """Those of the files, relative to the top, that may leave."""
        kept = []
        for path in paths:
            why = self._why_not(path)
            if why is None:
                kept.append(path)
            else:
                self.held_back[why] += 1
        return kept

    def lines(self) -> list[str]:
        """What stays here, for a person."""
        named = [f"{path.as_posix()} ({kind})" for path, kind in sorted(self.named.items())]
        return [*named, *(f"{count} {why}" for why, count in sorted(self.held_back.items()) if why != OF_A_DATASET)]

    def _why_not(self, path: Path) -> str | None:
        why = self._why_not_below(path.parent)
        if why is not None:
            return why
        full = self._folder / path
        if full.is_symlink():
            target = Path(os.path.realpath(full))
            top = Path(os.path.realpath(self._folder))
            if not target.is_relative_to(top):
                return OUTSIDE
            return self._why_not(target.relative_to(top))
        if _is_for_its_owner(full):
            return FOR_ITS_OWNER
        suffix = path.suffix.lower()
        if suffix in NEVER:
            return OURS
        return UNTRACKED if suffix in DATA and path not in self._tracked else None

    def _why_not_below(self, folder: Path) -> str | None:
        if folder not in self._folders:
            self._folders[folder] = self._why_not_below(folder.parent) or self._judge(folder)
        return self._folders[folder]

    def _judge(self, folder: Path) -> str | None:
        full = self._folder / folder
        if _is_for_its_owner(full):
            self.named[folder] = "for its owner alone"
            return FOR_ITS_OWNER
        kind = kind_of(full)
        if kind is None:
            return None
        self.named[folder] = kind
        return OF_A_DATASET


def kind_of(folder: Path) -> str | None:
    """What of ours a folder is, by the files in it; None where it is none."""
    if folder.name == ".dpsweep":
        return "a cache"
    names = {path.name for path in folder.iterdir()}
    if any(name.endswith(SHARD) for name in names):
        return "a dataset"
    return next((kind for kind, marks in KINDS.items() if names.intersection(marks)), None)


def _is_for_its_owner(path: Path) -> bool:
    return not stat.S_IMODE(path.stat().st_mode) & 0o077
