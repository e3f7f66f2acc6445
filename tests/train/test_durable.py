"""Small files after a kill: the old content or the new one, and of lines all that were whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpcore.errors import Corrupt
from dpcore.train import durable
from dpcore.train.durable import append_line, drop_partial_line, read_json, read_lines, write_json


class Killed(BaseException):
    """Like a signal."""


@pytest.mark.parametrize("dies_in", ["dump", "fsync", "replace"])
def test_a_document_whose_replacement_is_cut_short_is_still_the_old_one(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*given: Any, **named: Any) -> None:
        raise Killed

    path = tmp_path / "document.json"
    write_json(path, {"old": True})
    where = {"dump": (durable.json, "dump"), "fsync": (durable.os, "fsync"), "replace": (Path, "replace")}[dies_in]
    monkeypatch.setattr(*where, die)
    with pytest.raises(Killed):
        write_json(path, {"old": False})
    assert read_json(path) == {"old": True}


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "\udcff"])
def test_a_document_that_is_none_is_corrupt_and_so_is_one_that_is_gone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(Corrupt, match=r"document\.json"):
        read_json(path)
    path.unlink()
    with pytest.raises(Corrupt, match=r"document\.json"):
        read_json(path)


def test_a_torn_last_line_is_dropped_wherever_it_was_cut_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(3):
        append_line(path, {"number": number})
    whole = path.read_bytes()
    start_of_last = whole[:-1].rfind(b"\n") + 1
    for cut in range(start_of_last, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_lines(path) == [{"number": 0}, {"number": 1}]
        drop_partial_line(path)
        append_line(path, {"number": 3})
        assert [line["number"] for line in read_lines(path)] == [0, 1, 3]


def test_whole_lines_are_never_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    drop_partial_line(path)
    assert read_lines(path) == []
    append_line(path, {"number": 0})
    drop_partial_line(path)
    assert read_lines(path) == [{"number": 0}]


def test_a_torn_line_that_is_not_the_last_is_corrupt_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"number": 0}\n{"num\n' + json.dumps({"number": 2}) + "\n")
    with pytest.raises(Corrupt, match="not JSON"):
        read_lines(path)
