"""Finds pictures of PUBLIC data that look like PRIVATE pictures, and reports them so that a person can check them.

A content hash finds only identical bytes. A perceptual hash also finds a photograph that was saved, scaled or cropped again. It makes
errors in both directions, so a match is no reason to refuse the data.
"""

from __future__ import annotations

import functools
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

CELLS = 8
"""Grey cells along an axis that give bits; along the other there is one more."""
MOST_DIFFERENT_BITS = 10
"""Limit of 64 bits in each of two hashes for two pictures that look alike. It finds 97 % of 600 LSPET crops saved as JPEG (quality 60),
98 % of those scaled to 40 px and back, and 82 % of those whose border of 2 px of 64 was cut off. It takes 1 of 500 LSPET people for one
of 8,500 others. A single hash of the whole crop took 44, because bars rule it."""
DARKEST_PIXEL = 24
"""Rows and columns without a lighter grey value at the border of a crop are bars: a crop is black beyond its photograph, and JPEG adds a
few grey values."""
HASHES_NAME = "hashes.npy"
LIKENESS_VERSION = 2
LEAST_STEP = 0.01
"""Grey values by which a neighbour is lighter; what is less is rounding."""
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How many pictures of a PUBLIC dataset look like one of a PRIVATE dataset.

    Attributes:
        public, private: the datasets, as they were opened.
        alike: number of public pictures that have a private picture within `MOST_DIFFERENT_BITS` by both hashes.
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
    """Two dHashes of each crop within its bars, (N, 2) uint64. Each bit says whether one of 8 × 8 grey cells is darker than its right
    neighbour, in the second hash than its lower one (Krawetz 2013)."""
    found = [_hashes_of(image) for indices in iterate_rows(dataset) for image in dataset.images(indices)]
    return np.array(found, dtype=np.uint64).reshape(-1, 2)


def _hashes_of(image: NDArray[np.uint8]) -> tuple[np.uint64, np.uint64]:
    grey = _within_bars(image.astype(np.float32).mean(axis=-1))
    across = _cells(grey.shape[0], CELLS) @ grey @ _cells(grey.shape[1], CELLS + 1).T
    down = _cells(grey.shape[0], CELLS + 1) @ grey @ _cells(grey.shape[1], CELLS).T
    return _number(np.diff(across, axis=1) > LEAST_STEP), _number(np.diff(down, axis=0) > LEAST_STEP)


def _within_bars(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part (h, w) of a crop (H, W) that its photograph covers; all of it where less than a cell each is left."""
    rows, columns = (np.flatnonzero(grey.max(axis=axis) > DARKEST_PIXEL) for axis in (1, 0))
    if min(len(rows), len(columns)) <= CELLS:
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _number(bits: NDArray[np.bool_]) -> np.uint64:
    return np.uint64((bits.ravel() * (np.uint64(1) << np.arange(bits.size, dtype=np.uint64))).sum(dtype=np.uint64))


def likeness_of(public: ShardSet, private: ShardSet, places: Places, *, names: tuple[str, str] | None = None) -> Likeness | None:
    """The pictures of `public` that look like one of `private`, or None. Hashes are cached by dataset. `names`: of the two datasets, as a
    person calls them; None: those in their manifests."""
    ours, theirs = _cached_hashes(public, places), _cached_hashes(private, places)
    near = np.zeros(len(ours), dtype=bool)
    for start in range(0, len(ours), _BLOCK):
        block = ours[start : start + _BLOCK]
        different = np.bitwise_count(block[:, None] ^ theirs[None, :])
        near[start : start + _BLOCK] = (different <= MOST_DIFFERENT_BITS).all(axis=2).any(axis=1)
    if not near.any():
        return None
    first = str(public.source_ids[int(np.argmax(near))])
    called = names or (public.manifest.name, private.manifest.name)
    return Likeness(public=called[0], private=called[1], alike=int(near.sum()), first=first)


def _cached_hashes(dataset: ShardSet, places: Places) -> NDArray[np.uint64]:
    folder = places.cache_dir / "likeness" / digest_of({"version": LIKENESS_VERSION, "dataset": dataset.identity})

    def build(temporary: Path) -> None:
        np.save(temporary / HASHES_NAME, difference_hashes(dataset))
        (temporary / META_NAME).write_text(json.dumps({"datasets": [dataset.identity]}), encoding="utf-8")

    cached_folder(folder, build, private=dataset.manifest.role == "PRIVATE")
    hashes: NDArray[np.uint64] = np.load(folder / HASHES_NAME, allow_pickle=False)
    return hashes


@functools.lru_cache(maxsize=64)
def _cells(size_px: int, count: int) -> NDArray[np.float32]:
    """Means of `count` equal strips of an axis, (count, size_px)."""
    edges = np.linspace(0, size_px, count + 1).round().astype(int)
    strips = np.zeros((count, size_px), dtype=np.float32)
    for strip, (low, high) in enumerate(itertools.pairwise(edges)):
        strips[strip, low:high] = 1.0 / max(high - low, 1)
    return strips
