"""What reservations cost together, and whether one more still fits under a cap.

Composing many noise levels takes seconds, so a cap is not composed anew for every trial: what was once found to fit with
some trials to spare is remembered, and whatever is part of it fits too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.ledger.charges import Compose as Compose
from sweeps.ledger.charges import charges_of
from sweeps.ledger.lines import LedgerLine, Reservation
from sweeps.ledger.totals import counted, seen_per, totals_of

if TYPE_CHECKING:
    from dpcore.privacy.composition import Charge

MOST_TO_SPARE = 64


class Room:
    """What is known to fit under caps, for one process."""

    def __init__(self) -> None:
        self._fits: dict[tuple[str, float, float], Counter[Charge]] = {}
        self._spare: dict[tuple[str, float, float], int] = {}

    def check(
        self, reservation: Reservation, own: Sequence[LedgerLine], *, cap: float, compose: Compose, is_planned_whole: bool = True
    ) -> None:
        """Lets a reservation pass that fits.

        Args:
            reservation: what is wanted.
            own: the lines that charge the same people.
            cap: largest ε of all their reservations, at the smallest δ among them.
            compose: the accountant's composition.
            is_planned_whole: as in `Ledger.reserve`.

        Raises:
            Refused: it would pass the cap.
        """
        seen, reason = seen_per(counted([*own, reservation]), reservation.unit)
        if reason:
            raise Refused(f"epsilon_total {cap:g} on {reservation.dataset} cannot be held for {reservation.trial_id}: {reason}")
        # A larger δ gives a smaller ε: at its own, a late run could pass a cap that was set at the δ of the others.
        delta = min(line.delta for line in seen or [reservation])
        fixed = fixed_order(seen, reservation.sweep if is_planned_whole else "", cap, delta)
        place = (f"{reservation.cohort} {reservation.unit}", delta, cap)
        wanted = Counter(dict([*charges_of(seen), *fixed]))
        is_open = any(line.kind == "unseal" for line in own)
        if not is_open and (
            wanted <= self._fits.get(place, Counter()) or self._fits_with_some_to_spare(place, wanted, reservation, compose)
        ):
            return
        now = charges_of([line for line in seen if line is not reservation])
        before, after = (math.inf if is_open else compose(charges, delta) for charges in ([*now, *fixed], wanted.items()))
        how = " by an RDP filter, as later sweeps are planned on earlier results" if fixed else ""
        raise Refused(
            f"epsilon_total {cap:g} on {reservation.dataset} would be passed: {reservation.trial_id} would bring it to {after:.4g} "
            f"(now {before:.4g}, at delta {delta:g}{how}); raise sweep.epsilon_total or run fewer trials"
        )

    def _fits_with_some_to_spare(
        self, place: tuple[str, float, float], wanted: Counter[Charge], reservation: Reservation, compose: Compose
    ) -> bool:
        """Tries `wanted` with more of the same beside it, and with what fitted before; ever less, as the cap comes near."""
        _, delta, cap = place
        spare = self._spare.get(place, MOST_TO_SPARE)
        while spare:
            more = wanted | self._fits.get(place, Counter())
            more.update({charge: spare for charge, _ in charges_of([reservation])})
            if compose(more.items(), delta) <= cap:
                self._fits[place] = more
                return True
            spare = self._spare[place] = spare // 4
        fits = compose(wanted.items(), delta) <= cap
        if fits:
            self._fits[place] = wanted
        return fits


def total(lines: Iterable[LedgerLine | Reservation], delta: float, compose: Compose) -> float:
    """ε at `delta` of reservations together.

    A sealed run counts nothing until an `unseal` line shows it: then the sum is ∞.

    Raises:
        Refused: they are promised to unlike units: `totals_of` gives one total for each.
    """
    found = list(lines)
    if any(isinstance(line, LedgerLine) and line.kind == "unseal" for line in found):
        return math.inf
    totals = totals_of(found, delta, compose)
    if len(totals) > 1:
        raise Refused(f"there is no one total: {'; '.join(one.text() for one in totals)}")
    return totals[0].epsilon or 0.0 if totals else 0.0


def fixed_order(lines: Iterable[Reservation], sweep: str, cap: float, delta: float) -> list[tuple[Charge, int]]:
    """What makes a cap a filter where other sweeps stand beside `sweep`: their results may have decided what it does. The order
    follows from the cap, so it is fixed before anything is spent under it. One sweep alone was planned beforehand: PLD holds."""
    from dpcore.privacy.composition import AtOrder, order_for

    return [(AtOrder(order_for(cap, delta)), 1)] if any(line.sweep != sweep for line in lines) else []
