"""When a resumed or repeated trial is the very same trial: the replay fingerprint.

The config's fingerprint covers what changes weights in exact arithmetic. Bit-for-bit equality needs more: the data, the
versions of the libraries that do the arithmetic, the device and its instruction set, physical batch, threads.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from dpcore.config import MECHANISM_VERSION, RuntimeFlags, TrialConfig, digest_of

ARITHMETIC = ("torch", "numpy", "scipy", "opacus", "dp-accounting", "pillow")
"""Distributions whose version can move the last bit of a weight, of an image or of the calibrated noise."""

EXACT_FLAGS = {"report_every_steps", "checkpoint_every_steps", "largest_rank"}
"""All that a runtime may change in a replay; any other flag, also one that is still to be invented, makes another run."""


def replay_document(config: TrialConfig, runtime: RuntimeFlags, data_digests: Mapping[str, str]) -> dict[str, Any]:
    """What a bit-exact repetition must share, by part, so that a difference can be named."""
    return {
        "config": config.fingerprint(),
        "data": dict(sorted(data_digests.items())),
        "mechanism": MECHANISM_VERSION,
        "runtime": runtime.model_dump(mode="json", exclude=EXACT_FLAGS),
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in ARITHMETIC}},
        "machine": {"architecture": platform.machine(), "device": _device_name(runtime)},
    }


def replay_fingerprint(config: TrialConfig, runtime: RuntimeFlags, data_digests: Mapping[str, str]) -> str:
    """64 bits of sha256 over `replay_document`. Equal: a repetition under the same key replays; else it is a new attempt."""
    return digest_of(replay_document(config, runtime, data_digests))


def _device_name(runtime: RuntimeFlags) -> str:
    """The device class: a GPU's model, a CPU's instruction set (sums of other vector widths round otherwise)."""
    if runtime.device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
