"""Cohorts: the people that a ledger charges, whatever the name, crop size or format of their dataset.

A ledger identifies the people of a dataset by the *name* of their cohort.

- The name of a stand-in is derived from its image ids. So the same annotations imported twice are the same cohort.
- Protected data get a name from their owner, or a random name. The ledger may hold nothing that is computed from the people.
  Keyed digests would not help, because each import has its own key and two digests could not be compared.

An owner can give a wrong name. Then the ledger would count the same people separately. So an import and a sweep look at the datasets in
the same folder, and refuse protected people who are in two cohorts.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Members:
    """The cohort of one dataset.

    Attributes:
        dataset: the dataset's name.
        protected: whether its people are protected.
        cohort: the cohort's name in a ledger.
        image_ids: (U,) sorted, distinct ids of the photographs, the same at every crop size.
    """

    dataset: str
    protected: bool
    cohort: str
    image_ids: NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Photographs that two cohorts share."""

    other: Members
    shared: int


def new_cohort() -> str:
    """A random name for a cohort of protected people, if their owner gave none. Ledgers will hold it."""
    return f"cohort-{secrets.token_hex(6)}"


def derived_cohort(image_ids: NDArray[np.str_]) -> str:
    """The name of a stand-in's cohort: a digest of its distinct photographs, in any order and at any crop size."""
    text = "\x00".join(np.unique(image_ids).tolist())
    return f"people-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def overlaps_of(own: Members, others: list[Members]) -> tuple[Overlap, ...]:
    """The members of other cohorts who are also in `own`."""
    found = []
    for other in others:
        shared = 0 if other.cohort == own.cohort else len(np.intersect1d(own.image_ids, other.image_ids))
        found += [Overlap(other=other, shared=shared)] if shared else []
    return tuple(found)


def check_cohort(own: Members, others: list[Members], *, place: Path) -> None:
    """Refuses protected people who are in two cohorts. Stand-ins are not refused; `dpsweep data info` reports them.

    Raises:
        Refused: the message names the other dataset, its cohort and the number of shared photographs.
    """
    for overlap in overlaps_of(own, others):
        if own.protected or overlap.other.protected:
            raise Refused(
                f"{overlap.shared} photographs of {own.dataset} are also in {overlap.other.dataset} beside it in {place}, and the two are "
                f"different cohorts ({own.cohort} and {overlap.other.cohort}): a ledger would count the same people twice. Import it with "
                f"--cohort {overlap.other.cohort} if they are the same people, or leave the shared photographs out of one of the two"
            )
