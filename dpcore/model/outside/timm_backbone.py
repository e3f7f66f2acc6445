"""Networks of the package timm (Wightman): `model.backbone: timm:NAME`.

Weights: `model.weights: timm` loads timm's own (from the Hugging Face hub or its cache on this machine), a file below the data directory
is read strictly. Without weights the network starts as timm draws it, from the trial's seed.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dpcore.config import ModelConfig, Places
from dpcore.config.networks import TIMM_WEIGHTS
from dpcore.errors import BadInput
from dpcore.model.built import BuiltBackbone
from dpcore.model.outside.chain import Foreign, safe_backbone
from dpcore.model.outside.timm_import import import_timm
from dpcore.model.outside.weight_files import Loaded, fit, read_weights, weights_path

Overlay = Mapping[str, Any]
"""Replaces entries of timm's `pretrained_cfg`: with `file`, timm's own loader reads that file instead of the hub's."""


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A network of timm by name. `settings`: the input size, for networks that must know it."""

    timm: Any
    name: str
    settings: Mapping[str, Any]

    def features(self, **wanted: Any) -> nn.Module:
        module: nn.Module = self.timm.create_model(self.name, features_only=True, **wanted, **self.settings)
        return module


def build_timm(
    config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None, overlay: Overlay | None = None
) -> BuiltBackbone:
    """The network that `timm:NAME` names, safe for per-example gradients.

    Raises:
        BadInput: timm is missing, has no such network, no such layer or no weights for it; the weights do not fit.
    """
    timm, name = import_timm(), config.backbone.partition(":")[2]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise BadInput(
            f"model.backbone: timm {timm.__version__} has no network {name}" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    pretrained = timm.get_pretrained_cfg(name)
    size = {"img_size": (config.input_height_px, config.input_width_px)} if pretrained.fixed_input_size else {}
    network = _Named(timm=timm, name=name, settings=size)
    features = _features(network, config)
    loaded: Loaded | None = None
    if document is None and config.weights is not None and not config.starts_at_random:
        loaded = _load(network, config, places, overlay, features)
    foreign = Foreign(
        network=features,
        document={"timm": timm.__version__, "layers": _layers(features)},
        code={"timm": timm.__version__},
        mean=pretrained.mean,
        std=pretrained.std,
        loaded=() if loaded is None else loaded.lines(),
        last_layer=_last_stage(features),
    )
    return safe_backbone(foreign, config, document)


def _features(network: _Named, config: ModelConfig) -> nn.Module:
    """The network up to the wanted maps; without `model.feature_layers` the last ones.

    Raises:
        BadInput: timm can't give maps of it, or a layer does not exist.
    """
    try:
        if not config.feature_layers:
            return network.features(out_indices=(-1,))
        every = _layers(network.features())
        unknown = [layer for layer in config.feature_layers if layer not in every]
        if unknown:
            raise BadInput(f"model.feature_layers: {network.name} has no maps at {', '.join(unknown)}; it has {', '.join(every)}")
        return network.features(out_indices=tuple(every.index(layer) for layer in config.feature_layers))
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise BadInput(f"model.backbone timm:{network.name}: timm gives no maps of it ({error}); choose another network") from error


def _last_stage(features: nn.Module) -> str:
    """The layer that gives the last maps. Where it begins with a downsampling of its own, its blocks alone: so the paper's FT counts."""
    name = _layers(features)[-1]
    inner = dict(features.named_modules())
    stage = inner.get(name, inner.get(name.replace(".", "_"), inner.get(f"model.{name}")))
    children = set() if stage is None else {child for child, _ in stage.named_children()}
    return f"{name}.blocks" if {"downsample", "blocks"} <= children else name


def _layers(features: Any) -> list[str]:
    return list(features.feature_info.module_name())


def _load(network: _Named, config: ModelConfig, places: Places | None, overlay: Overlay | None, features: nn.Module) -> Loaded:
    """Sets the weights of `features`, and says what was loaded and what was left out."""
    whole = network.timm.create_model(network.name, **network.settings)
    if config.weights == TIMM_WEIGHTS:
        state, source = _timms_own(network, overlay), f"timm's own weights of {network.name}"
    else:
        path = weights_path(config.weights or "", places)
        state, source = _converted(whole, read_weights(path)), path.name
    elsewhere = frozenset(whole.state_dict())
    return fit(features, state, source=source, rename=_flat(features), elsewhere=elsewhere, left_out=config.weights_left_out)


def _timms_own(network: _Named, overlay: Overlay | None) -> Mapping[str, Tensor]:
    """The state of the whole network. With its classifier, because timm is strict only where nothing of it is cut off."""
    try:
        whole = network.timm.create_model(network.name, pretrained=True, pretrained_cfg_overlay=overlay, **network.settings)
    except Exception as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"model.weights timm: timm could not load its weights of {network.name} ({cause}). Without a way to the hub, put the file into "
            "the hub's cache on every machine, or give model.weights a .safetensors or .pth file below the data directory"
        ) from error
    state: Mapping[str, Tensor] = whole.state_dict()
    return state


def _converted(whole: nn.Module, state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """A state in the names of this timm: its own filter for the network renames and resizes what older files hold."""
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    converted: Mapping[str, Tensor] = state if convert is None else convert(state, whole)
    return converted


def _flat(features: nn.Module) -> dict[str, str]:
    """The network's own first names → those of its features, where timm writes `stages_3` for `stages.3`; or `model.` before all."""
    if [name for name, _ in features.named_children()] == ["model"]:
        return {"": "model."}
    return {name.replace("_", "."): name for name, _ in features.named_children() if "_" in name and name.rpartition("_")[2].isdigit()}
