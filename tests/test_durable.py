"""Small files after a kill: the old content or the new one, and of lines all that were whole."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from full_disk import fill, small_disk

from dpcore import durable
from dpcore.durable import (
    append_line,
    cut_half_line,
    made_folders,
    made_once,
    read_json,
    read_lines,
    remove_empty,
    replace_file,
    write_json,
    write_new_file,
)
from dpcore.errors import Corrupt


class Killed(BaseException):
    """Like a signal."""


@pytest.mark.parametrize("dies_in", ["dumps", "fsync", "replace"])
def test_a_document_whose_replacement_is_cut_short_is_still_the_old_one(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*given: Any, **named: Any) -> None:
        raise Killed

    path = tmp_path / "document.json"
    write_json(path, {"old": True})
    where = {"dumps": (durable.json, "dumps"), "fsync": (durable.os, "fsync"), "replace": (durable.os, "replace")}[dies_in]
    monkeypatch.setattr(*where, die)
    with pytest.raises(Killed):
        write_json(path, {"old": False})
    assert read_json(path) == {"old": True}
    assert [one.name for one in tmp_path.iterdir()] == ["document.json"]


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "\udcff"])
def test_a_document_that_is_none_is_corrupt_and_so_is_one_that_is_gone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(Corrupt, match=r"document\.json"):
        read_json(path)
    path.unlink()
    with pytest.raises(Corrupt, match=r"document\.json"):
        read_json(path)


def test_a_torn_last_line_is_dropped_wherever_it_was_cut_and_the_next_one_stands_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(3):
        append_line(path, {"number": number})
    whole = path.read_bytes()
    start_of_last = whole[:-1].rfind(b"\n") + 1
    for cut in range(start_of_last, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_lines(path) == [{"number": 0}, {"number": 1}]
        assert cut_half_line(path) == start_of_last
        assert ("lines.jsonl: the last line was cut short" in capsys.readouterr().err) == (cut > start_of_last)
        append_line(path, {"number": 3})
        assert [line["number"] for line in read_lines(path)] == [0, 1, 3]


def test_whole_lines_are_never_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    cut_half_line(path)
    assert read_lines(path) == []
    append_line(path, {"number": 0})
    cut_half_line(path)
    assert read_lines(path) == [{"number": 0}]


def test_a_torn_line_that_is_not_the_last_is_corrupt_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"number": 0}\n{"num\n' + json.dumps({"number": 2}) + "\n")
    with pytest.raises(Corrupt, match="not JSON"):
        read_lines(path)


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is put on disk from now on, in order."""
    real, names = os.fsync, []

    def fsync(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    return names


def test_each_way_of_writing_puts_bytes_and_name_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = synced(monkeypatch)
    path = tmp_path / "sub" / "file"
    replace_file(path, b"1")
    assert names[0].startswith(".file.")
    assert names[1:] == ["sub"]
    for write, expected in (
        (lambda: append_line(path, {}), ["file"]),
        (lambda: append_line(tmp_path / "lines", {}), ["lines", tmp_path.name]),
        (lambda: write_new_file(tmp_path / "new", b""), ["new", tmp_path.name]),
        (lambda: made_once(tmp_path / "once", lambda place: place.touch()), [".once.new", tmp_path.name]),
    ):
        names.clear()
        write()
        assert names == expected


@pytest.mark.parametrize(("mode", "umask", "found"), [(None, 0o027, 0o640), (0o600, 0o022, 0o600), (0o644, 0o077, 0o644)])
def test_a_file_has_the_mode_that_is_asked_for(mode: int | None, umask: int, found: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "file", b"", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == found


def test_a_full_disk_leaves_old_content_and_whole_lines(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=64) as disk:
        write_json(disk / "document", {"old": True})
        append_line(disk / "lines", {"number": 0})
        fill(disk)
        with pytest.raises(OSError, match="No space"):
            write_json(disk / "document", {"new": "x" * 9999})
        with pytest.raises(OSError, match="No space"):
            append_line(disk / "lines", {"number": "x" * 9999})
        (disk / "filler").unlink()
        append_line(disk / "lines", {"number": 1})
        assert read_json(disk / "document") == {"old": True}
        assert [line["number"] for line in read_lines(disk / "lines")] == [0, 1]
        assert sorted(path.name for path in disk.iterdir()) == ["document", "lines"]


def build_slowly(place: Path) -> None:
    with place.open("a") as file:
        for number in range(20):
            print(os.getpid(), number, file=file, flush=True)
            time.sleep(0.02)


def test_of_many_processes_one_makes_the_file_and_all_find_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        made = pool.starmap(made_once, [(tmp_path / "file", build_slowly)] * 4, chunksize=1)
    assert sorted(made) == [False, False, False, True]
    assert len((tmp_path / "file").read_text().splitlines()) == 20


def test_a_kill_while_a_file_is_made_leaves_none_and_the_next_process_makes_it(tmp_path: Path) -> None:
    maker = multiprocessing.get_context("fork").Process(target=made_once, args=(tmp_path / "file", build_slowly))
    maker.start()
    while not (tmp_path / ".file.new").exists():
        time.sleep(0.005)
    assert maker.pid is not None
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    assert not (tmp_path / "file").exists()
    assert made_once(tmp_path / "file", build_slowly)
    assert {line.split()[0] for line in (tmp_path / "file").read_text().splitlines()} == {str(os.getpid())}
    assert not (tmp_path / ".file.new").exists()


def test_folders_are_taken_away_by_who_made_them_and_only_when_empty(tmp_path: Path) -> None:
    made = made_folders(tmp_path / "a" / "b")
    assert made == [tmp_path / "a", tmp_path / "a" / "b"]
    assert made_folders(tmp_path / "a" / "b") == []
    (tmp_path / "a" / "of_another").touch()
    remove_empty(made)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["of_another"]
