"""Implements `dpsweep data info` and `dpsweep data purge`.

Every cache entry is a folder `<cache_dir>/<kind>/<key>/`. If its meta.json lists `datasets` (their digests), it derives only from
these. An entry without such a list counts as derived from every dataset. Everything can be built again, so purging too much
costs minutes. Purging too little would leave private data behind.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpcore.config import Places
from dpcore.data.catalog import EMBEDDED_KIND, dataset_folder, open_dataset
from dpcore.data.cohorts import overlaps_of
from dpcore.data.folders import locked
from dpcore.data.shards import members_beside, open_shards
from dpcore.data.synthetic import EMBEDDED
from dpcore.data.views import META_NAME
from dpcore.durable import TEMPORARY_SUFFIX


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A dataset in numbers, and the cache entries that derive from it.

    Attributes:
        digest: `ShardSet.identity`, which for protected data is keyed.
        cohort: the people that a ledger charges; None for PUBLIC data.
        images, people, videos: their numbers, as units of privacy. 0 videos if no crop names its video.
        shared: by name of a PRIVATE dataset of another cohort beside this one, the number of photographs that are in both.
    """

    name: str
    folder: Path
    role: str
    protected: bool
    origin: str
    crops: str
    count: int
    height_px: int
    width_px: int
    digest: str
    cohort: str | None
    shared: dict[str, int]
    images: int
    people: int
    videos: int
    median_head_size_px: float | None
    labelled: dict[str, float]
    caches: tuple[Path, ...]

    def document(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "folder": str(self.folder), "caches": [str(path) for path in self.caches]}


def describe_dataset(name: str, places: Places) -> DatasetInfo:
    """Opens, verifies and summarises a dataset. An embedded dataset is generated first if necessary.

    Raises:
        BadInput: there is no such dataset.
        Corrupt: its files differ from its manifest.
    """
    dataset = open_dataset(name, places)
    manifest, heads = dataset.manifest, dataset.head_size_px
    overlaps = overlaps_of(dataset.members, members_beside(dataset.folder)) if manifest.role == "PRIVATE" else ()
    known = heads[np.isfinite(heads)]
    return DatasetInfo(
        name=manifest.name,
        folder=dataset.folder,
        role=manifest.role,
        protected=manifest.protected,
        origin=manifest.origin,
        crops=manifest.crops,
        count=manifest.count,
        height_px=manifest.height_px,
        width_px=manifest.width_px,
        digest=dataset.identity,
        cohort=dataset.members.cohort if manifest.role == "PRIVATE" else None,
        shared={overlap.other.dataset: overlap.shared for overlap in overlaps},
        images=len(np.unique(dataset.image_ids)),
        people=len(np.unique(dataset.person_ids)),
        videos=len(np.unique(dataset.video_ids[dataset.video_ids != ""])),
        median_head_size_px=float(np.median(known)) if known.size else None,
        labelled={joint: float(share) for joint, share in zip(dataset.skeleton.joints, dataset.visible.mean(axis=0), strict=True)},
        caches=tuple(derived_entries(dataset.identity, places)),
    )


def derived_entries(digest: str, places: Places) -> list[Path]:
    """Cache folders that were, or may have been, made from the dataset with this digest."""
    return [entry for entry in _entries(places) if digest in (_declared_datasets(entry) or {digest})]


def purge_caches(name: str | None, places: Places) -> list[Path]:
    """Removes everything that derives from a dataset. If `name` is None, removes all derived and all unfinished entries.

    An imported dataset itself stays, because it cannot be built again from here. An embedded dataset is a cache and is removed
    too. Run this when no sweep is running.

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
        return _entries(places) + _folders(places.cache_dir / EMBEDDED_KIND) + unfinished
    folder = dataset_folder(name, places)
    if name in EMBEDDED and not folder.is_dir():
        return unfinished
    derived = derived_entries(open_shards(folder, verify=False).identity, places)
    return derived + ([folder] if name in EMBEDDED else []) + unfinished


def _entries(places: Places) -> list[Path]:
    return [entry for kind in _folders(places.cache_dir) if kind.name != EMBEDDED_KIND for entry in _folders(kind)]


def _folders(parent: Path) -> list[Path]:
    return [path for path in sorted(parent.glob("*")) if path.is_dir() and not path.name.startswith(".")]


def _declared_datasets(entry: Path) -> set[str]:
    path = entry / META_NAME
    if not path.is_file():
        return set()
    try:
        declared = json.loads(path.read_text(encoding="utf-8")).get("datasets", [])
    except (ValueError, AttributeError):
        return set()  # an unreadable entry names no dataset, so it is purged with any of them
    return {str(digest) for digest in declared}
