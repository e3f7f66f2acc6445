"""A folder behind a URI: files whole or not at all, the same through pyarrow and fsspec, and no secret in its name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import open_bucket
from pyarrow import fs

from dpcore.errors import BadInput, Unavailable
from sweeps.storage.bucket import Bucket, check_uri


@pytest.fixture(params=["file", "fsspec+local", "fsspec+memory", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with open_bucket(request.param, tmp_path / "lab" / "sweeps") as opened:
        yield opened


def test_what_is_written_is_read_listed_and_removed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("a/b/one", b"1")
    bucket.write("a/b/one", b"2")
    (tmp_path / "local").write_bytes(b"x" * 7_000_000)
    bucket.upload("a/two", tmp_path / "local")
    bucket.download("a/two", tmp_path / "back" / "again")
    assert bucket.read("a/b/one") == b"2"
    assert (tmp_path / "back" / "again").read_bytes() == b"x" * 7_000_000
    assert bucket.names() == bucket.names("a") == ["a/b/one", "a/two"]
    assert bucket.names("a/b") == ["a/b/one"]
    assert (bucket.exists("a/two"), bucket.exists("a/b"), bucket.exists("c")) == (True, False, False)
    bucket.remove("a/b")
    bucket.remove("a/b")
    assert (bucket.names("a"), bucket.names("a/b")) == (["a/two"], [])


def test_a_file_that_is_not_there_is_told_from_a_store_that_does_not_answer(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bucket.read("nothing")
    with pytest.raises(FileNotFoundError):
        bucket.download("nothing", tmp_path / "nothing")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match=r"failed: .*; check its name, the network"):
        Bucket.open(f"file://{tmp_path / 'file'}").write("below", b"")


def test_a_write_that_breaks_leaves_the_old_file(tmp_path: Path) -> None:
    bucket = Bucket.open(f"fsspec+local://{tmp_path}")
    bucket.write("one", b"old")
    with contextlib.suppress(KeyboardInterrupt), bucket._written("one") as path, bucket._fs.open_output_stream(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert bucket.read("one") == b"old"


class ObjectStore:
    """An in-memory store that calls itself S3."""

    type_name = "s3"

    def __init__(self) -> None:
        self._files = fs._MockFileSystem()
        self.moves = 0

    def open_output_stream(self, path: str) -> object:
        return self._files.open_output_stream(path.strip("/"))

    def move(self, source: str, target: str) -> None:
        self.moves += 1


def test_an_object_store_whose_writes_are_whole_is_written_in_place() -> None:
    store = ObjectStore()
    Bucket("mock://lab", store, "").write("one", b"1")
    assert store.moves == 0


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hunter2@lab/sweeps",
        "s3://AKIA@lab/sweeps",
        "fsspec+sftp://me:hunter2@host/x",
        "s3://:hunter2@lab/sweeps",
        "abfs://sweeps@lab.dfs.core.windows.net/x?sig=hunter2",
        "s3://lab/x?secret_key=hunter2&region=eu",
        "s3://lab/x#hunter2",
    ],
)
def test_a_secret_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_uri(uri)
    assert "environment" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("uri", "checked"),
    [
        ("s3://lab/sweeps/", "s3://lab/sweeps"),
        ("s3://lab/x/?region=eu-west-1&endpoint_override=minio:9000&scheme=http", "s3://lab/x?region=eu-west-1&endpoint_override=minio:9000&scheme=http"),
        ("abfs://sweeps@lab.dfs.core.windows.net/x", "abfs://sweeps@lab.dfs.core.windows.net/x"),
        ("hdfs://me@namenode:8020/sweeps", "hdfs://me@namenode:8020/sweeps"),
    ],
)  # fmt: skip
def test_a_uri_without_a_secret_is_kept(uri: str, checked: str) -> None:
    assert check_uri(uri) == checked


def test_an_unknown_scheme_is_bad_input() -> None:
    with pytest.raises(BadInput, match="expected s3://"):
        Bucket.open("nonsense://lab/sweeps")
