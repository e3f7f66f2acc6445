"""Where every random number of a trial comes from, and who may know it.

Two kinds of streams, never to be mixed:

* `PrivateStreams` draw what the guarantee hides: who is sampled, how private images are augmented, the noise. They are
  keyed by the secret sweep key. Known sampling voids amplification: with q = .06, noise multiplier 2.10, 60 steps, an
  ε of .80 becomes 3.6 for a record that was drawn four times.
* `PublicStreams` draw what may be known: initialisation, public batches, the subspace's examples. They follow `seed`.

A stream is named by (trial, its context, attempt, name, step) and holds no state beyond its own counter, so a resume at any step
draws what the first run drew, and two steps never share a number. Private streams never come from `torch.Generator`: on a
CPU it keeps 32 bits of its seed and its float32 normals end at 5.77 standard deviations.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from dpcore.config import RuntimeFlags
from dpcore.errors import BadInput
from dpcore.privacy.secret_file import SECRET_BYTES, load_secret, save_secret

if TYPE_CHECKING:
    import torch

_DOUBLE = 2.0**-53
_NONCE = bytes(16)
DEVICE_SEED_BYTES = 8
"""What a GPU's generator takes of a secret: 64 bits."""
NOISE = "noise"
"""The stream of a step's noise."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class NormalStream(Protocol):
    """What noise is drawn from; each call continues where the last one ended."""

    def normal(self, count: int) -> Floats | torch.Tensor:
        """`count` standard normals in float64, wherever they are drawn."""


class RandomStream(Protocol):
    """A sequence of independent float64 draws; each call continues where the last one ended."""

    def uniform(self, count: int) -> Floats:
        """`count` draws in [0, 1), multiples of 2^-53."""

    def normal(self, count: int) -> Floats:
        """`count` standard normals in float64: the tail reaches beyond 8 standard deviations."""


class NumpyStream:
    """A `RandomStream` on one of numpy's generators (Philox here), the fast default: 1e7 normals in 0.19 s."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def uniform(self, count: int) -> Floats:
        """`count` draws in [0, 1)."""
        return self._generator.random(count)

    def normal(self, count: int) -> Floats:
        """`count` standard normals (ziggurat, float64)."""
        return self._generator.standard_normal(count)


class ChaChaStream:
    """A `RandomStream` on the ChaCha20 key stream: what `RuntimeFlags.secure_rng` asks for.

    Uniforms are 53-bit; normals are Box-Muller pairs, whose tail ends at sqrt(2·53·ln 2) = 8.57.
    """

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()

    def _integers(self, count: int) -> NDArray[np.uint64]:
        words = np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")
        return words >> np.uint64(11)

    def uniform(self, count: int) -> Floats:
        """`count` draws in [0, 1)."""
        return self._integers(count).astype(np.float64) * _DOUBLE

    def normal(self, count: int) -> Floats:
        """`count` standard normals (Box and Muller 1958); an odd count throws the second of the last pair away."""
        pairs = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log((self._integers(pairs).astype(np.float64) + 1.0) * _DOUBLE))
        angle = 2.0 * np.pi * self.uniform(pairs)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


class DeviceStream:
    """Standard normals from the counter generator of a GPU (Philox 4x32-10), where the sum is: `RuntimeFlags.noise_on_device`.

    Guarantees: the generator is seeded with 64 bits of the secret, and draws in float64, whose tail ends beyond 8.
    Never on a CPU: torch's generator keeps 32 bits of its seed there.

    Args:
        derived: 32 secret bytes for this step.
        device: a type of device but cpu.

    Raises:
        BadInput: the device is a CPU.
    """

    def __init__(self, derived: bytes, device: str) -> None:
        if device == "cpu":
            raise BadInput("noise from a device's generator needs a GPU: torch's generator on a CPU keeps 32 bits of its seed")
        import torch

        self._device, self._generator = device, torch.Generator(device)
        self._generator.manual_seed(int.from_bytes(derived[:DEVICE_SEED_BYTES], "little"))

    def normal(self, count: int) -> torch.Tensor:
        """(count,) float64 on the device."""
        import torch

        return torch.randn(count, generator=self._generator, device=self._device, dtype=torch.float64)


