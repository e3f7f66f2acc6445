"""Divides the people of validation data: some for the search, the others for the verdict.

A person's part follows from the name of their picture (of their video, where it has one) and from nothing else. So it is the same in every
sweep, on every machine, and whoever else is in the dataset. People of one picture stay together.

*Guarantees*: a person added to private validation data moves nobody else from one part to the other. With a smaller `search_frac` the
search sees a subset of the same people, so verdict people stay unseen across sweeps.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from dpcore.config.scored_people import ScoredPeople
from dpcore.data.shards import ShardSet
from dpcore.errors import BadInput

DOMAIN = b"dpsweep validation part 1|"
"""Goes before the name, so that no other use of it has the same hash. Never change it: verdict people would be seen."""


def rows_of(dataset: ShardSet, people: ScoredPeople) -> NDArray[np.int64]:
    """The rows (M,) of a part, rising.

    Raises:
        BadInput: nobody is in it.
    """
    names = np.where(dataset.video_ids != "", dataset.video_ids, np.where(dataset.image_ids != "", dataset.image_ids, dataset.source_ids))
    known = {name: fraction_of(name) < people.search_frac for name in set(names.tolist())}
    is_searched = np.array([known[name] for name in names.tolist()], dtype=bool)
    rows = np.flatnonzero(is_searched if people.part == "search" else ~is_searched).astype(np.int64)
    if not len(rows):
        raise BadInput(
            f"{dataset.manifest.name}: of its {len(dataset)} people nobody is left for the {people.part}; give validation data with more "
            f"pictures, another sweep.validation_search_frac (it is {people.search_frac:g}), or null: then all people serve both"
        )
    return rows


def fraction_of(name: str) -> float:
    """A number in [0, 1) that follows from a name alone, uniform over names: the first 64 bits of its sha256."""
    return int.from_bytes(hashlib.sha256(DOMAIN + name.encode()).digest()[:8], "big") / 2**64
