"""The lines of a ledger.

A field of a line that has a default may be added at any time: a line's hash leaves out what is at its default, so a ledger
from before keeps its chain, and its table gets the column when it is opened. Any other difference is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from dpcore.config import Relation
from dpcore.errors import Refused

if TYPE_CHECKING:
    from dpcore.privacy.accounting import Spending

GENESIS = "0" * 64
TABLE = "lines"
Kind = Literal["reserve", "settle", "unseal", "open", "publish", "state"]
Event = Literal["gaussian", "non_private", "note"]
LINE_WORDS: dict[str, str] = {
    "reserve": "reserved",
    "settle": "settled",
    "unseal": "unsealed",
    "open": "opened",
    "publish": "published",
    "state": "stated",
}
UNFULFILLED = "unfulfilled"
"""Outcome of a run that did something else than was reserved: it stays charged in full, and its claim is void."""


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What a run is going to spend: `steps` Poisson-subsampled Gaussians at `sampling_prob` and `noise_multiplier`.

    Attributes:
        sweep: the sweep or command; trial_id, attempt: which run of it.
        dataset: the name of the private dataset; cohort: the people in it, who are charged whatever name, crop size or format
            they come under.
        epsilon, delta: the promise that these events add up to; epsilon None is ∞.
        event: `non_private` is a release without noise that is sealed: it costs nothing until an `unseal` line shows it. `note` is
            no release: a line that says something (see `LedgerLine`).
        fingerprint: of the config; key_id: of the key that its randomness comes from.
        priced_by: the terms (`sweeps.ledger.charges`) where the run is not priced by itself.
        relation: of the neighbouring datasets that the promise is about.
        unit: the unit of privacy; examples_per_unit: most examples of one that a step takes. Empty and 0 in lines of 0.1.0.
        views: the splits under which the cohort's public views are out, as `views_text` writes them; empty in lines of 0.1.0.
        labels: whether labels count as public or private; empty in lines of 0.1.0.
    """

    sweep: str
    trial_id: str
    attempt: int = 0
    dataset: str
    cohort: str
    sampling_prob: float
    noise_multiplier: float
    steps: int
    epsilon: float | None
    delta: float
    event: Event = "gaussian"
    fingerprint: str = ""
    key_id: str = ""
    priced_by: str = ""
    relation: Relation = "add_remove"
    unit: str = ""
    examples_per_unit: int = 0
    views: str = ""
    labels: str = ""

    @property
    def spending(self) -> Spending:
        """What an accountant bounds."""
        from dpcore.privacy.accounting import Spending

        return Spending(self.sampling_prob, self.noise_multiplier, self.steps, self.relation)

    @property
    def run(self) -> tuple[str, str, int]:
        """Which run it is: a replay has the same one."""
        return self.sweep, self.trial_id, self.attempt


def note(sweep: str, trial_id: str, *, dataset: str = "", cohort: str = "", views: str = "") -> Reservation:
    """What stands in a line that is no release."""
    return Reservation(
        sweep=sweep,
        trial_id=trial_id,
        dataset=dataset,
        cohort=cohort,
        sampling_prob=0.0,
        noise_multiplier=0.0,
        steps=0,
        epsilon=None,
        delta=1.0,
        event="note",
        views=views,
    )


