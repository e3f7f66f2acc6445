"""A folder behind a URI: an object store or a file system, read through pyarrow or (`fsspec+PROTOCOL://`) fsspec.

Credentials come from the environment, where these libraries look for them. A URI must hold none, because spec.json stores it.
File locks do not work across machines in a bucket. `sweeps.storage.snapshots` handles two writers of one trial.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from dpcore.errors import BadInput, Unavailable
from sweeps.storage.urls import without_user

PLAIN_OPTIONS = frozenset({"region", "scheme", "endpoint_override", "project_id", "retry_limit_seconds", "enable_tls"})
"""The allowed options after the `?` of a URI. All others are refused, because some stores accept keys and signatures there."""

ATOMIC = frozenset({"s3", "gcs", "abfs"})
"""pyarrow's names of stores where an object appears whole or not at all. Elsewhere a file is written aside and renamed."""


PIECE_BYTES = 2**20


def is_uri(storage: object) -> bool:
    """Whether a storage is the URI of a bucket, not a folder."""
    return "://" in str(storage)


def check_uri(uri: str) -> str:
    """Checks a URI and removes its trailing slash.

    Raises:
        BadInput: it is not a URI, or it may hold a secret.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadInput(f"--storage: not a URI ({error}); expected SCHEME://BUCKET/PATH, for example s3://lab/sweeps") from None
    shown = without_user(uri).partition("?")[0].partition("#")[0]
    is_key = parts.username is not None and parts.scheme.startswith("s3")
    if parts.password is not None or is_key or ":" in parts.netloc.rpartition("@")[0]:
        raise BadInput(
            f"--storage {shown}: leave user and password out of the URI, because spec.json stores it; the store's client takes "
            "them from the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, a role, a profile)"
        )
    given = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if given - PLAIN_OPTIONS or parts.fragment:
        raise BadInput(
            f"--storage {shown}: unknown option {', '.join(sorted(given - PLAIN_OPTIONS)) or '#'}; expected some of "
            f"{', '.join(sorted(PLAIN_OPTIONS))} after the ?; set everything else in the environment"
        )
    base, question, query = uri.partition("?")
    return base.rstrip("/") + question + query


def below(uri: str, name: str) -> str:
    """The URI of the folder `name` below `uri`."""
    base, question, query = uri.partition("?")
    return f"{base}/{name}{question}{query}"


class Bucket:
    """An open bucket. A file's name is its path below the bucket, with slashes. Folders exist only as parts of names."""

    def __init__(self, uri: str, filesystem: Any, base: str) -> None:
        self.uri = uri
        self._fs = filesystem
        self._base = base.rstrip("/")

    @classmethod
    def open(cls, uri: str) -> Self:
        """Opens the bucket at a URI. The first access to a file shows whether it can be reached.

        Raises:
            BadInput: the scheme is unknown. Unavailable: the store or its credentials cannot be found.
        """
        import pyarrow as pa
        from pyarrow import fs

        try:
            found, base = fs.FileSystem.from_uri(check_uri(uri))
        except (pa.ArrowInvalid, pa.ArrowKeyError, ValueError, ImportError) as error:
            raise BadInput(
                f"--storage {uri}: {_reason(error)}; expected s3://, gs://, abfs://, hdfs://, file:// or fsspec+PROTOCOL://"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise _unreachable(uri, error) from None
        return cls(uri, found, base)

    def read(self, name: str) -> bytes:
        """Reads a whole file.

        Raises:
            FileNotFoundError: the file does not exist. Unavailable: the store does not answer.
        """
        with self._answers(), self._fs.open_input_stream(self._path(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces a file, completely or not at all."""
        with self._written(name) as path, self._fs.open_output_stream(path) as file:
            file.write(content)

    def upload(self, name: str, source: Path) -> None:
        """Uploads a local file in pieces. The file in the bucket is replaced completely or not at all."""
        with source.open("rb") as local, self._written(name) as path, self._fs.open_output_stream(path) as file:
            shutil.copyfileobj(local, file)

    def download(self, name: str, target: Path) -> None:
        """Copies a file to a local path.

        Raises:
            FileNotFoundError: the file does not exist. Unavailable: the store does not answer.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as local:
            for piece in self._pieces(name):  # outside of `_answers`: a full local disk is not a failure of the store
                local.write(piece)

    def exists(self, name: str) -> bool:
        """Whether a file of that name exists."""
        from pyarrow import fs

        with self._answers():
            return bool(self._fs.get_file_info(self._path(name)).type == fs.FileType.File)

    def names(self, folder: str = "") -> list[str]:
        """The sorted names of all files below a folder. Empty if the folder does not exist."""
        from pyarrow import fs

        handler = getattr(self._fs, "handler", None)
        if handler is not None:
            handler.fs.invalidate_cache()  # fsspec caches listings, but other machines write here too
        with self._answers():
            found = self._fs.get_file_info(fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True))
        start = len(self._base.strip("/")) + 1 if self._base.strip("/") else 0
        return sorted(info.path.strip("/")[start:] for info in found if info.type == fs.FileType.File)

    def remove(self, folder: str = "") -> None:
        """Removes a folder and all files below it. A folder that does not exist is no error."""
        with self._answers(), contextlib.suppress(FileNotFoundError):
            self._fs.delete_dir(self._path(folder))

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _pieces(self, name: str) -> Iterator[bytes]:
        with self._answers(), self._fs.open_input_stream(self._path(name)) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    @contextlib.contextmanager
    def _written(self, name: str) -> Iterator[str]:
        """A path to write to. A kill before the end leaves the old file unchanged."""
        path = self._path(name)
        with self._answers():
            if self._fs.type_name in ATOMIC:
                yield path
                return
            folder, _, last = path.rpartition("/")
            self._fs.create_dir(folder, recursive=True)
            aside = f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"
            yield aside
            self._fs.move(aside, path)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Lets FileNotFoundError pass, because the caller handles it. Any other failure means that the store does not answer."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise _unreachable(self.uri, error) from None


def _unreachable(uri: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"the storage {uri} failed: {_reason(error)}; check its name, the network, and the credentials in the environment of every node"
    )


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
