"""What a ledger's lines cost together, one total per unit of privacy: a promise to a video is no promise to an image.

| line | counts for a total per its own unit | per a smaller unit in it | per a larger unit |
|---|---|---|---|
| priced by itself | as it is | as a replacement: the rest of the unit changes its one row | no total: how many it holds is not known |
| a selection, or behind a filter | as it is | no total: RDP has no such bound | no total |
| of 0.1.0, which said no unit | beside lines like it alone | no total | no total |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from dpcore.config import SplitConfig, digest_of
from sweeps.ledger.charges import charges_of
from sweeps.ledger.lines import LedgerLine, Reservation

if TYPE_CHECKING:
    from dpcore.data.regions import Region
    from sweeps.ledger.charges import Compose

SIZES = {"person": 0, "image": 1, "video": 2}
NOUNS = {"": "a unit that 0.1.0 did not write down", "person": "an annotated person", "image": "an image", "video": "a video"}


@dataclass(frozen=True, kw_only=True)
class UnitTotal:
    """What all reservations together promise to one unit.

    Attributes:
        unit: empty where the lines do not say it.
        epsilon: at `delta`; None: there is no total, and `reason` says why.
        relation: of the neighbouring datasets. labels: `public` where any line gave them away. views: splits that are out.
        converted: how many lines of larger units were counted as replacements.
        accountant: which one gives `epsilon`.
    """

    unit: str
    epsilon: float | None
    delta: float
    relation: str = "add_remove"
    labels: str = ""
    views: tuple[str, ...] = ()
    converted: int = 0
    reason: str = ""
    accountant: str = ""

    def text(self) -> str:
        """One line: the number with its unit, its neighbours and what is public."""
        noun = NOUNS[self.unit]
        if self.epsilon is None:
            return f"no total for {noun}: {self.reason}"
        change = "replaced by another" if self.relation == "replace" else "added or removed"
        number = "∞" if math.isinf(self.epsilon) else f"{self.epsilon:.4g}"
        said = [f"ε = {number} at δ = {self.delta:.3g} for {noun}, {change}"]
        said += [f"public: {', '.join(self.views)}"] if self.views else []
        said += [f"labels {self.labels}"] if self.labels else []
        said += [f"{self.converted} lines of larger units counted as replacements"] if self.converted else []
        said += [f"by {self.accountant}"] if self.accountant else []
        return "; ".join(said)


def totals_of(lines: Sequence[LedgerLine | Reservation], delta: float, compose: Compose) -> tuple[UnitTotal, ...]:
    """One total per unit that stands in the lines of one cohort, the smallest unit first."""
    units = sorted({line.unit for line in counted(lines)}, key=lambda unit: SIZES.get(unit, -1))
    return tuple(total_of(lines, unit, delta, compose) for unit in units)


def total_of(lines: Sequence[LedgerLine | Reservation], unit: str, delta: float, compose: Compose) -> UnitTotal:
    """The total of the lines of one cohort per `unit`."""
    counting = counted(lines)
    seen, reason = seen_per(counting, unit)
    views, labels = published_views(lines), {line.labels for line in counting} - {""}
    total = UnitTotal(
        unit=unit,
        epsilon=None,
        delta=delta,
        relation="replace" if any(line.relation == "replace" for line in seen) else "add_remove",
        labels="public" if "public" in labels else "private" if labels else "",
        views=views,
        converted=sum(line.unit != unit for line in counting),
        reason=reason,
    )
    if reason:
        return total
    if any(isinstance(line, LedgerLine) and line.kind == "unseal" for line in lines):
        return replace(total, epsilon=math.inf)
    charges = charges_of(seen)
    if not charges:
        return replace(total, epsilon=0.0)
    from dpcore.privacy.composition import accountant_of

    accountant = accountant_of(charges)
    if accountant == "PLD" and len({line.sweep for line in seen}) > 1:
        accountant = "PLD, as if all had been fixed beforehand (caps over several sweeps are held by an RDP filter)"
    return replace(total, epsilon=compose(charges, delta), accountant=accountant)


def seen_per(lines: Sequence[LedgerLine | Reservation], unit: str) -> tuple[list[LedgerLine | Reservation], str]:
    """The lines as a promise to `unit`, or why there is none."""
    seen: list[LedgerLine | Reservation] = []
    for line in lines:
        if line.unit == unit:
            seen.append(line)
            continue
        if not line.unit or not unit:
            return [], f"lines of 0.1.0 beside others ({line.sweep} {line.trial_id}) do not say their unit, and unlike units do not add up"
        if SIZES[line.unit] < SIZES[unit]:
            return [], f"{line.sweep} {line.trial_id} is promised per {line.unit}, and how many of those a {unit} holds is not known"
        if line.priced_by:
            return [], f"{line.sweep} {line.trial_id} is a selection or behind a filter per {line.unit}, which RDP cannot convert"
        seen.append(replace(line, relation="replace"))
    return seen, ""


def counted(lines: Iterable[LedgerLine | Reservation]) -> list[LedgerLine | Reservation]:
    """The reservations among the lines of one cohort that count under a finite ε. Lines of 0.1.0 have the unit stated later."""
    found: list[LedgerLine | Reservation] = []
    stated = {}
    for line in lines:
        if line.event == "note" and line.unit and isinstance(line, LedgerLine):
            stated[line.number] = line.unit
        if line.event == "gaussian" and (not isinstance(line, LedgerLine) or line.kind == "reserve"):
            found.append(line)
    if not stated:
        return found
    last, unit = max(stated.items())
    return [replace(one, unit=unit) if not one.unit and isinstance(one, LedgerLine) and one.number < last else one for one in found]


def views_text(splits: Iterable[SplitConfig]) -> str:
    """Splits as `Reservation.views`: transform, region and a digest of what changes the view's bytes."""
    found = {
        f"{split.transform}/{split.region}#{digest_of(split.model_dump(mode='json', exclude={'name', 'sharpen'}))[:8]}" for split in splits
    }
    return json.dumps(sorted(found), separators=(",", ":"))


def published_views(lines: Iterable[LedgerLine | Reservation]) -> tuple[str, ...]:
    """Every view of the cohort that is out, as any line says."""
    return tuple(sorted({view for line in lines if line.views for view in json.loads(line.views)}))


def published_regions(lines: Iterable[LedgerLine | Reservation]) -> set[Region]:
    """The regions that those views hide."""
    from dpcore.data.regions import Region

    named = {view.partition("/")[2].partition("#")[0] for view in published_views(lines)}
    return {region for region in get_args(Region) if region in named}
