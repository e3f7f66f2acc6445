"""Decides whether a resumed or repeated trial is exactly the same trial.

The config's fingerprint covers what changes weights in exact arithmetic. Bit-for-bit equality needs more: the data, the versions of the
libraries that do the arithmetic, the device and its instruction set, physical batch, and threads.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from dpcore.config import MECHANISM_VERSION, RuntimeFlags, TrialConfig
from dpcore.gradients import ENGINE_VERSION
from dpcore.privacy.mechanism import needs_fitted_basis
from dpcore.privacy.subspace import BASIS_VERSION
from dpcore.train.features import FEATURES_VERSION

ARITHMETIC = ("torch", "numpy", "scipy", "dp-accounting", "pillow")
"""Packages whose version can change the last bit of a weight, of an image or of the calibrated noise."""

EXACT_FLAGS = {"report_every_steps", "checkpoint_every_steps", "largest_rank"}
"""The flags that a replay may change. Any other flag, also a future one, makes it another run."""


def replay_document(
    config: TrialConfig, runtime: RuntimeFlags, data_digests: Mapping[str, str], code: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything that a bit-exact repetition must share, by part, so that a message can name a difference.

    `code`: versions or digests of the network's code where it is not dpsweep's own.
    """
    return {
        **({"code": dict(sorted(code.items()))} if code else {}),
        "config": config.fingerprint(),
        "data": dict(sorted(data_digests.items())),
        "mechanism": MECHANISM_VERSION,
        "engine": ENGINE_VERSION,
        "features": FEATURES_VERSION,
        **({"basis": BASIS_VERSION} if needs_fitted_basis(config) else {}),
        "runtime": runtime.model_dump(mode="json", exclude=EXACT_FLAGS),
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in ARITHMETIC}},
        "machine": {"architecture": platform.machine(), "device": _device_name(runtime)},
    }


def _device_name(runtime: RuntimeFlags) -> str:
    """The device class: a GPU's model, a CPU's instruction set (sums of other vector widths round otherwise)."""
    if runtime.device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
