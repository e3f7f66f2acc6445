"""Packages from elsewhere are read without being unpacked."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from dpcore.errors import BadInput, Corrupt
from dpcore.weights import packages
from dpcore.weights.packages import read_package


def tgz(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def regular(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def wanted(path: str) -> bool:
    return path.endswith("model.json")


def test_wanted_files_are_read_from_a_folder_and_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "package" / "models").mkdir(parents=True)
    (tmp_path / "package" / "models" / "model.json").write_bytes(b"{}")
    (tmp_path / "package" / "other").write_bytes(b"no")
    archive = tgz(tmp_path / "p.tgz", (regular("package/other"), b"no"), (regular("package/models/model.json"), b"{}"))
    assert read_package(tmp_path, wanted) == {"package/models/model.json": b"{}"}
    assert read_package(archive, wanted) == {"package/models/model.json": b"{}"}


def test_paths_that_lead_out_of_the_package_are_not_read(tmp_path: Path) -> None:
    names = ("../model.json", "/etc/model.json", "a/../../model.json")
    assert read_package(tgz(tmp_path / "p.tgz", *((regular(name), b"x") for name in names)), wanted) == {}


def test_a_link_in_a_wanted_files_place_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("package/model.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(Corrupt, match="no regular file"):
        read_package(tgz(tmp_path / "p.tgz", (link, b"")), wanted)


def test_sizes_and_numbers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tgz(tmp_path / "p.tgz", (regular("a"), b"x" * 700), (regular("model.json"), b"x" * 300))
    monkeypatch.setattr(packages, "LARGEST_FILE_BYTES", 299)
    with pytest.raises(Corrupt, match="300 bytes, more than the 299"):
        read_package(archive, wanted)
    monkeypatch.setattr(packages, "LARGEST_PACKAGE_BYTES", 999)
    with pytest.raises(Corrupt, match="no package of weights"):
        read_package(archive, wanted)
    monkeypatch.setattr(packages, "MOST_MEMBERS", 1)
    with pytest.raises(Corrupt, match="more than 1 files"):
        read_package(archive, wanted)


def test_half_an_archive_and_other_files_are_refused(tmp_path: Path) -> None:
    whole = tgz(tmp_path / "p.tgz", (regular("model.json"), bytes(range(256)) * 9)).read_bytes()
    half = tmp_path / "half.tgz"
    half.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(Corrupt, match="fetch it again"):
        read_package(half, wanted)
    changed = tmp_path / "changed.tgz"
    changed.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    with pytest.raises(Corrupt, match="fetch it again"):
        read_package(changed, wanted)
    other = tmp_path / "other.tgz"
    other.write_bytes(gzip.compress(b"no archive of files" * 99))
    with pytest.raises(Corrupt, match="fetch it again"):
        read_package(other, wanted)
    with pytest.raises(BadInput, match="no such file or folder"):
        read_package(tmp_path / "nothing.tgz", wanted)
