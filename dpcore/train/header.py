"""Reads the header of a safetensors file: shapes, and the text that travels with the weights. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.errors import Corrupt

_LONGEST = 100_000_000
"""Bytes of a header that the format admits."""


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What stands before the weights.

    Attributes:
        tensors: name → {dtype, shape, data_offsets}.
        texts: name → text that was stored with them.
    """

    tensors: Mapping[str, Mapping[str, Any]]
    texts: Mapping[str, str]


def read_header(path: Path) -> WeightsHeader:
    """The header of the weights at `path`.

    Raises:
        Corrupt: the file is gone, or its header does not read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _LONGEST:
                raise ValueError(f"a header of {length} bytes")
            document = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path}: its header does not read ({error}); restore the file from a copy") from None
    texts = document.pop("__metadata__", {})
    return WeightsHeader(tensors=document, texts=texts)
