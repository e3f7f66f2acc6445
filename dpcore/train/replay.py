"""When a resumed or repeated trial is the very same trial: the replay fingerprint.

The config's fingerprint covers what changes weights in exact arithmetic. Bit-for-bit equality needs more: the data, the
versions of the libraries that do the arithmetic, device class, physical batch, threads.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from dpcore.config import MECHANISM_VERSION, RuntimeFlags, TrialConfig, digest_of

ARITHMETIC = ("torch", "numpy", "opacus", "dp-accounting")
"""Distributions whose version can move the last bit of a weight or of the calibrated noise."""

ROUNDING_FLAGS = {"threads", "physical_batch_size", "device", "secure_rng"}


def replay_document(config: TrialConfig, runtime: RuntimeFlags, data_digests: Mapping[str, str]) -> dict[str, Any]:
    """What a bit-exact repetition must share, by part, so that a difference can be named."""
    return {
        "config": config.fingerprint(),
        "data": dict(sorted(data_digests.items())),
        "mechanism": MECHANISM_VERSION,
        "runtime": runtime.model_dump(mode="json", include=ROUNDING_FLAGS),
        "libraries": {name: version(name) for name in ARITHMETIC},
        "machine": {"architecture": platform.machine(), "device": _device_name(runtime)},
    }


def replay_fingerprint(config: TrialConfig, runtime: RuntimeFlags, data_digests: Mapping[str, str]) -> str:
    """64 bits of sha256 over `replay_document`. Equal: a repetition under the same key replays; else it is a new attempt."""
    return digest_of(replay_document(config, runtime, data_digests))


def _device_name(runtime: RuntimeFlags) -> str:
    return torch.cuda.get_device_name() if runtime.device == "cuda" and torch.cuda.is_available() else "cpu"
