"""Builds the URLs of stores and databases, and shows them without credentials."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from dpcore.errors import BadInput

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""The databases in which MLflow keeps runs."""
SECRET_KEYS = ("user", "username", "password", "passwd")
"""Keys of a URL's query that database drivers read as credentials."""

RESERVED = frozenset("?#%")
"""What a path must not hold to stand in a URL as it is."""


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file. Signs of its path that mean something in a URL are escaped.

    Raises:
        BadInput: SQLAlchemy (before 2.1) does not read the path back from its URL.
    """
    text = str(path.absolute())
    if not RESERVED.intersection(text):
        return f"sqlite:///{text}"
    from sqlalchemy import URL, make_url

    url = URL.create("sqlite", database=text).render_as_string(hide_password=False)
    if make_url(url).database != text:
        raise BadInput(f"{path}: this SQLAlchemy cannot name the file in a URL; take a folder without ?, # and %, or SQLAlchemy 2.1")
    return url


def default_store(storage: Path) -> Path:
    """The MLflow store of a storage folder: one SQLite file, whose pages `dpsweep ui` serves."""
    return (storage / "mlflow.db").resolve()


def has_credentials(url: str) -> bool:
    """Whether a user or a password stands in the URL, before its host or in its query."""
    parts = urlsplit(url)
    return "@" in parts.netloc or any(key.lower() in SECRET_KEYS for key, _ in parse_qsl(parts.query, keep_blank_values=True))


def has_password(url: str) -> bool:
    """Whether a password stands in the URL, before its host or in its query."""
    parts = urlsplit(url)
    return parts.password is not None or any(key.lower() in ("password", "passwd") for key, _ in parse_qsl(parts.query))


def check_tracking_scheme(uri: str) -> str:
    """The address of an MLflow store, unchanged.

    Raises:
        BadInput: MLflow takes no address of that form.
    """
    if urlsplit(uri).scheme.partition("+")[0] not in {"http", "https", *DATABASES}:
        raise BadInput(
            f"--tracking-uri {without_user(uri)}: expected http(s)://HOST or a database URL such as sqlite:///mlflow.db; "
            "MLflow stores no runs in plain folders"
        )
    return uri


def without_user(uri: str) -> str:
    """The URL without user and password, safe to show."""
    if not has_credentials(uri):
        return uri
    parts = urlsplit(uri)
    shown = "&".join(part for part in parts.query.split("&") if part.partition("=")[0].lower() not in SECRET_KEYS)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=shown))
