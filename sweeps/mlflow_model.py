"""The folder of a registered model: weights, config, and an MLmodel file with the signature."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dpcore.pose.skeleton import MPII_16

WEIGHTS = "model.safetensors"


def write_model_folder(folder: Path, event: dict[str, Any], *, run_id: str) -> None:
    """Fills `folder` with what a model version holds.

    Args:
        folder: Empty folder.
        event: The `model` event: `model` (the trained model's folder: weights and model.json), `config` (YAML text),
            `height_px`, `width_px`, `tags`.
        run_id: The run that trained it.

    Raises:
        FileNotFoundError: the weights are gone.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    shutil.copytree(event["model"], folder, dirs_exist_ok=True)
    (folder / "config.yaml").write_text(event["config"])
    float32 = np.dtype("float32")
    crops = TensorSpec(float32, (-1, 3, event["height_px"], event["width_px"]), "crops")
    keypoints = TensorSpec(float32, (-1, len(MPII_16), 2), "keypoints_px")
    model = Model(
        artifact_path="model",
        run_id=run_id,
        signature=ModelSignature(inputs=Schema([crops]), outputs=Schema([keypoints])),
        metadata=event["tags"],
    )
    model.add_flavor("dpsweep", weights=WEIGHTS, document="model.json")
    model.save(folder / "MLmodel")
