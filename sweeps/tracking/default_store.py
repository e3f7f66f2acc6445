"""The MLflow store of a storage: one SQLite file, made whole by one process and checked before it is used.

MLflow makes its tables by some fifty migrations, which take seconds. Two sweeps that begin together would both run them, and
a kill or a full disk in the middle would leave a file that no later sweep can use. So the file is built beside its place and
renamed. This is the one module that uses MLflow's and alembic's own parts for that; seen with mlflow 3.14 to 3.17.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from dpcore.disk import naming_full_disk
from dpcore.durable import made_once
from dpcore.errors import Corrupt, Unavailable
from sweeps.storage.urls import sqlite_url

LOCKED_FOR_S = 60.0


def make_default_store(path: Path) -> None:
    """Makes the store on first use; one that is there is checked.

    Raises:
        Corrupt: the file is damaged. DiskFull: there is no room for it; nothing is left then.
        Unavailable: its tables are not those of this MLflow, or it cannot be made or opened.
    """
    if not made_once(path, lambda place: _build(place, path)):
        _check(path)


def _build(place: Path, target: Path) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError

    url = sqlite_url(place)
    try:
        with naming_full_disk(target, others=(SQLAlchemyError, MlflowException)):
            event.listen(SqlAlchemyStore._get_or_create_engine(url), "connect", _without_fsync)
            SqlAlchemyStore(url, (target.parent / "mlartifacts").as_uri())  # type: ignore[no-untyped-call]
    except (SQLAlchemyError, MlflowException) as error:
        raise Unavailable(f"{target}: MLflow cannot make its store there: {str(error).splitlines()[0]}") from error
    finally:
        if url in SqlAlchemyStore._engine_map:
            SqlAlchemyStore._engine_map.pop(url).dispose()


def _without_fsync(connection: sqlite3.Connection, _: object) -> None:
    """`made_once` puts the whole file on disk; several hundred commits on the way need not wait for the disk."""
    connection.execute("PRAGMA synchronous = OFF")


def _check(path: Path) -> None:
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=LOCKED_FOR_S)
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be opened: {error}; see who may read and write it") from None
    try:
        ((sound,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        has_versions = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()[0]
        found = [str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")] if has_versions else []
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} cannot be read: {error}; see who else uses it") from None
    except sqlite3.DatabaseError as error:
        sound, found = str(error), []
    finally:
        connection.close()
    if sound != "ok":
        raise Corrupt(f"{path} is damaged ({' '.join(str(sound).split())}); put a copy back, or {_MOVE_AWAY}")
    expected = _newest_schema()
    if found != [expected]:
        has = f"the tables of schema {', '.join(found)}" if found else "no whole set of tables"
        raise Unavailable(
            f"{path} has {has}, and this MLflow expects schema {expected}: the first use of the file was cut short, or another release "
            f"of MLflow made it. In the first case {_MOVE_AWAY}; in the second copy the file and run `mlflow db upgrade` on it, or use "
            "that release"
        )


_MOVE_AWAY = "move it away: a new one is made, and `dpsweep resume NAME` tells it a sweep's trials again"


def _newest_schema() -> str:
    import mlflow.store
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory(str(Path(mlflow.store.__file__).parent / "db_migrations")).get_current_head())
