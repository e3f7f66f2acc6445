"""Which people a dataset is about: what a ledger charges, whatever name, crop size or format they come under.

The ledger's key of a dataset is the *name* of its cohort. A stand-in's name is derived from its image ids, so that the same
annotations imported twice are one cohort by themselves. Protected data get the name that their owner gives, or a random
one: nothing that follows from the people may stand in a ledger, and keyed digests of two imports could not be compared,
because each import has a key of its own. A name needs no shared key. What it needs is care, so an import or a sweep looks at
the datasets that lie beside: people who stand in two cohorts would have their ε counted twice separately, and are refused.
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
    """A cohort as one dataset shows it.

    Attributes:
        dataset: the dataset's name; protected: whether they are people to protect.
        cohort: the ledger's key.
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
    """The name of a cohort of protected people whose owner gave none: random, as it will stand in ledgers."""
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
    """Refuses people to protect who stand in two cohorts. Stand-ins may: `dpsweep data info` says so.

    Raises:
        Refused: names the other dataset, its cohort and how many photographs they share.
    """
    for overlap in overlaps_of(own, others):
        if own.protected or overlap.other.protected:
            raise Refused(
                f"{overlap.shared} photographs of {own.dataset} are also in {overlap.other.dataset} beside it in {place}, and the two are "
                f"different cohorts ({own.cohort} and {overlap.other.cohort}): a ledger would count the same people apart. Import it with "
                f"--cohort {overlap.other.cohort} if they are the same people, or leave the shared photographs out of one of the two"
            )
