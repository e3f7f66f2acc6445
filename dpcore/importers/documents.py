"""Reads JSON of other people, one message per mistake with file and record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput
from dpcore.importers.foreign import refuse_foreign_document, refuse_foreign_file


def load_json(path: Path, *, wanted: str | None = None) -> Any:
    """The document in a JSON file, with or without a byte order mark.

    Args:
        path: the file.
        wanted: the format that is asked for, a name of `IMPORTERS`. Documents of other formats are named in the error. None: any document.

    Raises:
        BadInput: the file is missing, not UTF-8, no JSON, or of another format.
    """
    content = read_content(path)
    refuse_foreign_file(path, content, wanted=wanted)
    document = _parsed(path, content)
    if wanted is not None:
        refuse_foreign_document(path, document, wanted=wanted)
    return document


def read_content(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        BadInput: it is not there, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"annotations {path}: no such file") from None
    except OSError as error:
        raise BadInput(f"annotations {path}: cannot be read ({error})") from None


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadInput(f"annotations {path}: not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise BadInput(f"annotations {path}: nested too deeply for a list of annotations") from None
    except ValueError as error:
        if _has_lines_of_json(content):
            raise BadInput(f"annotations {path}: one JSON document a line (JSONL); join them to one list: [line, line, ...]") from None
        raise BadInput(f"annotations {path}: not readable as JSON ({error})") from None


def _has_lines_of_json(content: bytes) -> bool:
    lines = [line for line in content.splitlines()[:3] if line.strip()]
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


def entry_of(record: Any, key: str, *, where: str) -> Any:
    """`record[key]`, or `BadInput` naming file, record and key."""
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected an object with keys, given {type(record).__name__}")
    if key not in record:
        raise BadInput(f"{where}: key {key!r} is missing; it has {', '.join(sorted(record)) or 'none'}")
    return record[key]


def array_of(record: Any, key: str, shape: tuple[int, ...], *, where: str) -> NDArray[np.float64]:
    """`record[key]` as numbers of that shape. NaN passes: whether it may stand there depends on its label."""
    value = entry_of(record, key, where=where)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {key} must be numbers of shape {shape}, given {value!r:.80}") from None
    if array.shape != shape:
        raise BadInput(f"{where}: {key} must have the shape {shape}, given {array.shape}")
    return array


def number_of(record: Any, key: str, *, where: str) -> float:
    """`record[key]` as a finite number."""
    number = float(array_of(record, key, (), where=where))
    if not math.isfinite(number):
        raise BadInput(f"{where}: {key} must be finite, given {number}")
    return number


def list_of(record: Any, key: str, *, where: str) -> list[Any]:
    """`record[key]` as a list."""
    value = entry_of(record, key, where=where)
    if not isinstance(value, list):
        raise BadInput(f"{where}: {key} must be a list, given {value!r:.80}")
    return value


def id_of(record: Any, key: str, *, where: str) -> str:
    """`record[key]` as text: ids join as they are written, whatever their size."""
    value = entry_of(record, key, where=where)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise BadInput(f"{where}: {key} must be a whole number or a name, given {value!r:.80}")
    return str(value)


def text_of(record: Any, key: str, *, where: str) -> str:
    """`record[key]` as a non-empty string."""
    value = entry_of(record, key, where=where)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}: {key} must be a name, given {value!r:.80}")
    return value
