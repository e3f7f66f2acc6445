"""Where the studies of a sweep lie: in a journal file of its state, or in a database by URL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.search.journal import SweepJournal, clear_journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Engine

    from sweeps.records.spec import SweepSpec

Together = Callable[[], AbstractContextManager[None]]
"""A block whose entries are one write, where the storage can do that."""


def open_storage(spec: SweepSpec, *, timed: bool) -> tuple[BaseStorage, Together]:
    """The storage of a driver, made on first use.

    Raises:
        Unavailable: the database does not answer. Refused: nothing may be timed, and a database times everything.
    """
    from optuna.storages import JournalStorage, RDBStorage, get_storage

    if spec.study_url is None:
        clear_journal(spec.study_path)
        journal = SweepJournal(spec.study_path, timed=timed)
        return JournalStorage(journal), journal.together
    _check_clocks(timed=timed)
    with _reaching(spec.study_url):
        return get_storage(RDBStorage(spec.study_url)), nullcontext


def read_storage(spec: SweepSpec) -> BaseStorage | None:
    """The storage for a look beside a running driver: nothing is written. None where there is none yet."""
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if spec.study_url is None:
        return JournalStorage(JournalFileBackend(str(spec.study_path))) if spec.study_path.is_file() else None
    if not _study_names(spec.study_url):
        return None
    with _reaching(spec.study_url):
        return get_storage(RDBStorage(spec.study_url, skip_table_creation=True))


def check_new_studies(spec: SweepSpec, *, protected: bool) -> None:
    """Whether a new sweep may keep its studies where it wants to; writes nothing.

    Raises:
        Refused: the database has studies of a sweep of this name, perhaps of another storage, or the data are protected.
        Unavailable: the database does not answer. BadInput: the URL is none that can be used here.
    """
    if spec.study_url is None:
        return
    _check_clocks(timed=not protected)
    if any(name.rpartition("/")[0] == spec.name for name in _study_names(spec.study_url)):
        raise Refused(f"{spec.study_url} has studies of a sweep {spec.name} already; give another --name, or another --study-storage")


def _check_clocks(*, timed: bool) -> None:
    if not timed:
        raise Refused(
            "--study-storage: a database keeps when each trial began and ended, and on protected data how long one took tells how many "
            "records it drew; leave it out, the journal in the sweep's state keeps no times"
        )


def _study_names(url: str) -> list[str]:
    """Of all studies in a database; none where Optuna has made no tables yet."""
    from sqlalchemy import inspect, text

    with _reaching(url), _engine(url) as engine, engine.connect() as connection:
        if not inspect(connection).has_table("studies"):
            return []
        return [str(name) for (name,) in connection.execute(text("SELECT study_name FROM studies"))]


@contextlib.contextmanager
def _engine(url: str) -> Iterator[Engine]:
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise BadInput(
            f"--study-storage: {url} is no database URL that can be used here ({error}); expected one such as sqlite:///studies.sqlite"
        ) from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise Unavailable(f"the studies at {url} cannot be reached: {reason}; start the database, or leave --study-storage out") from None
