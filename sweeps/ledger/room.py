"""What reservations cost together, and whether one more still fits under a cap.

Composing many noise levels takes seconds, so a cap is not composed anew for every trial: what was once found to fit with
some trials to spare is remembered, and whatever is part of it fits too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.ledger.charges import charges_of
from sweeps.ledger.lines import LedgerLine, Reservation

if TYPE_CHECKING:
    from dpcore.privacy.composition import Charge

Compose = Callable[[Iterable[tuple["Charge", int]], float], float]
"""ε at δ of everything together, each charge with how often it was made: `dpcore.privacy.composition.price`."""

MOST_TO_SPARE = 64


class Room:
    """What is known to fit under caps, for one process."""

    def __init__(self) -> None:
        self._fits: dict[tuple[str, float, float], Counter[Charge]] = {}
        self._spare: dict[tuple[str, float, float], int] = {}

    def check(self, reservation: Reservation, own: Sequence[LedgerLine], *, cap: float, compose: Compose) -> None:
        """Lets a reservation pass that fits.

        Args:
            reservation: what is wanted.
            own: the lines that charge the same people.
            cap: largest ε of all their reservations, at the smallest δ among them.
            compose: the accountant's composition.

        Raises:
            Refused: it would pass the cap.
        """
        # A larger δ gives a smaller ε: at its own, a late run could pass a cap that was set at the δ of the others.
        delta = min(reservation.delta, *(line.delta for line in own), 1.0)
        place = (reservation.cohort, delta, cap)
        wanted = Counter(dict(charges_of(spent([*own, reservation]))))
        is_open = any(line.kind == "unseal" for line in own)
        if not is_open and (
            wanted <= self._fits.get(place, Counter()) or self._fits_with_some_to_spare(place, wanted, reservation, compose)
        ):
            return
        after, now = (total(lines, delta, compose) for lines in ([*own, reservation], own))
        raise Refused(
            f"epsilon_total {cap:g} on {reservation.dataset} would be passed: {reservation.trial_id} would bring it to {after:.4g} "
            f"(now {now:.4g}, at delta {delta:g}); raise sweep.epsilon_total or run fewer trials"
        )

    def _fits_with_some_to_spare(
        self, place: tuple[str, float, float], wanted: Counter[Charge], reservation: Reservation, compose: Compose
    ) -> bool:
        """Tries `wanted` with more of the same beside it, and with what fitted before; ever less, as the cap comes near."""
        _, delta, cap = place
        spare = self._spare.get(place, MOST_TO_SPARE)
        while spare:
            more = wanted | self._fits.get(place, Counter())
            more.update({charge: spare for charge, _ in charges_of(spent([reservation]))})
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
    """
    found = list(lines)
    if any(isinstance(line, LedgerLine) and line.kind == "unseal" for line in found):
        return math.inf
    charges = charges_of(spent(found))
    return compose(charges, delta) if charges else 0.0


def spent(lines: Iterable[LedgerLine | Reservation]) -> list[LedgerLine | Reservation]:
    """The reservations among `lines` that count under a finite ε."""
    return [line for line in lines if line.event == "gaussian" and (not isinstance(line, LedgerLine) or line.kind == "reserve")]
