"""Stores public views: one public image of each record, made once. Everything on the public side reads it.

ψ(x) is computed on the unaugmented crop, rounded to uint8 and written. Floor, public term, control and subspace read only these
bytes of the record's pixels. A float blur in memory would be nearly invertible.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import Places, SplitConfig, digest_of
from dpcore.data.folders import locked, new_folder
from dpcore.data.framing import Turned
from dpcore.data.regions import Region, hidden_pixels
from dpcore.data.shards import ShardSet, iterate_rows
from dpcore.data.splitting import decode_view, encode_view, stored_size
from dpcore.errors import Corrupt, Refused

VIEW_VERSION = 3
"""Increased when the same crop and split would give other bytes."""
VIEWS_NAME = "views.npy"
META_NAME = "meta.json"

_verified: set[tuple[str, int, int, str]] = set()


class StoredViews:
    """The public views of a dataset, in the order of its rows.

    Attributes:
        split: what is hidden, and whether the views are sharpened when read.
        stored: (N, h, w, 3) uint8, memory-mapped. Nothing else of the pixels is published.
        digest: 64 hex digits over the stored bytes and the way they are read. It is keyed for protected data.
    """

    def __init__(self, stored: NDArray[np.uint8], split: SplitConfig, *, size_px: tuple[int, int], bytes_digest: str) -> None:
        self.stored = stored
        self.split = split
        self._size_px = size_px
        self.digest = hashlib.sha256(f"{VIEW_VERSION}|{bytes_digest}|{split.sharpen}|{size_px}".encode()).hexdigest()

        self._turned: Turned | None = None

    def __len__(self) -> int:
        return len(self.stored)

    def turned(self, frame: Turned) -> StoredViews:
        """The same views, each turned by quarters when it is read. The turns must be a function of what is stored."""
        other = copy.copy(self)
        other._turned = frame
        other.digest = hashlib.sha256(f"{self.digest}|{frame.mark}".encode()).hexdigest()
        return other

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Views at `indices` (B,) as the public side uses them: (B, H, W, 3) uint8, computed only from the stored bytes."""
        rows = np.asarray(self.stored[np.asarray(indices, dtype=np.int64)])
        if self.split.region == "all":
            rows = decode_view(rows, self.split, size_px=self._size_px)
        return rows if self._turned is None else self._turned.of_images(rows, np.asarray(indices))


def build_views(dataset: ShardSet, split: SplitConfig, places: Places) -> StoredViews:
    """The views of a dataset under a split. They are made on first use, then opened.

    The folder's name is a digest of the dataset and of everything in the split that changes stored bytes (not its name, not its
    sharpening). It has mode 0700 if the dataset is PRIVATE.

    Raises:
        Corrupt: stored views differ from what was written.
        Refused: together with the region views that exist already, nothing of a PRIVATE record would stay hidden.
    """
    folder = places.cache_dir / "views" / views_key(dataset, split)
    if not folder.is_dir():
        # one lock for all views of a dataset: otherwise two region splits built at the same time would not see each other
        with locked(folder.parent / f"dataset-{dataset.source.identity[:16]}"):
            if not folder.is_dir():
                check_join(dataset.source, {split.region, *_stored_regions(dataset, places)})
                _write_views(folder, dataset, split)
    return _open_views(folder, dataset, split)


def check_join(dataset: ShardSet, regions: Set[Region]) -> None:
    """Refuses region splits that together publish whole records, because one view or another shows each pixel unchanged.

    All views of a record are public together, whichever sweep made them. A view that hides the head and one that hides the background
    together hide nothing.

    Raises:
        Refused: the message names the regions and how many records they show completely.
    """
    wanted = sorted(regions - {"all"})
    if dataset.manifest.role != "PRIVATE" or len(wanted) < 2:
        return
    whole = 0
    for rows in iterate_rows(dataset):
        hidden = np.logical_and.reduce([hidden_of_rows(dataset, rows, region) for region in wanted])
        whole += int((~hidden.any(axis=(1, 2))).sum())
    if whole:
        raise Refused(
            f"{dataset.manifest.name}: views that hide {' and views that hide '.join(wanted)} together show {whole} of {len(dataset)} "
            "records completely; use only one of these regions, or `dpsweep data purge` the older views if they were never published"
        )