@dataclass(frozen=True, repr=False)
class SweepKey:
    """The secret of a sweep, 32 bytes. It lives in one file of mode 0600 and in workers' memory, never in a config,
    log, database or bucket; `repr` shows the public `key_id` alone.

    Raises:
        BadInput: the secret has not 32 bytes.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise BadInput(f"a sweep key has {SECRET_BYTES} bytes, given {len(self.secret)}: make one with SweepKey.fresh()")

    def __repr__(self) -> str:
        return f"SweepKey(id={self.key_id()})"

    @classmethod
    def fresh(cls) -> Self:
        """A new key from the operating system's entropy."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    def key_id(self) -> str:
        """A public name of this key, 12 hex digits: tells keys apart, says nothing about them."""
        return hmac.new(self.secret, b"dpsweep/key-id/v1", hashlib.sha256).hexdigest()[:12]

    def save(self, path: Path) -> None:
        """Writes the key in hex to a new file of mode 0600.

        Raises:
            Refused: something stands at `path`; a key is never overwritten.
        """
        save_secret(path, self.secret, what="sweep key")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            Unavailable: no file. Refused: its mode is not 0600. Corrupt: it holds no key.
        """
        return cls(load_secret(path, what="sweep key", remedy="give its place in DPSWEEP_KEY_FILE"))


def generator_name(runtime: RuntimeFlags) -> str:
    """The generators behind the private streams of a run, as its privacy claim must name them."""
    name = "ChaCha20, 256-bit key" if runtime.secure_rng else "Philox 4x64-10, 128-bit key"
    return f"{name}; noise from the GPU's Philox 4x32-10, seeded each step with 64 bits" if runtime.noise_on_device else name


@dataclass(frozen=True, kw_only=True)
class PrivateStreams:
    """The secret streams of one attempt at one trial.

    Guarantees: streams that differ in key, trial, context, name, step or attempt are independent (HMAC-SHA256 over the
    length-prefixed fields; 128 bits of it key Philox, all 256 key ChaCha20).

    Args:
        context: Names all that decides the sums under the noise: config, data, start, machine. With it in the derivation, one
            key and one trial id never put the same noise on two different sums, whatever became of the trial's folder.
        noise_device: On which device `noise` draws; None: from `stream`, on the CPU.
    """

    key: SweepKey
    trial_id: str
    context: str = ""
    attempt: int = 0
    secure: bool = False
    noise_device: str | None = None

    def stream(self, name: str, step: int) -> RandomStream:
        """The stream called `name` at `step`, from its beginning."""
        derived = self._derived(name, step)
        return ChaChaStream(derived) if self.secure else NumpyStream(_philox(derived))

    def noise(self, step: int) -> NormalStream:
        """The noise of `step`, from its beginning."""
        return self.stream(NOISE, step) if self.noise_device is None else DeviceStream(self._derived(NOISE, step), self.noise_device)

    def _derived(self, name: str, step: int) -> bytes:
        label = _label("dpsweep/private/v2", self.trial_id, self.context, name, str(step), str(self.attempt))
        return hmac.new(self.key.secret, label, hashlib.sha256).digest()


@dataclass(frozen=True)
class PublicStreams:
    """Streams that anyone with the config can draw again. Never for sampling or noise of private data."""

    seed: int

    def generator(self, name: str, step: int = 0) -> np.random.Generator:
        """A numpy generator for (seed, name, step)."""
        return _philox(self._digest(name, step))

    def stream(self, name: str, step: int = 0) -> RandomStream:
        """The same generator behind the face of a private stream, for code that draws from either."""
        return NumpyStream(self.generator(name, step))

    def torch_generator(self, name: str) -> torch.Generator:
        """A CPU torch generator, for initialisation by torch.nn.init."""
        import torch  # here, because a driver makes keys and plans without it

        generator = torch.Generator()
        generator.manual_seed(int.from_bytes(self._digest(name, 0)[:4], "little"))
        return generator

    def _digest(self, name: str, step: int) -> bytes:
        return hashlib.sha256(_label("dpsweep/public/v1", str(self.seed), name, str(step))).digest()


def poisson_sample(stream: RandomStream, count: int, sampling_prob: float) -> Indices:
    """Draws each of `count` units independently with `sampling_prob`: the sampling that the accountant amplifies by.

    Args:
        stream: A private stream of its own for this step.
        count: How many units there are, known or not; it takes no part in the law of a single unit.
        sampling_prob: q in [0, 1].

    Returns:
        The drawn indices, ascending; possibly none.

    Raises:
        BadInput: q outside [0, 1].
    """
    if not 0.0 <= sampling_prob <= 1.0:
        raise BadInput(f"sampling_prob must lie in [0, 1], given {sampling_prob}: it is expected_batch_size / nominal_examples")
    return np.flatnonzero(stream.uniform(count) < sampling_prob).astype(np.int64)


def choose_without_replacement(generator: np.random.Generator, count: int, wanted: int, *, what: str) -> Indices:
    """`wanted` distinct indices below `count`, from a public generator.

    Raises:
        BadInput: more are wanted than there are; names both numbers (never clamped).
    """
    if wanted > count:
        raise BadInput(f"{what}: {wanted} wanted but only {count} there; ask for at most {count}")
    return generator.permutation(count)[:wanted].astype(np.int64)


def _label(*fields: str) -> bytes:
    parts = (part.encode() for part in fields)
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _philox(digest: bytes) -> np.random.Generator:
    philox: Callable[..., np.random.BitGenerator] = np.random.Philox
    return np.random.Generator(philox(key=int.from_bytes(digest[:16], "little")))
