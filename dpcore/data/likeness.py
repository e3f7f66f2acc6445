"""Finds pictures of PUBLIC data that look like PRIVATE pictures, and reports them so that a person can check them.

A content hash finds only identical bytes. A perceptual hash also finds a photograph that was saved, scaled or cropped again. It makes
errors in both directions, so a match is no reason to refuse the data.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.config import Places, digest_of
from dpcore.data.folders import cached_folder
from dpcore.data.shards import ShardSet, iterate_rows
from dpcore.data.views import META_NAME

COLUMNS, ROWS = 9, 8
MOST_DIFFERENT_BITS = 8
"""Limit of 64 bits for two pictures that look alike. It finds all of 600 synthetic crops saved as JPEG (quality 60) or scaled to 40 px and
back, and 83 % of those whose border of 2 px of 64 was cut off. It finds none of 640,800 pairs of LSPET photographs (the nearest differ
in 9 bits) and none of 360,000 pairs of synthetic people."""
HASHES_NAME = "hashes.npy"
LIKENESS_VERSION = 1
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How many pictures of a PUBLIC dataset look like one of a PRIVATE dataset.

    Attributes:
        public, private: the datasets' names.
        alike: number of public pictures that have a private picture within `MOST_DIFFERENT_BITS`.
        first: origin of the first of them.
    """

    public: str
    private: str
    alike: int
    first: str

    @property
    def text(self) -> str:
        """One line for a person. It names only pictures of the PUBLIC dataset."""
        return (
            f"{self.alike} pictures of {self.public} look like pictures of {self.private} (the first is {self.first}): "
            "if they are the same photographs, remove them from one of the two"
        )


def difference_hashes(dataset: ShardSet) -> NDArray[np.uint64]:
    """dHash of each crop, (N,) uint64. Each bit says whether one of 8 × 8 grey cells is darker than its right neighbour (Krawetz 2013)."""
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    rows, columns = _cells(dataset.manifest.height_px, ROWS), _cells(dataset.manifest.width_px, COLUMNS)
    found = []
    for indices in iterate_rows(dataset):
        grey = dataset.images(indices).astype(np.float32).mean(axis=-1)
        cells = np.einsum("ih,bhw,jw->bij", rows, grey, columns, optimize=True)
        bits = (cells[:, :, :-1] < cells[:, :, 1:]).reshape(len(indices), -1)
        found.append((bits * weights).sum(axis=1, dtype=np.uint64))
    return np.concatenate(found)


def likeness_of(public: ShardSet, private: ShardSet, places: Places) -> Likeness | None:
    """The pictures of `public` that look like one of `private`, or None. Hashes are cached by dataset."""
    ours, theirs = _cached_hashes(public, places), _cached_hashes(private, places)
    near = np.zeros(len(ours), dtype=bool)
    for start in range(0, len(ours), _BLOCK):
        block = ours[start : start + _BLOCK]
        different = np.bitwise_count(block[:, None] ^ theirs[None, :])
        near[start : start + _BLOCK] = (different <= MOST_DIFFERENT_BITS).any(axis=1)
    if not near.any():
        return None
    first = str(public.source_ids[int(np.argmax(near))])
    return Likeness(public=public.manifest.name, private=private.manifest.name, alike=int(near.sum()), first=first)


def _cached_hashes(dataset: ShardSet, places: Places) -> NDArray[np.uint64]:
    folder = places.cache_dir / "likeness" / digest_of({"version": LIKENESS_VERSION, "dataset": dataset.identity})

    def build(temporary: Path) -> None:
        np.save(temporary / HASHES_NAME, difference_hashes(dataset))
        (temporary / META_NAME).write_text(json.dumps({"datasets": [dataset.identity]}), encoding="utf-8")

    cached_folder(folder, build, private=dataset.manifest.role == "PRIVATE")
    hashes: NDArray[np.uint64] = np.load(folder / HASHES_NAME, allow_pickle=False)
    return hashes


def _cells(size_px: int, count: int) -> NDArray[np.float32]:
    """Means of `count` equal strips of an axis, (count, size_px)."""
    edges = np.linspace(0, size_px, count + 1).round().astype(int)
    strips = np.zeros((count, size_px), dtype=np.float32)
    for strip, (low, high) in enumerate(itertools.pairwise(edges)):
        strips[strip, low:high] = 1.0 / max(high - low, 1)
    return strips
