"""Opens the storage of a sweep's studies: a journal file in its state, or a database by URL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dpcore.errors import BadInput, Corrupt, Refused, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import BaseStorage, JournalStorage
    from sqlalchemy import Engine

    from sweeps.records.spec import SweepSpec
    from sweeps.search.journal import SweepJournal

Together = Callable[[], AbstractContextManager[None]]
"""A block whose entries are stored in one write, if the storage can do that."""


def open_storage(spec: SweepSpec, *, timed: bool) -> tuple[BaseStorage, Together]:
    """The storage of a driver, created on first use.

    Raises:
        Unavailable: the database does not answer.
        Refused: a database stores times, which protected data do not allow.
        Corrupt: the journal is damaged.
    """
    from optuna.storages import RDBStorage, get_storage

    from sweeps.search.journal import SweepJournal, clear_journal

    if spec.study_url is None:
        clear_journal(spec.study_path)
        journal = SweepJournal(spec.study_path, timed=timed)
        return _storage_of(journal, spec.study_path), journal.together
    _check_clocks(timed=timed)
    with _reaching(spec.study_url):
        return get_storage(RDBStorage(spec.study_url)), nullcontext


def read_storage(spec: SweepSpec) -> BaseStorage | None:
    """The storage for reading beside a running driver. It writes nothing. None if there is no storage yet.

    Raises:
        Unavailable: the database does not answer. Corrupt: the journal is damaged.
    """
    from optuna.storages import RDBStorage, get_storage

    from sweeps.search.journal import SweepJournal

    if spec.study_url is None:
        return _storage_of(SweepJournal(spec.study_path), spec.study_path) if spec.study_path.is_file() else None
    if not _study_names(spec.study_url):
        return None
    with _reaching(spec.study_url):
        return get_storage(RDBStorage(spec.study_url, skip_table_creation=True))


def _storage_of(journal: SweepJournal, path: Path) -> JournalStorage:
    """Optuna's storage over a journal, which it reads here.

    Raises:
        Corrupt: an entry is no JSON, or not what Optuna writes.
    """
    from optuna.exceptions import OptunaError
    from optuna.storages import JournalStorage

    try:
        return JournalStorage(journal)
    except (OptunaError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise Corrupt(f"{path} has an entry that no study has ({error!r}): it was changed; put a copy of the file back") from None


def check_new_studies(spec: SweepSpec, *, protected: bool) -> None:
    """Whether a new sweep may keep its studies where it wants to; writes nothing.

    Raises:
        Refused: the database already has studies of a sweep of this name (perhaps of another storage), or the data are protected.
        Unavailable: the database does not answer.
        BadInput: the URL cannot be used here.
    """
    if spec.study_url is None:
        return
    _check_clocks(timed=not protected)
    if any(name.rpartition("/")[0] == spec.name for name in _study_names(spec.study_url)):
        raise Refused(f"{spec.study_url} already has studies of a sweep {spec.name}; give another --name, or another --study-storage")


def delete_studies(spec: SweepSpec) -> None:
    """Removes a sweep's studies from a database; a journal lies in the sweep's folder and goes with it.

    Raises:
        Unavailable: the database does not answer.
    """
    from optuna import delete_study
    from optuna.storages import RDBStorage

    if spec.study_url is None:
        return
    own = [name for name in _study_names(spec.study_url) if name.rpartition("/")[0] == spec.name]
    if own:
        with _reaching(spec.study_url):
            storage = RDBStorage(spec.study_url, skip_table_creation=True)
            for name in own:
                delete_study(study_name=name, storage=storage)


def _check_clocks(*, timed: bool) -> None:
    if not timed:
        raise Refused(
            "--study-storage: a database stores when each trial began and ended. On protected data the duration of a trial reveals how "
            "many records it drew. Leave --study-storage out: the journal in the sweep's state stores no times"
        )


def _study_names(url: str) -> list[str]:
    """The names of all studies in a database. Empty if Optuna has not created its tables yet."""
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
            f"--study-storage: {url} is not a database URL that can be used here ({error}); expected one like sqlite:///studies.sqlite"
        ) from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise Unavailable(f"the studies at {url} cannot be reached: {reason}; start the database, or leave --study-storage out") from None
