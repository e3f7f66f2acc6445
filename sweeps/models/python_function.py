"""What `mlflow.pyfunc.load_model` gives for a registered model: pictures in, keypoints out. MLflow imports this module by its name.

    model = mlflow.pyfunc.load_model("models:/quick@best-eps-0_8")
    model.predict(["photo.jpg"])            # (N, K, 3) float32: x, y in px of the picture, and a score

`sweeps.models.keypoints.arrays.pictures_of` says what it takes. Only safetensors and JSON are read, and no file of the sweep.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.models.claims import warning_about
from sweeps.models.keypoints.arrays import pictures_of
from sweeps.models.keypoints.estimator import PoseEstimator, placed

DEVICE = "device"
"""Key of the model's config: `load_model(uri, model_config={"device": "cuda"})`."""
AT_ONCE = 32


class PosePredictor:
    """A model behind MLflow's `predict`."""

    def __init__(self, estimator: PoseEstimator) -> None:
        self._estimator = estimator

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Keypoints of one person per picture: (N, K, 3) float32 with x, y in px of the picture and a score in 0 … 1.

        Args:
            model_input: uint8 arrays, paths, or a table of them with boxes.
            params: Not read.

        Raises:
            BadInput: what was given is no picture.
        """
        given = pictures_of(model_input)
        if not given:
            return np.empty((0, len(self._estimator.joints), 3), dtype=np.float32)
        boxes = [self._estimator.crop_of(one.person, one.picture.size) for one in given]
        crops = np.stack([box.cut(one.picture) for box, one in zip(boxes, given, strict=True)])
        found = placed(self._estimator.in_batches(crops, at_once=AT_ONCE), boxes)
        return np.concatenate([found.points, found.scores[..., None]], axis=-1).astype(np.float32)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> PosePredictor:
    """The model in a downloaded folder; MLflow's entry point. A claim that was cut off or altered is said on stderr."""
    warning = warning_about(Path(path))
    if warning is not None:
        print(f"dpsweep: {warning}", file=sys.stderr)
    return PosePredictor(PoseEstimator.load(Path(path), device=(model_config or {}).get(DEVICE, "cpu")))
