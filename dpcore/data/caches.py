"""What `dpsweep data info` shows and `dpsweep data purge` removes.

Every cache entry is a folder `<cache_dir>/<kind>/<key>/`. Where its meta.json lists `datasets` (their digests), it derives
from those alone; an entry that does not say counts as derived from every dataset. All of it can be built again, so
purging too much costs minutes and purging too little would leave private data behind.
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
from dpcore.pose.skeleton import MPII_16


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A dataset in numbers, and the cache entries that derive from it.

    Attributes:
        digest: `ShardSet.identity`: under the dataset's key for protected data.
        cohort: whom a ledger charges; None for PUBLIC data.
        images, people, videos: how many there are, as units of privacy; 0 videos where no crop names its own.
        shared: photographs that are also in a PRIVATE dataset of another cohort beside this one, by its name.
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
        labelled={joint: float(share) for joint, share in zip(MPII_16, dataset.visible.mean(axis=0), strict=True)},
        caches=tuple(derived_entries(dataset.identity, places)),
    )


def derived_entries(digest: str, places: Places) -> list[Path]:
    """Cache folders that were, or may have been, made from the dataset with this digest."""
    return [entry for entry in _entries(places) if digest in (_declared_datasets(entry) or {digest})]


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
        declared = json.loads(path.read_text()).get("datasets", [])
    except (ValueError, AttributeError):
        return set()  # an unreadable entry says nothing, so it is purged with any dataset
    return {str(digest) for digest in declared}
