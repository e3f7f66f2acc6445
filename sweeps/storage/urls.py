"""Builds the URLs of stores and databases, and shows them without credentials."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dpcore.errors import BadInput

RESERVED = frozenset("?#%")
"""What a path must not hold to stand in a URL as it is."""


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file. Signs of its path that mean something in a URL are escaped.

    Raises:
        BadInput: SQLAlchemy (before 2.1) does not read the path back from its URL.
    """
    from sqlalchemy import URL, make_url

    text = str(path.absolute())
    if not RESERVED.intersection(text):
        return f"sqlite:///{text}"
    url = URL.create("sqlite", database=text).render_as_string(hide_password=False)
    if make_url(url).database != text:
        raise BadInput(f"{path}: this SQLAlchemy cannot name the file in a URL; take a folder without ?, # and %, or SQLAlchemy 2.1")
    return url


def default_store(storage: Path) -> Path:
    """The MLflow store of a storage folder: one SQLite file, opened with `mlflow ui --backend-store-uri` and its `sqlite_url`."""
    return (storage / "mlflow.db").resolve()


def without_user(uri: str) -> str:
    """The URL without user and password, safe to show."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
