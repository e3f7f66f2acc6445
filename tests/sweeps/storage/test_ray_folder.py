"""Ray's folders: private, short enough for its sockets, and gone when the driver is, however it went."""

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpcore.errors import Unavailable
from sweeps.storage.ray_folder import (
    FOLDER,
    LOCK_FILE,
    LONGEST_SOCKET,
    RECORD,
    clear_leftover,
    clear_leftovers,
    ray_folder,
    short_folder,
    tune_folder,
    unrecorded_session,
)


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as folder:
        yield Path(folder)


@pytest.fixture
def long_state(tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 60) / "store" / "sweep"
    folder.mkdir(parents=True)
    (folder / LOCK_FILE).touch()
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_short_state_holds_ray_itself_for_its_owner_alone_and_nothing_remains(short: Path) -> None:
    before = os.umask(0)
    try:
        with ray_folder(short, own=True) as folder:
            assert folder.session.parent == short / FOLDER
            assert mode(short / FOLDER) == 0o700
            assert folder.tune == tune_folder(short)
            (folder.session / "logs").mkdir(parents=True)
    finally:
        os.umask(before)
    assert list(short.iterdir()) == []


def test_a_folder_that_outlived_its_record_is_made_anew(short: Path) -> None:
    """Daemons of a driver that was killed write on for a while, after the next command removed the folder and its record."""
    (short / FOLDER / "r").mkdir(parents=True)
    (short / FOLDER / "r" / "late.log").touch()
    with ray_folder(short, own=True):
        assert not (short / FOLDER / "r" / "late.log").exists()
    assert not (short / FOLDER).exists()


def test_of_a_long_state_the_session_lies_in_the_temporary_folder_and_a_socket_fits(
    long_state: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with ray_folder(long_state, own=True) as folder:
        around = folder.session.parent
        assert around.parent == short
        assert mode(around) == mode(long_state / FOLDER) == 0o700
        assert json.loads((long_state / RECORD).read_text())["folder"] == str(around)
        path = around / LONGEST_SOCKET
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    assert not around.exists()
    assert not (long_state / RECORD).exists()


def test_with_a_running_ray_no_session_of_our_own_is_made(long_state: Path) -> None:
    with ray_folder(long_state, own=False) as folder:
        assert folder.session.parent == long_state / FOLDER


def test_a_temporary_folder_that_is_too_long_is_refused_with_the_remedy(long_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "t" * 80)
    with pytest.raises(Unavailable, match="set RAY_TMPDIR to a short folder such as /tmp"), ray_folder(long_state, own=True):
        pass
    assert [path.name for path in long_state.iterdir()] == [LOCK_FILE]


def leave(state: Path, temporary: Path) -> Path:
    """What a driver that was killed leaves."""
    around = short_folder(state / FOLDER)
    for folder in (state / FOLDER, around):
        folder.mkdir(exist_ok=True)
        (folder / "experiment_state.json").write_text("{}")
    (state / RECORD).write_text(json.dumps({"host": socket.gethostname(), "folder": str(around)}))
    assert around.parent == temporary
    return around


def test_the_next_command_removes_what_a_dead_driver_left_and_nothing_of_a_living_one(
    long_state: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    around = leave(long_state, short)
    with (long_state / LOCK_FILE).open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clear_leftovers(long_state.parent)
        assert around.is_dir()
    clear_leftovers(long_state.parent)
    assert not around.exists()
    assert [path.name for path in long_state.iterdir()] == [LOCK_FILE]


def test_a_record_that_names_somebody_elses_folder_removes_nothing_there(long_state: Path, short: Path) -> None:
    other = short / "photographs"
    other.mkdir()
    records: list[Any] = [
        {"host": socket.gethostname(), "folder": str(other)},
        {"host": "elsewhere", "folder": str(short / "dpsweep-0123456789")},
        [],
    ]
    for said in records:
        (long_state / RECORD).write_text(json.dumps(said))
        clear_leftover(long_state)
        assert other.is_dir()
    link = short / "dpsweep-0123456789"
    link.symlink_to(other)
    (long_state / RECORD).write_text(json.dumps({"host": socket.gethostname(), "folder": str(link)}))
    clear_leftover(long_state)
    assert other.is_dir()


def test_a_ray_of_no_sweep_has_a_private_folder_too(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with unrecorded_session() as session:
        assert mode(session.parent) == 0o700
    assert list(short.iterdir()) == []
