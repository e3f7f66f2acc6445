"""An S3 server of one bucket in this process: as much of the protocol as pyarrow's client speaks."""

import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest

from sweeps.storage.bucket import Bucket

BUCKET = "lab"
EPOCH = "1970-01-01T00:00:00.000Z"


class Store:
    """Objects by key, and the parts of uploads that are not complete."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.ids = itertools.count()
        self.lock = threading.Lock()


class Request(BaseHTTPRequestHandler):
    """One request; signatures are not checked."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        return key, {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = read_chunks(self.rfile)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return read_chunks(io.BytesIO(body)) if "aws-chunked" in self.headers.get("Content-Encoding", "") else body

    def _answer(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) if length is None else length), "ETag": '"e"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        """An object, or a part of one."""
        key, query = self._asked()
        body = self._body()
        with self.store.lock:
            if "uploadId" in query:
                self.store.parts[query["uploadId"]][int(query["partNumber"])] = body
            else:
                self.store.objects[key] = body
        self._answer(200)

    def do_POST(self) -> None:
        """Many deletions, or the begin or end of an upload in parts."""
        key, query = self._asked()
        body = self._body()
        with self.store.lock:
            if "delete" in query:
                for one in ElementTree.fromstring(body).iter():
                    if one.tag.endswith("Key"):
                        self.store.objects.pop(str(one.text), None)
                answer = "<DeleteResult/>"
            elif "uploads" in query:
                number = str(next(self.store.ids))
                self.store.parts[number] = {}
                answer = f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            else:
                self.store.objects[key] = b"".join(part for _, part in sorted(self.store.parts.pop(query["uploadId"]).items()))
                answer = "<CompleteMultipartUploadResult/>"
        self._answer(200, answer.encode())

    def do_DELETE(self) -> None:
        """An object."""
        self.store.objects.pop(self._asked()[0], None)
        self._answer(204)

    def do_HEAD(self) -> None:
        """Whether an object is there, and its size."""
        key, _ = self._asked()
        found = self.store.objects.get(key) if key else b""
        self._answer(404 if found is None else 200, length=len(found or b""), Last_Modified="Thu, 01 Jan 1970 00:00:00 GMT")

    def do_GET(self) -> None:
        """A list, or an object or a range of one."""
        key, query = self._asked()
        if not key:
            self._answer(200, self._list(query).encode())
            return
        content = self.store.objects.get(key)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        piece = content[int(first) : int(last) + 1 if last else None]
        self._answer(206, piece, Content_Range=f"bytes {first}-{int(first) + len(piece) - 1}/{len(content)}")

    def _list(self, query: dict[str, str]) -> str:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        files, folders = "", set()
        for key, content in sorted(self.store.objects.items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            said = f"<Key>{escape(key)}</Key><Size>{len(content)}</Size><LastModified>{EPOCH}</LastModified>"
            files += f"<Contents>{said}</Contents>"
        inner = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{files}{inner}</ListBucketResult>"


def read_chunks(file: IO[bytes]) -> bytes:
    """A body of chunks, each after its size in hex; the checksums behind the last one are left aside."""
    content = b""
    while size := int(file.readline().partition(b";")[0], 16):
        content += file.read(size)
        file.readline()
    while file.readline().strip():
        pass
    return content


@contextmanager
def serve_objects() -> Iterator[tuple[str, Store]]:
    """The URI of a folder in the bucket, and what lies in it."""
    store = Store()
    handler = type("Bound", (Request,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"s3://{BUCKET}/sweeps?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=here", store
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def open_bucket(scheme: str, folder: Path) -> Iterator[Bucket]:
    """A bucket of a scheme: below a folder, or of `s3` on a server of this process."""
    if scheme != "s3":
        yield Bucket.open(f"{scheme}://{folder}")
        return
    with pytest.MonkeyPatch.context() as patch, serve_objects() as (uri, _):
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        yield Bucket.open(uri)
