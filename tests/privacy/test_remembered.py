"""Numbers are computed once, read back exactly, and a spoilt file is named."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from dpcore.errors import Corrupt
from dpcore.privacy.remembered import remembered


def test_a_number_is_computed_once_and_read_back_exactly(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> float:
        calls.append(1)
        return 0.1 + 0.2

    values = [remembered(tmp_path / "a", {"x": 1, "y": 0.5}, compute) for _ in range(3)]
    assert values == [0.1 + 0.2] * 3
    assert len(calls) == 1
    assert remembered(tmp_path / "a", {"x": 1, "y": 0.25}, lambda: 7.0) == 7.0
    assert not list((tmp_path / "a").glob("*.tmp"))


def test_without_a_folder_nothing_is_stored() -> None:
    assert [remembered(None, {"x": 1}, partial(float, value)) for value in (1.0, 2.0)] == [1.0, 2.0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {"x": 2}, "value": 1.0}', '{"value": 1.0}'])
def test_a_spoilt_file_is_named(tmp_path: Path, text: str) -> None:
    remembered(tmp_path, {"x": 1}, lambda: 1.0)
    (path,) = tmp_path.glob("*.json")
    path.write_text(text)
    with pytest.raises(Corrupt, match=path.name):
        remembered(tmp_path, {"x": 1}, lambda: 1.0)
