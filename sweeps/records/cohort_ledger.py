"""The ledger of a cohort: its address stands in the dataset, its cap for all time in the ledger itself.

A protected dataset names its ledger when it is imported, and every storage charges that one. So four storages, a re-import
at another crop size or a copy of the folder are one account. A copy that cannot reach the ledger is refused.

The cap is an RDP filter: later sweeps are planned on the results of earlier ones, and PLD would not hold for their sum. Its order is
fixed here, before anything is spent, and stands under the ledger's hash. A filter needs no choice to be fixed beforehand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import BadInput, Refused
from sweeps.ledger.charges import FilterTerms
from sweeps.ledger.database import file_of, shown
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lines import LedgerLine
from sweeps.storage.urls import sqlite_url

if TYPE_CHECKING:
    from dpcore.data.shards import ShardSet

UNSAID = (
    "{folder} was imported by a version in which protected people named no ledger, so each storage counted for itself. Say once which "
    "ledger holds them: `dpsweep data ledger {folder} --ledger STORAGE/ledger.sqlite --epsilon-total E --earlier-unit image` goes on with "
    "the one of your sweeps, and tells it the unit that 0.1.0 did not write down; without --ledger a new one is made beside the dataset"
)


def bind_ledger(
    dataset: ShardSet, *, ledger: str | None, epsilon_total: float | None, delta: float | None, earlier_unit: str = ""
) -> LedgerLine:
    """Names the ledger of a PRIVATE dataset's people in its manifest and opens their account there, with a cap or none.

    Args:
        dataset: whose people.
        ledger: a SQLAlchemy URL or a file's path; None: what a dataset of the same people beside it names, else a file beside it.
        epsilon_total: most ε that they are ever charged; None keeps what stands, or sets no cap.
        delta: of the cap; None: one tenth over the number of their photographs.
        earlier_unit: the unit of the lines of 0.1.0 that stand in the ledger.

    Raises:
        Refused: another dataset of the same people names another ledger. BadInput: it is PUBLIC, or the URL holds a password.
    """
    from dpcore.data.manifest import name_ledger
    from dpcore.data.shards import ledgers_of

    manifest, cohort = dataset.manifest, dataset.members.cohort
    if manifest.role == "PUBLIC":
        raise BadInput(f"{manifest.name} is PUBLIC: nobody in it is charged; leave --ledger and --epsilon-total out")
    known = sorted(ledgers_of(cohort, dataset.folder))
    asked = None if ledger is None else _url_of(ledger)
    if known and asked not in (None, known[0]):
        raise Refused(
            f"the people of {manifest.name} (cohort {cohort}) are charged to {shown(known[0])}, as another dataset of theirs beside it "
            "says; leave --ledger out"
        )
    url = known[0] if known else asked or manifest.ledger or sqlite_url(dataset.folder.parent / f"{cohort}.ledger.sqlite")
    opened_ledger = Ledger(url)
    if earlier_unit:
        opened_ledger.state_unit(cohort, earlier_unit)
    opened = open_account(
        opened_ledger, cohort, manifest.name, epsilon_total=epsilon_total, delta=delta or 1 / (10 * len(dataset.members.image_ids))
    )
    name_ledger(dataset.folder, url)
    return opened


def open_account(ledger: Ledger, cohort: str, dataset: str, *, epsilon_total: float | None, delta: float) -> LedgerLine:
    """The line that opens a cohort's account, written where there is none yet or another cap is asked for.

    Raises:
        Refused: δ leaves no room for the cap, or what stands already passes it.
    """
    lines = ledger.lines(cohort=cohort)
    opened = [line for line in lines if line.kind == "open"]
    if opened and epsilon_total in (None, opened[-1].epsilon):
        return opened[-1]
    terms = None if epsilon_total is None else cap_terms(cohort, epsilon_total, delta)
    return ledger.open_account(cohort, dataset, number=len(opened), terms=terms, epsilon=epsilon_total, delta=delta)


def cap_terms(cohort: str, epsilon: float, delta: float) -> FilterTerms:
    """The filter that keeps a cohort within ε at δ. Its order is the best one for Gaussians that use the cap up.

    Raises:
        Refused: no order leaves room.
    """
    from dpcore.privacy.composition import ORDERS, filter_budget, order_for

    room = [(one, budget) for one in (order_for(epsilon, delta), *ORDERS) if (budget := filter_budget(one, epsilon, delta)) > 0]
    if not room:
        raise Refused(f"--epsilon-total {epsilon:g} at delta {delta:g} leaves no room at any order of an RDP filter; raise it")
    chosen, budget = room[0]
    return FilterTerms(sweep=f"cohort {cohort}", order=chosen, rdp=budget)


def require_account(url: str, cohort: str, *, dataset: str) -> None:
    """Refuses a ledger that does not know a cohort: the one that the dataset names is elsewhere, or lost.

    Raises:
        Refused: it is not there, went back in time, or holds no account of these people.
    """
    file = file_of(url)
    where = f"{dataset} names the ledger {shown(url)} for its people (cohort {cohort})"
    remedy = f"bring it back, or say where it lies now with `dpsweep data ledger {dataset} --ledger URL|PATH`"
    if file is not None and not file.is_file():
        raise Refused(f"{where}, which is not there: nothing is spent without it. {remedy}")
    ledger = Ledger(url, read_only=file is not None)
    ledger.require_whole()
    if not any(line.kind == "open" for line in ledger.lines(cohort=cohort)):
        raise Refused(f"{where}, which holds no account of them: it is another one. {remedy}")


def charged_url(dataset: ShardSet) -> str | None:
    """The ledger that a PRIVATE dataset names, held against its account; None for a stand-in that names none.

    Raises:
        Refused: protected people without a ledger, or with one that does not know them.
    """
    manifest = dataset.manifest
    if manifest.ledger is None:
        if manifest.protected:
            raise Refused(UNSAID.format(folder=dataset.folder))
        return None
    require_account(manifest.ledger, dataset.members.cohort, dataset=str(dataset.folder))
    return manifest.ledger


def _url_of(given: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in given:
        return sqlite_url(Path(given).absolute())
    try:
        parsed = make_url(given)
    except ArgumentError:
        raise BadInput(f"--ledger: {given!r} is neither a path nor a database URL such as postgresql+psycopg://host/db") from None
    if parsed.password is not None:
        raise BadInput("--ledger: the URL with its password would stand in the dataset's manifest; leave it to ~/.pgpass")
    file = file_of(given)
    return given if file is None else sqlite_url(file.absolute())
