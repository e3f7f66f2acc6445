"""A secret of 32 bytes in a file that only its owner reads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dpcore.durable import OWNER_ONLY, write_new_file
from dpcore.errors import Corrupt, Refused, Unavailable

SECRET_BYTES = 32


def save_secret(path: Path, secret: bytes, *, what: str) -> None:
    """Writes a secret in hex to a new file of mode 0600.

    Raises:
        Refused: something stands at `path`; a secret is never overwritten.
    """
    try:
        write_new_file(path, f"{secret.hex()}\n".encode(), mode=OWNER_ONLY)
    except FileExistsError:
        raise Refused(f"{path}: a {what} is there already and is never overwritten; load it, or choose another path") from None


def load_secret(path: Path, *, what: str, remedy: str) -> bytes:
    """Reads what `save_secret` wrote: 64 hex digits in a regular file that only its owner can read and write.

    Raises:
        Unavailable: no file; says `remedy`. Refused: its mode is not 0600. Corrupt: it holds no secret of 32 bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise Unavailable(f"{path}: the {what} is not there; {remedy}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or mode != 0o600:
            raise Refused(f"{path}: a {what} must be a regular file of mode 0600, found {mode:04o}; run chmod 600 on it")
        text = file.read(4 * SECRET_BYTES)
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise Corrupt(f"{path}: expected {2 * SECRET_BYTES} hex digits of a {what}; restore it from a copy")
    return secret
