"""URLs of stores and databases: made and shown in one place."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file."""
    return f"sqlite:///{path}"


def default_tracking_uri(storage: Path) -> str:
    """The MLflow store of a storage folder: one SQLite file, opened with `mlflow ui --backend-store-uri`."""
    return sqlite_url((storage / "mlflow.db").resolve())


def without_user(uri: str) -> str:
    """The URL without user and password, fit to be shown."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
