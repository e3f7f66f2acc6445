"""A full disk under its one name, whatever library met it. On a real one: a file system of 64 KiB in memory."""

import errno
import os
from pathlib import Path

import pytest
import torch
from full_disk import small_disk
from safetensors.torch import save_file
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from dpcore.disk import naming_full_disk
from dpcore.errors import DiskFull


def write_file(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(2**20))


def write_weights(folder: Path) -> None:
    save_file({"weight": torch.zeros(2**18)}, folder / "a.safetensors")


def write_database(folder: Path) -> None:
    with create_engine(f"sqlite:///{folder / 'a.sqlite'}").begin() as connection:
        connection.exec_driver_sql("create table a (x text)")
        connection.exec_driver_sql("insert into a values (?)", ("x" * 2**20,))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlite leaves the connection that could not write to the collector
@pytest.mark.parametrize("write", [write_file, write_weights, write_database])
def test_a_full_disk_has_one_name_that_says_where_and_what_to_do(write: object, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", size_kib=64) as folder,
        pytest.raises(DiskFull, match=f"disk full: {folder}.*resume"),
        naming_full_disk(folder, others=(OperationalError,)),
    ):
        write(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_quota_is_a_full_disk_and_the_file_is_named_where_it_is_known(number: int, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="disk full: /somewhere/else on"), naming_full_disk(tmp_path):
        raise OSError(number, os.strerror(number), "/somewhere/else")


def test_another_error_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming_full_disk(tmp_path):
        (tmp_path / "none").read_bytes()
