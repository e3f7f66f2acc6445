"""What `dpsweep data info` shows and `dpsweep data purge` removes.

Every cache entry is a folder `<cache_dir>/<kind>/<key>/` whose meta.json names the digests of the datasets that it was
made from; so what derives from a dataset can be found and removed without knowing how it was made.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpcore.config import Places
from dpcore.data.catalog import dataset_folder, open_dataset
from dpcore.data.folders import TEMPORARY_SUFFIX, locked
from dpcore.data.manifest import load_manifest
from dpcore.data.synthetic import EMBEDDED
from dpcore.data.views import META_NAME
from dpcore.pose.skeleton import MPII_16


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A dataset in numbers, and the cache entries that derive from it."""

    name: str
    folder: Path
    role: str
    protected: bool
    origin: str
    count: int
    height_px: int
    width_px: int
    digest: str
    images: int
    median_head_size_px: float | None
    labelled: dict[str, float]
    caches: tuple[Path, ...]

    def document(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "folder": str(self.folder), "caches": [str(path) for path in self.caches]}


def describe_dataset(name: str, places: Places) -> DatasetInfo:
    """Opens and verifies a dataset and sums it up; an embedded one is made if need be.

    Raises:
        BadInput: there is no such dataset.
        Corrupt: its files are not what its manifest says.
    """
    dataset = open_dataset(name, places)
    manifest, heads = dataset.manifest, dataset.head_size_px
    known = heads[np.isfinite(heads)]
    return DatasetInfo(
        name=manifest.name,
        folder=dataset.folder,
        role=manifest.role,
        protected=manifest.protected,
        origin=manifest.origin,
        count=manifest.count,
        height_px=manifest.height_px,
        width_px=manifest.width_px,
        digest=manifest.digest,
        images=len(np.unique(dataset.image_ids)),
        median_head_size_px=float(np.median(known)) if known.size else None,
        labelled={joint: float(share) for joint, share in zip(MPII_16, dataset.visible.mean(axis=0), strict=True)},
        caches=tuple(derived_entries(manifest.digest, places)),
    )


def derived_entries(digest: str, places: Places) -> list[Path]:
    """Cache folders that were made from the dataset with this digest."""
    metas = sorted(places.cache_dir.glob(f"*/*/{META_NAME}"))
    return [path.parent for path in metas if digest in _digests_in(path)]


def purge_caches(name: str | None, places: Places) -> list[Path]:
    """Removes what was derived from a dataset, or everything derived and unfinished when `name` is None.

    An imported dataset itself stays: it cannot be rebuilt from what is here. An embedded one is a cache and goes too. Run
    it when no sweep is running.

    Returns:
        The folders that were removed.

    Raises:
        BadInput: there is no such dataset.
    """
    removed = []
    for entry in _entries_to_purge(name, places):
        with locked(entry):
            shutil.rmtree(entry)
        removed.append(entry)
    return removed


def _entries_to_purge(name: str | None, places: Places) -> list[Path]:
    unfinished = [path for path in sorted(places.cache_dir.glob(f"*/.*{TEMPORARY_SUFFIX}")) if path.is_dir()]
    if name is None:
        return [path.parent for path in sorted(places.cache_dir.glob(f"*/*/{META_NAME}"))] + _embedded(places) + unfinished
    folder = dataset_folder(name, places)
    if name in EMBEDDED and not folder.is_dir():
        return unfinished
    derived = derived_entries(load_manifest(folder).digest, places)
    return derived + ([folder] if name in EMBEDDED else []) + unfinished


def _embedded(places: Places) -> list[Path]:
    folders = places.cache_dir / "datasets"
    return [path for path in sorted(folders.glob("*")) if path.is_dir() and not path.name.startswith(".")]


def _digests_in(path: Path) -> set[str]:
    """Every string in a meta.json, at any depth: each kind of cache arranges its own."""
    found: set[str] = set()
    pending: list[Any] = [json.loads(path.read_text())]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return found
