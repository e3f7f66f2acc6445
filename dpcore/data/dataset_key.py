"""The key for digests of protected data that leave the dataset's folder.

A plain hash of a picture is an exact membership test: anyone who has the picture can compute it. An HMAC is a membership test only
for someone with the key. The key lies in the same folder as the pictures, so that person could look at the pictures anyway.
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
    """The random secret of one protected dataset. It is made with the dataset, in a file of mode 0600 beside the shards."""

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
            Unavailable, Refused, Corrupt: the file is missing, readable by other users, or not a key.
        """
        remedy = "restore it from the copy that the shards came from, or import the dataset again with the same --cohort"
        return cls(load_secret(folder / KEY_NAME, what=WHAT, remedy=remedy))

    def digest(self, text: str) -> str:
        """HMAC-SHA256 of a text, 64 hex digits."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
