"""What decides the last bits of a public model: part of the keys of everything that is computed once and shared."""

from __future__ import annotations

from typing import Any

import torch

from dpcore.config import RuntimeFlags


def rounding_of(runtime: RuntimeFlags) -> dict[str, Any]:
    """Everything that changes the last bits of a public model and of its predictions. It is part of the keys of both."""
    resident = {"data_on_device": True} if runtime.data_on_device else {}
    return {"threads": runtime.threads, "device": runtime.device, "torch": torch.__version__, **resident}
