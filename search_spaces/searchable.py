"""Which settings of a trial a search may move.

An allow-list: a field of `TrialConfig` that nobody declared here is fixed for the whole sweep. What says *whose data* are
read, who is protected and how, what of a record is public, and how much may be spent is the data owner's to decide, once,
in `trial` or `sweep`. A draw that chose it would choose whom the ledger charges.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from dpcore.config import Part, TrialConfig

SEARCHABLE = frozenset(
    {
        "method",
        "start",
        "split",
        "clip_norm",
        "public_weight",
        "private_weight",
        "public_batch_size",
        "data.canonical_rotation",
        "data.rotation_rule",
        "ema_decay",
        "evaluation.flip",
        "evaluation.rotations_deg",
        "evaluation.scales",
        "evaluation.fuse",
        "evaluation.confidence_power",
        "evaluation.temperature",
        "evaluation.inputs",
        "loss",
        "pck_mass.radius_heads",
        "pck_mass.radius_frac",
        "pck_mass.floor",
        "subspace.rank",
        "subspace.examples",
        "subspace.source",
        "subspace.gradients",
        "subspace.refresh_steps",
        "subspace.order",
        "optimizer.name",
        "optimizer.learning_rate",
        "optimizer.momentum",
        "optimizer.weight_decay",
        "optimizer.schedule",
        "optimizer.drop_at_frac",
        "optimizer.drop_factor",
        "optimizer.dp_bias_correction",
        "optimizer.scale",
        "augmentation.flip_prob",
        "augmentation.scale_frac",
        "augmentation.rotate_deg",
        "augmentation.rotate_prob",
        "augmentation.photometric_frac",
        "augmentation.multiplicity",
        "model.backbone",
        "model.weights",
        "model.head",
        "model.head_start",
        "model.batch_norm",
        "model.freeze",
        "model.input_height_px",
        "model.input_width_px",
        "model.input_side_px",
        "model.crop_zoom",
        "model.marginal_sharpness",
        "model.pyramid_channels",
        "model.input_whitening",
        "model.position_prior",
        "model.split_ratio",
        "model.label_sigma_bins",
        "stages.public.steps",
        "stages.public.batch_size",
        "stages.public.learning_rate",
        "stages.public.freeze",
        "stages.public.until",
        "stages.public.scale",
        "stages.public.augmentation.flip_prob",
        "stages.public.augmentation.scale_frac",
        "stages.public.augmentation.rotate_deg",
        "stages.public.augmentation.rotate_prob",
        "stages.public.augmentation.photometric_frac",
        "stages.public_view.until",
        "stages.public_view.steps",
        "stages.public_view.max_steps",
        "stages.public_view.batch_size",
        "stages.public_view.learning_rate",
        "stages.public_view.scale",
        "stages.private.steps",
        "stages.private.expected_batch_size",
    }
)
"""Dotted paths of single fields. `split` chooses among the named splits of the space, whose join every claim lists."""

GEOMETRY = frozenset({"model.input_height_px", "model.input_width_px", "model.input_side_px", "model.crop_zoom"})
"""How a crop is shown to the network."""

UPRIGHT = frozenset({"data.canonical_rotation", "data.rotation_rule"})
"""Which way up a crop is shown. Under a split it follows from the public view, so that it moves no promise."""

COMPARED_ALIKE = frozenset({path for path in SEARCHABLE if path.startswith("evaluation.")} | GEOMETRY | UPRIGHT)
"""What runs that are compared share: how they are scored, and on which pixels. Where a search moves one of these, each choice has floors
and a ceiling of its own."""

SET_BY_THE_SWEEP = {
    "epsilon": "see sweep.epsilons and sweep.delta",
    "delta": "see sweep.epsilons and sweep.delta",
    "seed": "see --seed, or fix it in trial",
}
"""Fields that the sweep sets itself, and where it takes them from."""

FIXED = {
    "data": "it says whose data are read and charged, and how many they are",
    "privacy_unit": "it says what every ε of the sweep is about",
    "relation": "it says what every ε of the sweep is about",
    "examples_per_unit": "it says how much of a unit takes part, and every claim of the sweep names it",
    "labels": "whether labels are public is for the data's owner to say, once",
    "evaluation": "it says what of a picture the network may see when it is scored",
    "teacher": "its pseudo-labels are public in every trial of the sweep",
}
"""Why a field, or all below it, is not for a draw to choose."""


def why_not_searchable(path: str) -> str | None:
    """Why a path may be neither searched nor set for a reference run; None where it may.

    Args:
        path: dotted, of a field that `TrialConfig` has.
    """
    if path in SEARCHABLE:
        return None
    top = path.partition(".")[0]
    if top in SET_BY_THE_SWEEP:
        return f"the sweep sets it; {SET_BY_THE_SWEEP[top]}"
    why = FIXED.get(top)
    if why is not None:
        return f"{why}: fix it in trial"
    below = sorted(known for known in SEARCHABLE if known.startswith(f"{path}."))
    if below:
        return f"a search moves single fields; expected one of {', '.join(below)}"
    near = difflib.get_close_matches(path, SEARCHABLE, n=1)
    return f"it is not declared as searchable{f'; did you mean {near[0]}?' if near else ': fix it in trial'}"


def leaf_paths(values: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    """The dotted paths of all single values in nested mappings, whose keys may be dotted themselves."""
    for key, value in values.items():
        path = f"{parent}.{key}" if parent else str(key)
        if isinstance(value, Mapping) and value:
            yield from leaf_paths(value, path)
        else:
            yield path


def _unsearched(name: str, part: Any) -> Any:
    """A part of a config without the fields that a draw may choose."""
    if not isinstance(part, Part):
        return part
    return {field: value for field, value in part if f"{name}.{field}" not in SEARCHABLE}


def foreign_part(config: TrialConfig, trial: Mapping[str, Any]) -> str | None:
    """The part of `FIXED` in which a trial's config differs from what its space fixes; None where it is the sweep's own.

    Args:
        config: of a trial, wherever it comes from: a draw, a study, an earlier attempt.
        trial: the values that the space fixes.
    """
    for name in FIXED:
        field = TrialConfig.model_fields[name]
        kind: Any = field.annotation
        fixed = TypeAdapter(kind).validate_python(trial[name]) if name in trial else field.default
        if _unsearched(name, getattr(config, name)) != _unsearched(name, fixed) and not (
            name == "examples_per_unit" and config.method == "public_only"
        ):
            return name
    return None
