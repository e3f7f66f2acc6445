"""How a line of the ledger is priced: by itself, under the RDP filter of its sweep, or as a private selection."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dpcore.errors import Corrupt

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending
    from dpcore.privacy.composition import Charge, Filtered, Selected, SelectionAccountant


Compose = Callable[[Iterable[tuple["Charge", int]], float], float]
"""ε at δ of everything together, each charge with how often it was made: `dpcore.privacy.composition.price`."""


ACCOUNTANTS: dict[str, SelectionAccountant] = {"rdp": "rdp", "profile": "profile"}
"""Of a selection, as lines name them."""


@dataclass(frozen=True, kw_only=True)
class FilterTerms:
    """The RDP filter of a sweep, as fixed before its first trial. `sweep` names it: each sweep opens its own."""

    sweep: str
    order: int
    rdp: float

    def text(self) -> str:
        """As `Reservation.priced_by`."""
        return _compact({"filter": asdict(self)})

    def charge(self) -> Filtered:
        """What it may let through."""
        from dpcore.privacy.composition import Filtered

        return Filtered(self.order, self.rdp)


@dataclass(frozen=True, kw_only=True)
class SelectionTerms:
    """The law of the number of trials of which only the best is released. `shape`: 1 geometric, 0 logarithmic, inf Poisson.
    `accountant`: which bound was promised; a text without one is of RDP."""

    mean_trials: float
    shape: float
    accountant: SelectionAccountant = "rdp"

    def text(self) -> str:
        """As `Reservation.priced_by`."""
        shape = "inf" if math.isinf(self.shape) else self.shape
        accountant = {} if self.accountant == "rdp" else {"accountant": self.accountant}
        return _compact({"selection": {"mean_trials": self.mean_trials, "shape": shape, **accountant}})

    def charge(self, spending: Spending) -> Selected:
        """The best of such runs."""
        from dpcore.privacy.composition import Selected

        return Selected(spending, self.mean_trials, self.shape, self.accountant)


Terms = FilterTerms | SelectionTerms | None


class Priced(Protocol):
    """What a charge is made of: a reservation or a line."""

    @property
    def spending(self) -> Spending:
        """Of one run."""

    @property
    def priced_by(self) -> str:
        """Terms as text; empty for a run that is priced by itself."""


def read_terms(text: str) -> Terms:
    """The terms behind `priced_by`.

    Raises:
        Corrupt: the text is none that we write.
    """
    if not text:
        return None
    try:
        ((kind, values),) = json.loads(text).items()
        if kind == "filter":
            return FilterTerms(sweep=str(values["sweep"]), order=int(values["order"]), rdp=float(values["rdp"]))
        if kind == "selection":
            accountant = ACCOUNTANTS[values.get("accountant", "rdp")]
            return SelectionTerms(mean_trials=float(values["mean_trials"]), shape=float(values["shape"]), accountant=accountant)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"priced_by {text!r} is not what a ledger of this version holds ({error}); use the version that wrote it") from None
    raise Corrupt(f"priced_by {text!r}: expected a filter or a selection; use the version that wrote it")


def own_charge(line: Priced) -> Spending | Selected:
    """What a line promises by itself. A run behind a filter still keeps its own ε."""
    terms = read_terms(line.priced_by)
    return terms.charge(line.spending) if isinstance(terms, SelectionTerms) else line.spending


def charges_of(lines: Iterable[Priced]) -> list[tuple[Charge, int]]:
    """The charges of lines together: equal ones are counted, as composition is much faster that way; a filter counts once,
    and in full, from its first line on."""
    found: Counter[Charge] = Counter()
    filters: set[FilterTerms] = set()
    for line in lines:
        terms = read_terms(line.priced_by)
        if isinstance(terms, FilterTerms):
            filters.add(terms)
        else:
            found[own_charge(line)] += 1
    return [*found.items(), *((terms.charge(), 1) for terms in sorted(filters, key=FilterTerms.text))]


def passes_filter(lines: Iterable[Priced], wanted: Priced) -> bool:
    """Whether `wanted` would spend more than its filter has left after `lines`; never where it has none."""
    terms = read_terms(wanted.priced_by)
    if not isinstance(terms, FilterTerms):
        return False
    before = [line.spending for line in lines if line.priced_by == wanted.priced_by]
    return not terms.charge().admits(before, wanted.spending)


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