def _stored_regions(dataset: ShardSet, places: Places) -> set[Region]:
    """The regions of all views of `dataset` that this cache holds."""
    metas = [_read_meta(path.parent) for path in sorted((places.cache_dir / "views").glob(f"*/{META_NAME}"))]
    return {meta["split"]["region"] for meta in metas if meta["datasets"] == [dataset.source.identity]}


def views_key(dataset: ShardSet, split: SplitConfig) -> str:
    """16 hex digits: equal exactly when the stored bytes are."""
    settings = split.model_dump(mode="json", exclude={"name", "sharpen"})
    return digest_of({"version": VIEW_VERSION, "dataset": dataset.identity, "split": settings})


def _write_views(folder: Path, dataset: ShardSet, split: SplitConfig) -> None:
    size_px = (dataset.manifest.height_px, dataset.manifest.width_px)
    shape = (len(dataset), *stored_size(split, *size_px), 3)
    with new_folder(folder, private=dataset.manifest.role == "PRIVATE") as temporary:
        path = temporary / VIEWS_NAME
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for rows in iterate_rows(dataset):
            stored[rows] = _view_of_rows(dataset, rows, split)
        stored.flush()
        written = dataset.outer_digest(_sha256_of(path))
        meta = {"datasets": [dataset.source.identity], "split": split.model_dump(mode="json"), "digest": written}
        (temporary / META_NAME).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _view_of_rows(dataset: ShardSet, rows: NDArray[np.int64], split: SplitConfig) -> NDArray[np.uint8]:
    crops = dataset.images(rows)
    small = encode_view(crops, split)
    if split.region == "all":
        return small
    replaced = decode_view(small, split, size_px=(dataset.manifest.height_px, dataset.manifest.width_px))
    return np.where(hidden_of_rows(dataset, rows, split.region)[..., None], replaced, crops)


def seen_under(split: SplitConfig, dataset: ShardSet, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What the public side would see of some rows (B, H, W, 3) uint8, computed anew. Nothing is stored and nothing is published by it."""
    stored = _view_of_rows(dataset, rows, split)
    if split.region != "all":
        return stored
    return decode_view(stored, split, size_px=(dataset.manifest.height_px, dataset.manifest.width_px))


def hidden_of_rows(dataset: ShardSet, rows: NDArray[np.int64], region: Region) -> NDArray[np.bool_]:
    """The pixels (B, H, W) that a region split replaces in some rows. They depend on the labels."""
    size_px = (dataset.manifest.height_px, dataset.manifest.width_px)
    points, visible, heads = dataset.keypoints[rows], dataset.visible[rows], dataset.head_size_px[rows]
    people = zip(points, visible, heads, strict=True)
    return np.stack([hidden_pixels(region, p, v, float(h), size_px=size_px, skeleton=dataset.skeleton) for p, v, h in people])


def _open_views(folder: Path, dataset: ShardSet, split: SplitConfig) -> StoredViews:
    size_px = (dataset.manifest.height_px, dataset.manifest.width_px)
    shape = (len(dataset), *stored_size(split, *size_px), 3)
    meta = _load_meta(folder)
    path = folder / VIEWS_NAME
    _verify(path, str(meta["digest"]), dataset)
    stored = np.load(path, mmap_mode="r")
    if stored.shape != shape or stored.dtype != np.uint8:
        raise Corrupt(f"{path}: {stored.dtype} {stored.shape}, expected uint8 {shape}; remove {folder} and run again")
    return StoredViews(stored, split, size_px=size_px, bytes_digest=str(meta["digest"]))


def _load_meta(folder: Path) -> dict[str, Any]:
    meta = _read_meta(folder)
    if "digest" not in meta:
        raise Corrupt(f"{folder / META_NAME} lacks its digest; remove {folder} and run again")
    return meta


def _read_meta(folder: Path) -> dict[str, Any]:
    """Reads the description of stored views, also of older versions."""
    path = folder / META_NAME
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); remove {folder} and run again") from None
    if not isinstance(meta, dict) or not {"datasets", "split"} <= meta.keys():
        raise Corrupt(f"{path} lacks its datasets and split; remove {folder} and run again")
    return meta


def _verify(path: Path, expected: str, dataset: ShardSet) -> None:
    if not path.is_file():
        raise Corrupt(f"{path} is missing; remove {path.parent} and run again")
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size, expected)
    if key in _verified:
        return
    if dataset.outer_digest(_sha256_of(path)) != expected:
        raise Corrupt(f"{path}: its bytes differ from those that were written; remove {path.parent} and run again")
    _verified.add(key)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
