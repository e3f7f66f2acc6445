"""Connects to an MLflow store: gives one clear answer within seconds, and stores no secret.

MLflow's own retries wait minutes for a server and about an hour for a database. So this module tests the connection first.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dpcore.errors import BadInput, Unavailable
from sweeps.storage.urls import DATABASES, check_tracking_scheme, has_credentials, without_user

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANSWER_WITHIN_S = 10


def take_credentials(uri: str) -> str:
    """Removes user and password from `uri` and puts them into the environment variables that MLflow reads. They are never stored.

    Raises:
        BadInput: a database URL has credentials (MLflow has no variable for them), or MLflow refuses the scheme.
    """
    parts = urlsplit(check_tracking_scheme(uri))
    if not has_credentials(uri):
        return uri
    if parts.scheme.partition("+")[0] in DATABASES:
        raise BadInput(
            f"--tracking-uri {without_user(uri)}: user and password would be stored with the sweep; leave them out and give them to the "
            "database's client (PGUSER and PGPASSWORD, ~/.pgpass, ~/.my.cnf) or use an MLflow server"
        )
    os.environ["MLFLOW_TRACKING_USERNAME"] = parts.username or ""
    os.environ["MLFLOW_TRACKING_PASSWORD"] = parts.password or ""
    return without_user(uri)


def unused_address(tracking_uri: str | None, *, used: str) -> str | None:
    """A line about the MLFLOW_TRACKING_URI of the environment where runs go elsewhere; None where there is nothing to say.

    It is not taken as the default: whoever reaches that server would read the results of a sweep that nobody sent there on purpose.

    Args:
        tracking_uri: what was given.
        used: where runs go.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not named or tracking_uri is not None:
        return None
    shown = without_user(named)
    return f"MLFLOW_TRACKING_URI is {shown} and is not used: runs go to {used}; give --tracking-uri {shown} to send them there"


def prepare_mlflow() -> None:
    """Sets the variables that MLflow reads on import and on each request: short waits, no usage telemetry, no migration log,
    no progress bars.

    MLflow must not repeat a request by itself: if only the answer was lost, it would create a second run.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_WITHIN_S))
    import mlflow  # noqa: F401  (its import configures the loggers that are silenced next)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs with a traceback what it raises, and we say


def connect(uri: str) -> MlflowClient:
    """A client of a store that answers.

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
        # requests nests its reasons; a person needs the innermost one.
        reason = str(error).strip().splitlines()[0].rpartition("(Caused by ")[2]
        raise Unavailable(
            f"MLflow does not answer at {uri}: {reason}\n  start it, or leave --tracking-uri out to use SQLite beside the sweep"
        ) from None
    return client
