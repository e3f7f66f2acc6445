"""Reaching an MLflow store: one clear answer in seconds, and no secrets kept.

MLflow's own retries wait minutes for a server and about an hour for a database, so reachability is tried here first.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dpcore.errors import BadInput, Unavailable
from sweeps.storage.urls import without_user

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
ANSWER_WITHIN_S = 10


def take_credentials(uri: str) -> str:
    """`uri` without user and password, which go to the variables that MLflow reads and are never stored.

    Raises:
        BadInput: credentials in a database URL, which no variable of MLflow's could carry, or a scheme MLflow refuses.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in {"http", "https", *DATABASES}:
        raise BadInput(
            f"--tracking-uri {without_user(uri)}: expected http(s)://HOST or a database URL such as sqlite:///mlflow.db; "
            "MLflow keeps no runs in plain folders"
        )
    if parts.username is None and parts.password is None:
        return uri
    if scheme in DATABASES:
        raise BadInput(
            f"--tracking-uri {without_user(uri)}: user and password would be stored with the sweep; leave them out and give them to the "
            "database's client (PGUSER and PGPASSWORD, ~/.pgpass, ~/.my.cnf) or put an MLflow server before it"
        )
    os.environ["MLFLOW_TRACKING_USERNAME"] = parts.username or ""
    os.environ["MLFLOW_TRACKING_PASSWORD"] = parts.password or ""
    return without_user(uri)


def prepare_mlflow() -> None:
    """Sets what MLflow reads on import and on each request: short waits, no usage telemetry, no migration log. Nothing is sent
    twice behind our back: of a request whose answer got lost, MLflow would make a second run."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_WITHIN_S))
    import mlflow  # noqa: F401  (its import configures the loggers that are silenced next)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(uri: str) -> MlflowClient:
    """A client of a store that has answered.

    Raises:
        Unavailable: nothing answers at `uri` within seconds.
    """
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if not uri.startswith(("http://", "https://")):
            engine = create_engine(uri)
            engine.connect().close()
            engine.dispose()
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        # requests nests its reasons; the innermost one is what a person needs.
        reason = str(error).strip().splitlines()[0].rpartition("(Caused by ")[2]
        raise Unavailable(
            f"MLflow does not answer at {uri}: {reason}\n  start it, or leave --tracking-uri out to use SQLite beside the sweep"
        ) from None
    return client
