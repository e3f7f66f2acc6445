"""Small files that survive a crash whole: JSON documents and lines of JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dpcore.errors import Corrupt


def write_json(path: Path, document: Any) -> None:
    """Replaces `path` in one step: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        json.dump(document, file, indent=1, sort_keys=True, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The document at `path`.

    Raises:
        Corrupt: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Corrupt(f"{path} is no JSON document: {error}; restore it or remove the folder it lies in") from error


def append_line(path: Path, document: Any) -> None:
    """Adds one line and flushes it to the disk. A file that a crash may have cut short goes through `drop_partial_line` first."""
    with path.open("a") as file:
        file.write(json.dumps(document, sort_keys=True, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drop_partial_line(path: Path) -> None:
    """Cuts a last line without its line break: what a kill in mid-write leaves, and what the next line would be glued to."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))


def read_lines(path: Path) -> list[Any]:
    """All whole lines of `path`; a last line that a crash cut short is left out. No file has no lines.

    Raises:
        Corrupt: another line is not JSON.
    """
    if not path.exists():
        return []
    *whole, _cut = path.read_text().split("\n")
    try:
        return [json.loads(line) for line in whole]
    except json.JSONDecodeError as error:
        raise Corrupt(f"{path} has a line that is not JSON: {error}; restore it or remove the folder it lies in") from error
