"""How a model is asked for keypoints: the same for floor, control, ceiling and private runs."""

from __future__ import annotations

from pydantic import Field

from dpcore.config.parsing import Part


class EvaluationConfig(Part):
    """How predictions are made from a trained model. It changes scores and never weights.

    It belongs to the trial, because a score is compared with other scores: of its floor, its control and its ceiling. So a space fixes
    it in `trial`, and all runs of a sweep share it. A saved model keeps it."""

    flip: bool = Field(default=False, description="average the distributions of a crop and of its mirror image")
