"""Shapes and texts are read off weights without loading them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpcore.errors import Corrupt
from dpcore.train.header import read_header


def test_shapes_and_texts_come_back(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3, 5, 7)}, tmp_path / "w", metadata={"claim": "ε = 0.8"})
    header = read_header(tmp_path / "w")
    assert header.tensors["a.weight"]["shape"] == [3, 5, 7]
    assert header.texts == {"claim": "ε = 0.8"}
    save_file({"a": torch.zeros(1)}, tmp_path / "plain")
    assert read_header(tmp_path / "plain").texts == {}


@pytest.mark.parametrize("content", [b"", b"\x05\x00", (2**60).to_bytes(8, "little") + b"{}", (9).to_bytes(8, "little") + b"{no json}"])
def test_what_is_no_header_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(Corrupt, match="its header does not read"):
        read_header(tmp_path / "w")
    with pytest.raises(Corrupt):
        read_header(tmp_path / "gone")
