"""What Ray carries between driver and workers: closed envelopes, so that no file, log or page of Ray's shows what is inside.

Ray writes down what it is told: configs and results of every trial in its state files, errors as text and as pickles, all
of it in memory that whoever reaches a running Ray can list. Under a private selection the losers would stand there, and
on protected data whatever an exception quotes. So a trial's settings and reports travel encrypted under a key that is
drawn for one driver and reaches workers as the sweep key does: as a parameter, in no file.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Any

KEY_BYTES, NONCE_BYTES, LENGTH_BYTES = 32, 12, 4
BLOCK_BYTES = 1024
"""Contents are filled up to whole blocks: a length would tell one method from another."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Closes and opens documents for one run of a driver (ChaCha20-Poly1305, a fresh nonce each time).

    Guarantees: without the key a closed document tells its number of blocks and nothing else; a changed one does not open.
    """

    key: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Envelope:
        """One with a key of its own."""
        return cls(key=secrets.token_bytes(KEY_BYTES))

    def seal(self, document: Any) -> str:
        """A JSON document as letters that stand for themselves in a path or a message."""
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        packed = zlib.compress(json.dumps(document, allow_nan=False).encode())
        framed = len(packed).to_bytes(LENGTH_BYTES, "big") + packed
        framed += bytes(-len(framed) % BLOCK_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + ChaCha20Poly1305(self.key).encrypt(nonce, framed, None)).decode()

    def open(self, sealed: str) -> Any:
        """The document.

        Raises:
            ValueError: it was closed under another key, or changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        content = base64.urlsafe_b64decode(sealed)
        try:
            framed = ChaCha20Poly1305(self.key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], None)
        except InvalidTag:
            raise ValueError("a message between driver and worker was closed under another key, or changed on its way") from None
        length = int.from_bytes(framed[:LENGTH_BYTES], "big")
        return json.loads(zlib.decompress(framed[LENGTH_BYTES : LENGTH_BYTES + length]))
