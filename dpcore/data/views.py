"""Stored public views: the one public image of each record, made once and read by everything on the public side.

ψ(x) is computed on the unaugmented crop, rounded to uint8 and written; floor, public term, control and subspace read
those bytes and nothing else of the record's pixels. A float blur in memory would be nearly invertible.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import Places, SplitConfig, digest_of
from dpcore.data.folders import locked, new_folder
from dpcore.data.regions import hidden_pixels
from dpcore.data.shards import ShardSet, iterate_rows
from dpcore.data.splitting import decode_view, encode_view, stored_size
from dpcore.errors import Corrupt

VIEW_VERSION = 2
"""Raised when the same crop and split would give other bytes."""
VIEWS_NAME = "views.npy"
META_NAME = "meta.json"

_verified: set[tuple[str, int, int, str]] = set()


class StoredViews:
    """The public views of a dataset, row by row as in the dataset.

    Attributes:
        split: what was hidden, and whether the views are sharpened when read.
        stored: (N, h, w, 3) uint8, memory-mapped: all that is published of the pixels.
        digest: 64 hex digits over the stored bytes (under the dataset's key where it is protected) and the way they are read.
    """

    def __init__(self, stored: NDArray[np.uint8], split: SplitConfig, *, size_px: tuple[int, int], bytes_digest: str) -> None:
        self.stored = stored
        self.split = split
        self._size_px = size_px
        self.digest = hashlib.sha256(f"{VIEW_VERSION}|{bytes_digest}|{split.sharpen}|{size_px}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.stored)

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Views at `indices` (B,) as the public side uses them: (B, H, W, 3) uint8, from the stored bytes alone."""
        rows = np.asarray(self.stored[np.asarray(indices, dtype=np.int64)])
        if self.split.region != "all":
            return rows
        return decode_view(rows, self.split, size_px=self._size_px)


def build_views(dataset: ShardSet, split: SplitConfig, places: Places) -> StoredViews:
    """The views of a dataset under a split; made on first use, then opened.

    Content-addressed by the dataset's digest and by what of the split changes stored bytes (its name and sharpening do
    not). Mode 0700 when the dataset is PRIVATE.

    Raises:
        Corrupt: stored views differ from what was written.
    """
    folder = places.cache_dir / "views" / views_key(dataset, split)
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _write_views(folder, dataset, split)
    return _open_views(folder, dataset, split)


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
        meta = {"datasets": [dataset.identity], "split": split.model_dump(mode="json"), "digest": written}
        (temporary / META_NAME).write_text(json.dumps(meta, indent=1))


def _view_of_rows(dataset: ShardSet, rows: NDArray[np.int64], split: SplitConfig) -> NDArray[np.uint8]:
    crops = dataset.images(rows)
    small = encode_view(crops, split)
    if split.region == "all":
        return small
    size_px = (dataset.manifest.height_px, dataset.manifest.width_px)
    replaced = decode_view(small, split, size_px=size_px)
    for place, row in enumerate(rows):
        hidden = hidden_pixels(
            split.region, dataset.keypoints[row], dataset.visible[row], float(dataset.head_size_px[row]), size_px=size_px
        )
        crops[place][hidden] = replaced[place][hidden]
    return crops


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
    path = folder / META_NAME
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); remove {folder} and run again") from None
    if not isinstance(meta, dict) or "digest" not in meta:
        raise Corrupt(f"{path} lacks its digest; remove {folder} and run again")
    return meta


def _verify(path: Path, expected: str, dataset: ShardSet) -> None:
    if not path.is_file():
        raise Corrupt(f"{path} is missing; remove {path.parent} and run again")
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size, expected)
    if key in _verified:
        return
    if dataset.outer_digest(_sha256_of(path)) != expected:
        raise Corrupt(f"{path}: its bytes are not those that were written; remove {path.parent} and run again")
    _verified.add(key)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
