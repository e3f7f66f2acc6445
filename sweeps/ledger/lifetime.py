"""A cohort's cap for all time: an RDP filter whose order and budget stand in the line that opened its account."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.ledger.charges import FilterTerms, charges_of, read_terms
from sweeps.ledger.lines import LedgerLine, Reservation
from sweeps.ledger.totals import SIZES, seen_per

if TYPE_CHECKING:
    from dpcore.privacy.composition import Charge

TOLERANCE = 1e-9


def lifetime_cap(lines: Iterable[LedgerLine]) -> FilterTerms | None:
    """The filter of a cohort's newest account line; None without a cap."""
    opened = [line for line in lines if line.kind == "open"]
    terms = read_terms(opened[-1].priced_by) if opened else None
    return terms if isinstance(terms, FilterTerms) else None


def check_lifetime(terms: FilterTerms, charged: Sequence[LedgerLine | Reservation], wanted: str, ledger: str) -> None:
    """Refuses what would pass the cap, for the largest unit that is promised anything. Unlike units have no place under one cap.

    Raises:
        Refused: it would, or the lines are promised to unlike units and have no total.
    """
    if not charged:
        return
    unit = max((line.unit for line in charged), key=lambda one: SIZES.get(one, -1))
    seen, reason = seen_per(charged, unit)
    if reason:
        raise Refused(f"the cap of {terms.sweep} cannot be held for {wanted}: {reason}. Run it in the unit of what stands in {ledger}")
    after = rdp_together(seen, terms.order)
    if after > terms.rdp * (1 + TOLERANCE):
        raise Refused(
            f"{wanted} would pass the cap of {terms.sweep} for all time: RDP {after:.4g} of {terms.rdp:.4g} at order {terms.order} (ledger "
            f"{ledger}). Nobody can be charged more; `dpsweep data ledger DATASET --epsilon-total E` raises it, in a line that stays"
        )


def check_planned(
    terms: FilterTerms, standing: Sequence[LedgerLine | Reservation], planned: Sequence[tuple[Charge, int]], unit: str
) -> None:
    """Refuses a plan whose trials would pass the cap before they all ran.

    Raises:
        Refused: it would; nothing has been touched.
    """
    from dpcore.privacy.composition import rdp_of_all

    seen, reason = seen_per(standing, unit)
    if reason:
        raise Refused(f"the cap of {terms.sweep} cannot be held for this sweep: {reason}")
    charges = [*charges_of(seen), *planned]
    replaced = any(getattr(charge, "relation", "") == "replace" for charge, _ in charges)
    after = rdp_of_all(charges, terms.order, replaced=replaced)
    if after is None or after > terms.rdp * (1 + TOLERANCE):
        found = "unknown" if after is None else f"{after:.4g}"
        raise Refused(
            f"the planned trials would pass the cap of {terms.sweep} for all time: RDP {found} of {terms.rdp:.4g} at order {terms.order} "
            f"({len(standing)} reservations stand already); plan fewer trials, or raise the cap with `dpsweep data ledger DATASET "
            "--epsilon-total E`"
        )


def rdp_together(lines: Sequence[LedgerLine | Reservation], order: int) -> float:
    """RDP of all lines at `order`; with a claim of replacement among them, of one unit removed and another added."""
    from dpcore.privacy.composition import rdp_of_all

    charges = charges_of(lines)
    replaced = any(line.relation == "replace" for line in lines)
    found = rdp_of_all(charges, order, replaced=replaced)
    return math.inf if found is None else found
