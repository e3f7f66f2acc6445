"""Builds the URLs of stores and databases, and shows them without credentials."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file."""
    return f"sqlite:///{path}"


def default_tracking_uri(storage: Path) -> str:
    """The URL of the MLflow store of a storage folder: one SQLite file, which `mlflow ui --backend-store-uri` opens."""
    return sqlite_url((storage / "mlflow.db").resolve())


def without_user(uri: str) -> str:
    """The URL without user and password, safe to show."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
