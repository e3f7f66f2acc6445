"""A folder behind a URI: an object store or a file system, through pyarrow and, as `fsspec+PROTOCOL://`, fsspec.

Credentials come from the environment, as those libraries find them; none stands in a URI, which is written down with a sweep.
File locks do not reach through a bucket, and nothing here pretends that they do: what two writers may do to each other is
for the caller to think through (`sweeps.storage.snapshots`).
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
"""What may follow the `?` of a URI. Some stores take keys and signatures there as well: anything else is refused."""

ATOMIC = frozenset({"s3", "gcs", "abfs"})
"""pyarrow's names of stores where an object appears whole or not at all; elsewhere a file is written aside and renamed."""


PIECE_BYTES = 2**20


def is_uri(storage: object) -> bool:
    """Whether a storage is a bucket's URI and no folder."""
    return "://" in str(storage)


def check_uri(uri: str) -> str:
    """The URI without a slash at its end.

    Raises:
        BadInput: it is no URI, or has a place for secrets in it.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadInput(f"--storage: no URI ({error}); expected SCHEME://BUCKET/PATH, as in s3://lab/sweeps") from None
    shown = without_user(uri).partition("?")[0].partition("#")[0]
    is_key = parts.username is not None and parts.scheme.startswith("s3")
    if parts.password is not None or is_key or ":" in parts.netloc.rpartition("@")[0]:
        raise BadInput(
            f"--storage {shown}: leave user and password out of the URI, which is written down with the sweep; the store's client takes "
            "them from the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, a role, a profile)"
        )
    given = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if given - PLAIN_OPTIONS or parts.fragment:
        raise BadInput(
            f"--storage {shown}: unknown option {', '.join(sorted(given - PLAIN_OPTIONS)) or '#'}; expected some of "
            f"{', '.join(sorted(PLAIN_OPTIONS))} after the ?, everything else comes from the environment"
        )
    base, question, query = uri.partition("?")
    return base.rstrip("/") + question + query


def below(uri: str, name: str) -> str:
    """The URI of a folder below another one's."""
    base, question, query = uri.partition("?")
    return f"{base}/{name}{question}{query}"


class Bucket:
    """An open bucket. Files are named by their path below it, with slashes; folders are only a part of names."""

    def __init__(self, uri: str, filesystem: Any, base: str) -> None:
        self.uri = uri
        self._fs = filesystem
        self._base = base.rstrip("/")

    @classmethod
    def open(cls, uri: str) -> Self:
        """The bucket at a URI; whether it can be reached shows with the first file.

        Raises:
            BadInput: nobody knows the scheme. Unavailable: its store or credentials cannot be found.
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
        """A whole file.

        Raises:
            FileNotFoundError: there is none. Unavailable: the store does not answer.
        """
        with self._answers(), self._fs.open_input_stream(self._path(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces a file, whole or not at all."""
        with self._written(name) as path, self._fs.open_output_stream(path) as file:
            file.write(content)

    def upload(self, name: str, source: Path) -> None:
        """Makes or replaces a file by a local one, in pieces, whole or not at all."""
        with source.open("rb") as local, self._written(name) as path, self._fs.open_output_stream(path) as file:
            shutil.copyfileobj(local, file)

    def download(self, name: str, target: Path) -> None:
        """Copies a file to a local one.

        Raises:
            FileNotFoundError: there is none. Unavailable: the store does not answer.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as local:
            for piece in self._pieces(name):  # that the disk here is full is no fault of the store
                local.write(piece)

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        from pyarrow import fs

        with self._answers():
            return bool(self._fs.get_file_info(self._path(name)).type == fs.FileType.File)

    def names(self, folder: str = "") -> list[str]:
        """The names of all files below a folder, in order; none where there is no such folder."""
        from pyarrow import fs

        handler = getattr(self._fs, "handler", None)
        if handler is not None:
            handler.fs.invalidate_cache()  # fsspec keeps listings, and others write here
        with self._answers():
            found = self._fs.get_file_info(fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True))
        start = len(self._base.strip("/")) + 1 if self._base.strip("/") else 0
        return sorted(info.path.strip("/")[start:] for info in found if info.type == fs.FileType.File)

    def remove(self, folder: str = "") -> None:
        """Removes a folder with all files below it; none there is no error."""
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
        """Where to write so that a kill in between leaves what was there."""
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
        """What is not there is the caller's to judge; whatever else fails is the store not answering."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise _unreachable(self.uri, error) from None


def _unreachable(uri: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"the storage {uri} does not do what it is asked: {_reason(error)}; check its name, the network, and the credentials in the "
        "environment of every node"
    )


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