@dataclass(frozen=True, kw_only=True)
class LedgerLine(Reservation):
    """A line as stored.

    | kind | says |
    |---|---|
    | reserve | this is going to be spent |
    | settle | how the run ended; `steps_done` is bookkeeping, no refund: a stopped trial's claim stays its reservation |
    | unseal | the result of a sealed `non_private` run is shown from here on: ε is ∞ |
    | open | from here on all reservations of the cohort together stay within `epsilon` at `delta`, by the filter in `priced_by` |
    | publish | the cohort's public views under `views` are out, whatever becomes of a cache |
    | state | a person said something of earlier lines: `outcome` says what |

    `at` is a day: finer times would tell how long a run took, and with that how many records it drew.
    """

    number: int
    kind: Kind
    outcome: str = ""
    steps_done: int = 0
    at: str = ""
    previous: str = GENESIS
    hash: str = ""

    def computed_hash(self) -> str:
        """sha256 over every other field that is not at its default, the previous hash included."""
        return hashlib.sha256(self.content().encode()).hexdigest()

    def content(self) -> str:
        """What the hash covers, as JSON."""
        content = {name: value for name in _NAMES if (value := getattr(self, name)) != _DEFAULTS.get(name, MISSING)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(LedgerLine) if f.default is not MISSING}
_NAMES = tuple(f.name for f in fields(LedgerLine) if f.name != "hash")
COLUMNS = tuple(f.name for f in fields(LedgerLine))


def check_columns(there: Collection[str], *, shown: str) -> None:
    """Refuses a table of another version.

    Raises:
        Refused: it lacks what no default can stand for, or has columns that this version does not know.
    """
    unknown, missing = set(there) - set(COLUMNS), [name for name in COLUMNS if name not in there]
    if unknown or any(name not in _DEFAULTS for name in missing):
        raise Refused(
            f"the ledger {shown} was written by another version of dpsweep (columns it has and this one does not know: "
            f"{', '.join(sorted(unknown)) or 'none'}; columns it lacks: {', '.join(missing) or 'none'}); "
            "use that version with it, or start another ledger on purpose with --ledger URL and count both together"
        )


def refuse_no_table(shown: str) -> NoReturn:
    """Says to a reader that a database is no ledger."""
    raise Refused(f"{shown} holds no ledger; name the right one with --ledger URL")


class Reader(Protocol):
    """A look at the table of lines."""

    def hash_of(self, number: int) -> str | None:
        """Of the line of that number; None where there is none."""

    def lines(self, *, after: int = 0) -> tuple[LedgerLine, ...]:
        """All lines in order, of those with a number above `after`. Columns that an older table lacks are at their default."""


class KnownLines:
    """What one process has read of a ledger, so that a line costs the same however many stand before it.

    Attributes:
        last: the newest line.
        all: every line, in order; hashes: by number.
        generation: grows where everything was read again.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._forget()

    def _forget(self) -> None:
        self.last: LedgerLine | None = None
        self.all: list[LedgerLine] = []
        self.hashes: dict[int, str] = {}
        self.generation += 1
        self._of_run: dict[tuple[str, str, int], dict[Kind, LedgerLine]] = {}
        self._of_cohort: dict[str, list[LedgerLine]] = {}
        self._priced_by: dict[str, list[LedgerLine]] = {}

    def catch_up(self, reader: Reader) -> None:
        """Reads what was added since; everything again where the newest line that is known is not there any more."""
        if self.last is not None and reader.hash_of(self.last.number) != self.last.hash:
            self._forget()
        for line in reader.lines(after=0 if self.last is None else self.last.number):
            self._add(line)

    def of_run(self, run: tuple[str, str, int]) -> dict[Kind, LedgerLine]:
        """The lines of a run by their kind."""
        return self._of_run.get(run, {})

    def of_cohort(self, cohort: str) -> Sequence[LedgerLine]:
        """The lines that charge the people of a dataset."""
        return self._of_cohort.get(cohort, ())

    def reserved_under(self, priced_by: str) -> Sequence[LedgerLine]:
        """The reservations that are priced by the same terms."""
        return self._priced_by.get(priced_by, ())

    def _add(self, line: LedgerLine) -> None:
        self.last = line
        self.all.append(line)
        self.hashes[line.number] = line.hash
        self._of_run.setdefault(line.run, {}).setdefault(line.kind, line)
        self._of_cohort.setdefault(line.cohort, []).append(line)
        if line.kind == "reserve" and line.priced_by:
            self._priced_by.setdefault(line.priced_by, []).append(line)
