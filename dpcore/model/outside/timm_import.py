"""Imports timm where torchvision's compiled operators cannot be loaded.

timm imports torchvision. torchvision's wheel holds operators that are compiled for one build of torch; beside another build (a CPU
build from another index, say) they do not load, and `import torchvision` fails as it describes the operators `nms` and `qnms`, which
no network of timm uses. Declared without a body, they let the import go on. Where torchvision works, nothing is declared.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

import torch

from dpcore.errors import BadInput

_DECLARED: list[torch.library.Library] = []
"""Kept for the life of the process: a library that is collected takes its operators with it."""
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def import_timm() -> ModuleType:
    """The package timm.

    Raises:
        BadInput: it is not installed, or does not import.
    """
    if importlib.util.find_spec("timm") is None:
        raise BadInput("model.backbone timm: the package timm is not installed here; run pip install 'dpsweep[timm]' on every machine")
    try:
        _import_torchvision()
        return importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise BadInput(
            f"model.backbone timm: timm does not import ({error}); install a torchvision that fits torch {torch.__version__}"
        ) from error


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    _DECLARED.append(library)
