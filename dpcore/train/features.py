"""Features of frozen layers, computed once per node and shared by all trials as one memory-mapped file.

The key holds the stem's weights and the data's content, so a changed stage or dataset never gets old features. float16 halves bytes and
page cache. Its rounding (3 decimal digits) is far below the noise of any private step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dpcore.config import ModelConfig, Places, digest_of
from dpcore.config.networks import HEADS
from dpcore.config.parsing import identity_of
from dpcore.data.folders import cached_folder
from dpcore.errors import BadInput
from dpcore.inference.views import UPRIGHT, View
from dpcore.model.network import weights_digest
from dpcore.train.hearing import tell
from dpcore.train.sources import CropSource, FeatureInputs, ImageInputs

FEATURES_VERSION = 3
FEATURES_FILE = "features.npy"
_ROWS_AT_ONCE = 64
_STEM_FIELDS = {"backbone", "feature_layers", "input_height_px", "input_width_px"}
_ADDED_STEM_FIELDS = {"feature_stride_px", "asked"}
"""Named where they are not at their default, so that caches of earlier versions are found."""


@dataclass(frozen=True, kw_only=True)
class Stem:
    """A frozen stem and a name for its function. Stems with equal names compute equal features."""

    module: nn.Module
    name: str
    device: torch.device

    @classmethod
    def of(cls, module: nn.Module, *, model: ModelConfig, device: torch.device, code: Mapping[str, str] | None = None) -> Stem:
        """Names `module` by its structure in the model's config, by its weights, and by what of its code is not dpsweep's."""
        added = {name: value for name, value in identity_of(model).items() if name in _ADDED_STEM_FIELDS}
        packed = {"packed": True} if HEADS.get(model.head).reads_pyramid else {}
        structure = {**model.model_dump(mode="json", include=_STEM_FIELDS), **added, **packed}
        weights = weights_digest(module.state_dict())
        document = {
            **({"code": dict(code)} if code else {}),
            "structure": structure,
            "parts": len(list(module.children())),
            "weights": weights,
            "device": device.type,
        }
        return cls(module=module.to(device), name=digest_of(document), device=device)


def cached_features(
    crops: CropSource, stem: Stem, *, data_digest: str, places: Places, private: bool, view: View = UPRIGHT
) -> FeatureInputs:
    """Features (N, C, h, w) of all crops, from the cache or computed under its lock.

    Args:
        crops: the untransformed crops.
        stem: what they go through.
        data_digest: the digest of the dataset or of its stored views.
        places: the cache lies below `cache_dir`.
        private: for features of PRIVATE data and of its views. The file has mode 0700. A feature that does not fit float16 becomes the
            nearest number that does (0 for nan), because a single private record must not decide whether a trial fails.
        view: how the crops are looked at.

    Raises:
        BadInput: a public feature does not fit float16; train the public stage with a lower learning rate.
    """
    seen = {} if view == UPRIGHT else {"view": view.name}
    key = digest_of({"version": FEATURES_VERSION, "stem": stem.name, "data": data_digest, **seen})
    target = places.cache_dir / "features" / key
    cached_folder(
        target,
        lambda folder: _write_features(ImageInputs(crops, stem.module, stem.device, view), str(folder / FEATURES_FILE), saturate=private),
        private=private,
    )
    return FeatureInputs(np.load(target / FEATURES_FILE, mmap_mode="r"), stem.device)


def _write_features(inputs: ImageInputs, path: str, *, saturate: bool) -> None:
    array: np.memmap[tuple[int, ...], np.dtype[np.float16]] | None = None
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(inputs)))
        features = inputs.take(rows, None).to("cpu", torch.float16)
        if saturate:
            features = torch.nan_to_num(features)
        elif not bool(torch.isfinite(features).all()):
            raise BadInput(f"a frozen feature of examples {rows[0]}..{rows[-1]} is not a finite float16; lower stages.public.learning_rate")
        if array is None:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(len(inputs), *features.shape[1:]))
        array[rows] = features.numpy()
        tell("features of frozen layers, picture", int(rows[-1]) + 1, len(inputs))
    if array is None:
        raise BadInput("there is no crop to compute features of: the dataset is empty")
    array.flush()
