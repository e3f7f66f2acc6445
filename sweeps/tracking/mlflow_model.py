"""Writes the folder of a registered model: weights, config, and an MLmodel file with the signature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dpcore.pose.skeleton import MPII_16, Skeleton
from sweeps.tracking.allow_list import allowed_metrics

WEIGHTS, DOCUMENT = "model.safetensors", "model.json"
DURATIONS = ("seconds",)


def write_model_folder(folder: Path, event: dict[str, Any], *, run_id: str) -> None:
    """Fills `folder` with the content of a model version.

    Args:
        folder: Empty folder.
        event: The `model` event: `model` (the trained model's folder: weights and model.json), `config` (YAML text),
            `height_px`, `width_px`, `tags`, `protected` (then durations and metrics outside the allow-list are left out).
        run_id: The run that trained it.

    Raises:
        FileNotFoundError: the weights are gone.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    shutil.copytree(event["model"], folder, dirs_exist_ok=True)
    if event["protected"]:
        _withhold(folder / DOCUMENT)
    (folder / "config.yaml").write_text(event["config"], encoding="utf-8")
    float32 = np.dtype("float32")
    crops = TensorSpec(float32, (-1, 3, event["height_px"], event["width_px"]), "crops")
    keypoints = TensorSpec(float32, (-1, _skeleton_of(folder / DOCUMENT).count, 2), "keypoints_px")
    model = Model(
        artifact_path="model",
        run_id=run_id,
        signature=ModelSignature(inputs=Schema([crops]), outputs=Schema([keypoints])),
        metadata=event["tags"],
    )
    model.add_flavor("dpsweep", weights=WEIGHTS, document=DOCUMENT)
    model.save(folder / "MLmodel")


def _skeleton_of(path: Path) -> Skeleton:
    """The joints that a model predicts; a document of an earlier version means mpii_16."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Skeleton.model_validate(document["skeleton"]) if "skeleton" in document else MPII_16


def _withhold(path: Path) -> None:
    """Removes from a model's document what must not leave on protected data: the training time and sealed metrics."""
    document = json.loads(path.read_text(encoding="utf-8"))
    meta = {name: value for name, value in document["meta"].items() if name not in DURATIONS}
    if "metrics" in meta:
        meta["metrics"] = allowed_metrics(meta["metrics"], protected=True)
    path.write_text(json.dumps({**document, "meta": meta}, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
