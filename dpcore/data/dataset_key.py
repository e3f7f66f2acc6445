"""The key under which digests of protected data may stand outside their folder.

A plain hash of a picture is an exact test of whether it is in the set: whoever has the picture can compute it. An HMAC
under a key that lies with the pictures themselves tells that only to whoever could look anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dpcore.privacy.secret_file import SECRET_BYTES, load_secret, save_secret

KEY_NAME = "dataset.key"
WHAT = "dataset key"


@dataclass(frozen=True, repr=False)
class DatasetKey:
    """A random secret of one protected dataset, made when it is written, in a file of mode 0600 beside its shards."""

    secret: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Self:
        """A new key from the operating system's entropy."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    def save(self, folder: Path) -> None:
        """Writes the key into a dataset's folder."""
        save_secret(folder / KEY_NAME, self.secret, what=WHAT)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The key in a dataset's folder.

        Raises:
            Unavailable, Refused, Corrupt: it is missing, readable by others, or no key.
        """
        remedy = "restore it from the copy that the shards came from, or import the dataset again with the same --cohort"
        return cls(load_secret(folder / KEY_NAME, what=WHAT, remedy=remedy))

    def digest(self, text: str) -> str:
        """HMAC-SHA256 of a text, 64 hex digits."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
